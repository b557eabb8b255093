/* The io_uring engine. The parent makes the queue, a worker uses it, and after the worker's death the
 * parent drains it and lends it to the next one. So nothing that matters may live in one process only:
 * the shared rings hold the heads and tails; the one private word is `tail`, the entries written but
 * not yet shown to the kernel, and it is derived again from the shared words in drain().
 *
 * liburing makes the mappings and fills the entries; heads and tails are moved here, because
 * liburing keeps private copies of them that a dead worker would leave stale in the parent.
 *
 * Counting is sound because each entry yields exactly one completion: no multishot, no skipped
 * completions, no timeouts in the queue. Plain flags or COOP_TASKRUN only: a DEFER_TASKRUN queue
 * cannot be drained by the parent, SQPOLL would read behind its back. */
#include "reader/uring.h"

#include "base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

struct uring {
    struct io_uring ring;
    struct rfi_landing fixed; /* registered memory; n 0: none */
    uint64_t fixed_last; /* bytes of the last piece */
    uint32_t tail; /* of the submission queue; *ring.sq.ktail lags behind until the next submit */
};

/* A registered buffer is at most 1 GiB; a read across two of them is a plain one. */
#define PIECE_BYTES (UINT64_C(1) << 30)
enum { PIECES_MOST = 1024 };

/* In-flight reads at most; the completion queue (twice the entries) then never overflows. */
enum { DEPTH_MAX = 4096 };

static uint32_t sq_head(const struct uring *u)
{
    return io_uring_smp_load_acquire(u->ring.sq.khead);
}

static uint32_t sq_flags(const struct uring *u)
{
    return IO_URING_READ_ONCE(*u->ring.sq.kflags);
}

/* Written and not yet taken by the kernel. */
static uint32_t unsubmitted(const struct uring *u)
{
    return u->tail - sq_head(u);
}

/* The head is ours: only the process that reaps moves it. */
static uint32_t cq_head(const struct uring *u)
{
    return *u->ring.cq.khead;
}

static uint32_t completed(const struct uring *u)
{
    return io_uring_smp_load_acquire(u->ring.cq.ktail) - cq_head(u);
}

static int enter(struct rfi_reader *r, uint32_t to_submit, uint32_t min_complete, uint32_t flags, uint64_t wait_ns)
{
    struct uring *u = r->state;
    struct __kernel_timespec ts = {.tv_sec = (int64_t)(wait_ns / 1000000000u),
                                   .tv_nsec = (long long)(wait_ns % 1000000000u)};
    struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)&ts};
    r->submits++;
    if (!min_complete)
        return io_uring_enter2((unsigned)u->ring.ring_fd, to_submit, 0, flags, NULL, 0);
    return io_uring_enter2((unsigned)u->ring.ring_fd, to_submit, min_complete,
                           flags | IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, (sigset_t *)&arg, sizeof arg);
}

/* Conditions that pass by themselves: the entries stay queued and the next call tries again. */
static bool passing(int rc)
{
    return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ETIME;
}

static void publish_tail(struct uring *u)
{
    /* Release: the entries are written before the kernel, or a draining parent, sees them counted. */
    io_uring_smp_store_release(u->ring.sq.ktail, u->tail);
}

static int setup(struct uring *u, uint32_t sq, uint32_t cq)
{
    static const unsigned modes[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0};
    int rc = -EINVAL;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0] && rc == -EINVAL; i++) {
        struct io_uring_params p = {.flags = modes[i] | IORING_SETUP_CQSIZE, .cq_entries = cq};
        rc = io_uring_queue_init_params(sq, &u->ring, &p);
    }
    return rc;
}

int rfi_uring_open_sized(struct rfi_reader *r, uint32_t depth, uint32_t sq, uint32_t cq, struct rfi_error *err)
{
    struct uring *u = calloc(1, sizeof *u);
    if (!u)
        return rfi_fail(err, ENOMEM, "io_uring: no memory for a queue of %u reads. Free some memory", depth);
    int rc = setup(u, sq, cq);
    if (rc < 0) {
        free(u);
        return rfi_fail(err, -rc, "io_uring: cannot make a queue of %u reads: %s. Use --engine pread", depth,
                        strerror(-rc));
    }
    const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;
    if ((u->ring.features & needed) != needed) {
        io_uring_queue_exit(&u->ring);
        free(u);
        return rfi_fail(err, ENOSYS, "io_uring: this kernel's is too old (Linux 5.11 is needed). Use --engine pread");
    }
    for (uint32_t i = 0; i < u->ring.sq.ring_entries; i++)
        u->ring.sq.array[i] = i; /* entry i is slot i for ever */
    u->tail = sq_head(u);
    r->state = u;
    return 0;
}

static int uring_open(struct rfi_reader *r, uint32_t depth, struct rfi_error *err)
{
    if (depth > DEPTH_MAX)
        return rfi_fail(err, EINVAL, "io_uring: a queue depth of %u is too much. Use at most %d", depth, DEPTH_MAX);
    return rfi_uring_open_sized(r, depth, depth, 2 * depth, err);
}

void rfi_uring_publish(struct rfi_reader *r)
{
    publish_tail(r->state);
}

static int uring_submit(struct rfi_reader *r)
{
    struct uring *u = r->state;
    publish_tail(u);
    while (unsubmitted(u) > 0) {
        int rc = enter(r, unsubmitted(u), 0, 0, 0);
        if (rc == -EINTR)
            continue;
        if (rc == 0 || rc == -EAGAIN || rc == -EBUSY)
            return 0; /* short of memory or of room: reap() hands them over again */
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Makes room in a submission queue that is smaller than the depth (only a test has one): the kernel must
 * take entries first. */
static void make_room(struct rfi_reader *r)
{
    struct uring *u = r->state;
    while (unsubmitted(u) == u->ring.sq.ring_entries) {
        int rc = uring_submit(r);
        if (rc == 0 && unsubmitted(u) == u->ring.sq.ring_entries)
            rc = enter(r, 0, 1, 0, 1000000); /* EAGAIN or EBUSY: until something ends */
        assert(rc >= 0 || passing(rc));
    }
}

#ifndef IORING_REGISTER_CLONE_BUFFERS
#define IORING_REGISTER_CLONE_BUFFERS 30
#endif

/* Linux 6.12: the pages are pinned, and counted against memlock, once for all queues. */
static int clone_buffers(const struct uring *u, const struct uring *from)
{
    const struct {
        uint32_t src_fd, flags, src_off, dst_off, nr, pad[3];
    } arg = {.src_fd = (uint32_t)from->ring.ring_fd};
    return io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_CLONE_BUFFERS, &arg, 1);
}

/* One after the other, memory is cut anew: as few pieces as can be. */
static struct rfi_landing pieces_of(const struct rfi_landing *l)
{
    uint64_t bytes = l->bytes * l->n;
    if (l->n > 1 && l->bytes != l->stride)
        return *l;
    return (struct rfi_landing){l->memory, PIECE_BYTES, rfi_min(bytes, PIECE_BYTES),
                                (uint32_t)rfi_min(rfi_div_up(bytes, PIECE_BYTES), PIECES_MOST + 1)};
}

static int pin(struct uring *u, const struct rfi_landing *l, uint64_t last)
{
    struct iovec pieces[PIECES_MOST];
    if (l->n > PIECES_MOST || l->bytes > PIECE_BYTES)
        return -E2BIG;
    for (uint32_t i = 0; i < l->n; i++)
        pieces[i] = (struct iovec){l->memory + i * l->stride, i + 1 < l->n ? l->bytes : last};
    return io_uring_register_buffers(&u->ring, pieces, l->n);
}

/* Registered, the pages of a read need not be pinned and let go each time: measured with O_DIRECT and huge pages, 8 % of
 * the CPU time of a read of 2 KiB, 18 % at 110 KB, 30 % at 1 MiB (bench/bare_loop --fixed-buffers). Registered files
 * made no difference, and their table would outlive its worker: there is none. */
static int uring_prepare(struct rfi_reader *r, const struct rfi_landing *memory, const struct rfi_reader *like)
{
    struct uring *u = r->state;
    const struct uring *other = like ? like->state : NULL;
    const struct rfi_landing l = pieces_of(memory);
    uint64_t bytes = memory->bytes * memory->n, last = l.stride == PIECE_BYTES ? bytes - (l.n - 1) * l.stride : l.bytes;
    int rc = -EINVAL;
    if (bytes == 0)
        return 0;
    if (other && other->fixed.memory == l.memory && other->fixed_last == last)
        rc = clone_buffers(u, other);
    if (rc < 0)
        rc = pin(u, &l, last);
    if (rc < 0)
        return rc;
    u->fixed = l;
    u->fixed_last = last;
    return 0;
}

/* The registered piece that a read lands in, or -1. */
static int piece_of(const struct uring *u, const struct rfi_read *read)
{
    const struct rfi_landing *l = &u->fixed;
    if (l->n == 0)
        return -1;
    uint64_t at = (uintptr_t)read->dest - (uintptr_t)l->memory, i = at / l->stride, end = at % l->stride + read->bytes;
    return i < l->n && end <= (i + 1 < l->n ? l->bytes : u->fixed_last) ? (int)i : -1;
}

static void uring_queue(struct rfi_reader *r, const struct rfi_read *read)
{
    struct uring *u = r->state;
    assert(r->in_flight < r->depth && read->bytes <= RFI_READ_MAX && read->offset <= INT64_MAX);
    make_room(r);
    struct io_uring_sqe *sqe = &u->ring.sq.sqes[u->tail & u->ring.sq.ring_mask];
    memset(sqe, 0, sizeof *sqe);
    int piece = piece_of(u, read);
    if (piece >= 0)
        io_uring_prep_read_fixed(sqe, read->fd, read->dest, read->bytes, read->offset, piece);
    else
        io_uring_prep_read(sqe, read->fd, read->dest, read->bytes, read->offset);
    sqe->user_data = read->tag;
    u->tail++;
    r->in_flight++;
}

static uint32_t take(struct uring *u, struct rfi_completion *ret, uint32_t cap)
{
    uint32_t n = 0, head = cq_head(u), have = completed(u);
    for (; n < cap && n < have; n++) {
        const struct io_uring_cqe *cqe = &u->ring.cq.cqes[(head + n) & u->ring.cq.ring_mask];
        ret[n] = (struct rfi_completion){.tag = (uint32_t)cqe->user_data, .result = cqe->res};
    }
    if (n > 0) /* release: the kernel may write the places again once it sees the head move */
        io_uring_smp_store_release(u->ring.cq.khead, head + n);
    return n;
}

/* Completions that the kernel holds back until somebody enters: an overflow's, or task work. */
static bool held_back(const struct uring *u)
{
    return sq_flags(u) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

/* Nothing has completed: hands over what is queued and sleeps, in one call when that works. */
static int wait_one(struct rfi_reader *r, uint64_t wait_ns)
{
    struct uring *u = r->state;
    publish_tail(u);
    uint32_t want = unsubmitted(u);
    int rc = enter(r, want, 1, 0, wait_ns);
    bool slept = want == 0 || rc >= (int)want;
    if (rc < 0 && !passing(rc))
        return rc;
    if (slept || rc == -EINTR || rc == -ETIME || completed(u) > 0)
        return 0;
    /* The hand-over stopped early, and then the kernel does not wait. */
    rc = enter(r, 0, 1, 0, wait_ns);
    return rc < 0 && !passing(rc) ? rc : 0;
}

static int uring_reap(struct rfi_reader *r, struct rfi_completion *ret, uint32_t cap, uint64_t wait_ns)
{
    struct uring *u = r->state;
    int rc = 0;
    if (r->in_flight == 0)
        return 0;
    if (completed(u) == 0 && !held_back(u) && wait_ns > 0)
        rc = wait_one(r, wait_ns);
    else
        rc = uring_submit(r);
    if (rc < 0)
        return rc;
    if (completed(u) < cap && held_back(u)) {
        rc = enter(r, 0, 0, IORING_ENTER_GETEVENTS, 0);
        if (rc < 0 && !passing(rc))
            return rc;
        if (completed(u) == 0 && wait_ns > 0 && (rc = wait_one(r, wait_ns)) < 0)
            return rc;
    }
    uint32_t n = take(u, ret, cap);
    r->in_flight -= n;
    return (int)n;
}

/* Takes back what a dead worker had published and not handed over: the kernel reads the submission
 * tail only inside an enter of ours, and there is none now. */
static void discard_unsubmitted(struct uring *u)
{
    u->tail = sq_head(u);
    publish_tail(u);
}

static uint32_t consume(struct uring *u, void (*seen)(void *ctx, uint32_t tag, int32_t result), void *ctx)
{
    struct rfi_completion c[64];
    uint32_t n, total = 0;
    while ((n = take(u, c, 64)) > 0) {
        total += n;
        for (uint32_t i = 0; seen && i < n; i++)
            seen(ctx, c[i].tag, c[i].result);
    }
    return total;
}

/* Entries that the kernel took and whose completions were not consumed; wraps as the kernel's words
 * do. A completion that was lost for want of memory (koverflow) is over too, and so is an entry that
 * was dropped as malformed. */
static uint32_t outstanding(const struct uring *u)
{
    return sq_head(u) - cq_head(u) - IO_URING_READ_ONCE(*u->ring.cq.koverflow) -
           IO_URING_READ_ONCE(*u->ring.sq.kdropped);
}

static int uring_drain(struct rfi_reader *r, void (*seen)(void *ctx, uint32_t tag, int32_t result), void *ctx)
{
    struct uring *u = r->state;
    discard_unsubmitted(u);
    consume(u, seen, ctx);
    /* After an overflow the tail stands still until somebody asks for the rest, with room for it. */
    while (sq_flags(u) & IORING_SQ_CQ_OVERFLOW) {
        int rc = enter(r, 0, 0, IORING_ENTER_GETEVENTS, 0);
        if (rc < 0 && !passing(rc) && rc != -EBADR) /* EBADR: some were lost; koverflow counts them */
            return rc;
        if (consume(u, seen, ctx) == 0)
            break;
    }
    if (outstanding(u) != 0)
        return 0;
    r->in_flight = 0;
    return 1;
}

static int uring_drain_fd(const struct rfi_reader *r)
{
    const struct uring *u = r->state;
    return u->ring.ring_fd;
}

/* Unmaps and closes this process's copies; others keep theirs. */
static void uring_close(struct rfi_reader *r)
{
    struct uring *u = r->state;
    if (!u)
        return;
    io_uring_queue_exit(&u->ring);
    free(u);
    r->state = NULL;
    r->in_flight = 0;
}

const struct rfi_reader_ops rfi_reader_uring = {
    .name = "uring",
    .open = uring_open,
    .prepare = uring_prepare,
    .queue = uring_queue,
    .submit = uring_submit,
    .reap = uring_reap,
    .drain = uring_drain,
    .drain_fd = uring_drain_fd,
    .abandon = uring_close,
    .close = uring_close,
};
