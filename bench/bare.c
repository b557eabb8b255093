#include "bare.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "segment/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HUGE = 2 << 20 };

/* One read in flight. Memory is given out in order and taken back in order. */
struct flight {
    uint64_t number; /* of the read, counted from the start of the run */
    uint64_t wanted; /* bytes that must come; fewer are an error */
};

struct bare_loop {
    struct io_uring ring;
    bool ring_open;
    const struct reads *reads;
    const struct bare_options *o;
    int *fds;
    size_t n_fds;
    unsigned char *memory;
    uint64_t memory_bytes;
    uint64_t head; /* virtual: bytes given out since the start */
    uint64_t *starts; /* [window]: where read i's memory began, at i mod window */
    bool *over;
    size_t window; /* a power of two */
    uint64_t next, oldest; /* reads: to be issued, not yet over */
    uint64_t last; /* reads to make in all */
    struct flight flights[BARE_DEPTH_MAX];
    uint32_t free_tags[BARE_DEPTH_MAX], n_free;
    uint64_t syscalls, done, bytes;
    bool fixed_buffers; /* registered */
};

/* ---- set-up ---- */

static int open_files(struct bare_loop *l, struct rfi_error *err)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    l->fds = calloc(l->reads->n_files + 1, sizeof *l->fds);
    if (!l->fds)
        return rfi_fail(err, ENOMEM, "bare loop: out of memory for %zu files", l->reads->n_files);
    for (; l->n_fds < l->reads->n_files; l->n_fds++) {
        const char *path = l->reads->files[l->n_fds];
        l->fds[l->n_fds] = open(path, O_RDONLY | O_CLOEXEC | (l->o->direct ? O_DIRECT : 0));
        if (l->fds[l->n_fds] < 0)
            return rfi_fail(err, errno, "bare loop: %s (file %zu of %zu): %s", path, l->n_fds + 1, l->reads->n_files,
                            strerror(errno));
    }
    return 0;
}

/* As ringfeed's arenas: shared memory, made by the same function, so with huge pages where the kernel has them. */
static int map_memory(struct bare_loop *l, struct rfi_error *err)
{
    l->memory_bytes = rfi_align_up(l->o->buffer_bytes, HUGE);
    int fd = memfd_create("bare_loop", MFD_CLOEXEC), rc = 0;
    if (fd < 0 || ftruncate(fd, (off_t)l->memory_bytes) < 0 ||
        !(l->memory = rfi_pages_map(fd, l->memory_bytes, PROT_READ | PROT_WRITE)) ||
        rfi_pages_populate(fd, l->memory, 0, l->memory_bytes) < 0)
        rc = rfi_fail(err, errno, "bare loop: %llu bytes of memory: %s", (unsigned long long)l->memory_bytes,
                      strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Buffers where the limit on locked memory allows them, as ringfeed does. */
static int register_all(struct bare_loop *l, struct rfi_error *err)
{
    int rc = 0;
    l->fixed_buffers =
        l->o->fixed_buffers && io_uring_register_buffers(&l->ring, &(struct iovec){l->memory, l->memory_bytes}, 1) == 0;
    if (l->o->fixed_files)
        rc = io_uring_register_files(&l->ring, l->fds, (unsigned)l->n_fds);
    return rc < 0 ? rfi_fail(err, -rc, "bare loop: registered files: %s", strerror(-rc)) : 0;
}

static int open_ring(struct bare_loop *l, struct rfi_error *err)
{
    int rc = io_uring_queue_init(l->o->depth, &l->ring, IORING_SETUP_COOP_TASKRUN);
    if (rc == -EINVAL) /* before Linux 5.19 */
        rc = io_uring_queue_init(l->o->depth, &l->ring, 0);
    if (rc < 0)
        return rfi_fail(err, -rc, "bare loop: io_uring: %s", strerror(-rc));
    l->ring_open = true;
    if (register_all(l, err) < 0)
        return err->code;
    for (uint32_t i = 0; i < l->o->depth; i++)
        l->free_tags[l->n_free++] = i;
    for (l->window = 1; l->window < l->reads->n + 1 && l->window < 1 << 20;)
        l->window *= 2;
    l->starts = calloc(l->window, sizeof *l->starts);
    l->over = calloc(l->window, sizeof *l->over);
    return l->starts && l->over ? 0 : rfi_fail(err, ENOMEM, "bare loop: out of memory");
}

int bare_create(const struct reads *reads, const struct bare_options *o, struct bare_loop **ret, struct rfi_error *err)
{
    if (o->buffer_bytes < 2 * ((uint64_t)reads->piece + 2 * reads->align))
        return rfi_fail(err, EINVAL, "bare loop: %llu bytes of memory do not hold two reads of %u",
                        (unsigned long long)o->buffer_bytes, reads->piece);
    struct bare_loop *l = calloc(1, sizeof *l);
    if (!l)
        return rfi_fail(err, ENOMEM, "bare loop: out of memory");
    l->reads = reads;
    l->o = o;
    int rc = open_files(l, err);
    if (rc == 0)
        rc = map_memory(l, err);
    if (rc == 0)
        rc = open_ring(l, err);
    if (rc < 0) {
        bare_destroy(l);
        return rc;
    }
    *ret = l;
    return 0;
}

void bare_destroy(struct bare_loop *l)
{
    if (!l)
        return;
    if (l->ring_open)
        io_uring_queue_exit(&l->ring);
    for (size_t i = 0; i < l->n_fds; i++)
        close(l->fds[i]);
    if (l->memory)
        munmap(l->memory, l->memory_bytes);
    free(l->fds);
    free(l->starts);
    free(l->over);
    free(l);
}

/* ---- the loop ---- */

static const struct read *read_number(const struct bare_loop *l, uint64_t number)
{
    return &l->reads->items[number < l->reads->n ? number : number % l->reads->n];
}

/* What is asked of the kernel for a read: the extent, rounded outwards to A for O_DIRECT. */
static void extent_of(const struct bare_loop *l, const struct read *r, uint64_t *ret_from, uint64_t *ret_bytes)
{
    uint64_t a = l->o->direct ? l->reads->align : 1;
    *ret_from = rfi_align_down(r->offset, a);
    *ret_bytes = rfi_align_up(r->offset + r->bytes, a) - *ret_from;
}

/* Memory for the next read, not wrapping, if nothing in flight lies there. */
static bool take_memory(struct bare_loop *l, uint64_t bytes, uint64_t *ret)
{
    uint64_t total = rfi_align_down(l->o->buffer_bytes, l->reads->align), at = l->head;
    if (at % total + bytes > total)
        at += total - at % total;
    if (l->oldest < l->next && at + bytes - l->starts[l->oldest % l->window] > total)
        return false;
    *ret = at;
    l->head = rfi_align_up(at + bytes, l->reads->align);
    return true;
}

static bool issue(struct bare_loop *l)
{
    const struct read *r = read_number(l, l->next);
    uint64_t from, bytes, at;
    extent_of(l, r, &from, &bytes);
    if (l->n_free == 0 || l->next - l->oldest >= l->window || !take_memory(l, bytes, &at))
        return false;
    uint32_t tag = l->free_tags[--l->n_free];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
    uint64_t total = rfi_align_down(l->o->buffer_bytes, l->reads->align);
    int fd = l->o->fixed_files ? (int)r->file : l->fds[r->file];
    if (l->fixed_buffers)
        io_uring_prep_read_fixed(sqe, fd, l->memory + at % total, (unsigned)bytes, from, 0);
    else
        io_uring_prep_read(sqe, fd, l->memory + at % total, (unsigned)bytes, from);
    if (l->o->fixed_files)
        sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = tag;
    l->flights[tag] = (struct flight){.number = l->next, .wanted = r->offset + r->bytes - from};
    l->starts[l->next % l->window] = at;
    l->over[l->next % l->window] = false;
    l->next++;
    return true;
}

static int complete(struct bare_loop *l, const struct io_uring_cqe *cqe, struct rfi_error *err)
{
    const struct flight *f = &l->flights[cqe->user_data];
    const struct read *r = read_number(l, f->number);
    if (cqe->res < 0 || (uint64_t)cqe->res < f->wanted)
        return rfi_fail(err, cqe->res < 0 ? -cqe->res : ENODATA, "bare loop: %s at offset %llu: %s",
                        l->reads->files[r->file], (unsigned long long)r->offset,
                        strerror(cqe->res < 0 ? -cqe->res : ENODATA));
    l->bytes += r->bytes;
    l->done++;
    l->over[f->number % l->window] = true;
    l->free_tags[l->n_free++] = (uint32_t)cqe->user_data;
    return 0;
}

static int reap(struct bare_loop *l, struct rfi_error *err)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    int rc = 0;
    io_uring_for_each_cqe(&l->ring, head, cqe)
    {
        n++;
        if ((rc = complete(l, cqe, err)) < 0)
            break;
    }
    io_uring_cq_advance(&l->ring, n);
    while (l->oldest < l->next && l->over[l->oldest % l->window])
        l->oldest++;
    return rc;
}

/* Until the last read is over, or `until` (a time; 0: none) has come and `bytes` are read. */
static int loop(struct bare_loop *l, uint64_t until, uint64_t bytes, struct rfi_error *err)
{
    while (l->oldest < l->last && (!until || l->bytes < bytes || rfi_now_ns() < until)) {
        while (l->next < l->last && issue(l))
            ;
        int rc = io_uring_submit_and_wait(&l->ring, 1);
        l->syscalls++;
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
            return rfi_fail(err, -rc, "bare loop: io_uring: %s", strerror(-rc));
        if ((rc = reap(l, err)) < 0)
            return rc;
    }
    return 0;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Nothing may land in memory that is about to go. */
static int drain(struct bare_loop *l, struct rfi_error *err)
{
    l->last = l->next;
    return loop(l, 0, 0, err);
}

int bare_run(struct bare_loop *l, struct bare_result *ret, struct rfi_error *err)
{
    const struct bare_options *o = l->o;
    *ret = (struct bare_result){0};
    if (l->reads->n == 0)
        return 0;
    l->last = o->runtime_ns ? UINT64_MAX : o->n ? o->n : l->reads->n;
    int rc = o->runtime_ns ? loop(l, rfi_now_ns() + o->ramp_ns, o->ramp_bytes, err) : 0;
    if (rc < 0)
        return rc;
    uint64_t reads = l->done, bytes = l->bytes, syscalls = l->syscalls, from = rfi_now_ns();
    double cpu = cpu_seconds();
    rc = loop(l, o->runtime_ns ? from + o->runtime_ns : 0, 0, err);
    *ret = (struct bare_result){.reads = l->done - reads,
                                .bytes = l->bytes - bytes,
                                .syscalls = l->syscalls - syscalls,
                                .seconds = (double)(rfi_now_ns() - from) * 1e-9,
                                .cpu_seconds = cpu_seconds() - cpu};
    return rc < 0 ? rc : drain(l, err);
}
