/* Asks a file system whether it still answers: one block of the place where a worker waits, read through an
 * io_uring of the parent's own, so that the loop never blocks, whatever the answer. Opened with O_DIRECT, for two
 * reasons: a page of the page cache may be locked by the very read that hangs, and a direct read of ours that
 * never ends holds no thread of the kernel, so this process can still die. Where O_DIRECT cannot be had the
 * question cannot be asked. Must not know what follows from the answer. */
#include "base/bytes.h"
#include "coordinator/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>

enum { OPEN, READ, CLOSE, OPS, ENTRIES = 128, BLOCK_MOST = 64 << 10 };

struct probe {
    enum rfi_probe_state state;
    int fd;
    uint64_t offset;
    unsigned char *block; /* never freed while a read may land in it */
};

struct rfi_prober {
    struct io_uring ring;
    uint32_t workers, in_flight;
    uint32_t block_bytes;
    struct probe probes[];
};

struct rfi_prober *rfi_prober_open(uint32_t workers, uint64_t align)
{
    struct rfi_prober *p;
    if (align > BLOCK_MOST || !(p = calloc(1, sizeof *p + workers * sizeof p->probes[0])))
        return NULL;
    if (io_uring_queue_init(ENTRIES, &p->ring, 0) < 0) {
        free(p);
        return NULL;
    }
    p->workers = workers;
    p->block_bytes = (uint32_t)rfi_max(align, 4096);
    return p;
}

/* Blocks that a read may still land in stay mapped: the process is about to end or is a forked child. */
void rfi_prober_close(struct rfi_prober *p)
{
    if (!p)
        return;
    io_uring_queue_exit(&p->ring);
    for (uint32_t w = 0; w < p->workers; w++)
        if (p->probes[w].state != RFI_PROBE_UNDER_WAY)
            free(p->probes[w].block);
    free(p);
}

/* The queue has room for all that can be under way: one entry a worker. */
static struct io_uring_sqe *entry(struct rfi_prober *p)
{
    struct io_uring_sqe *sqe = p->in_flight < ENTRIES ? io_uring_get_sqe(&p->ring) : NULL;
    p->in_flight += sqe != NULL;
    return sqe;
}

static void mark(struct io_uring_sqe *sqe, uint32_t worker, unsigned op)
{
    sqe->user_data = (uint64_t)worker * OPS + op;
}

void rfi_prober_start(struct rfi_prober *p, uint32_t worker, const char *path, uint64_t offset)
{
    struct probe *b = &p->probes[worker];
    struct io_uring_sqe *sqe;
    if (!b->block && !(b->block = aligned_alloc(BLOCK_MOST, BLOCK_MOST)))
        return;
    if (!(sqe = entry(p)))
        return;
    b->offset = rfi_align_down(offset, p->block_bytes);
    b->state = RFI_PROBE_UNDER_WAY;
    io_uring_prep_openat(sqe, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_DIRECT, 0);
    mark(sqe, worker, OPEN);
    io_uring_submit(&p->ring); /* the path is copied here */
}

static void opened(struct rfi_prober *p, uint32_t worker, int fd)
{
    struct probe *b = &p->probes[worker];
    struct io_uring_sqe *sqe = fd >= 0 ? entry(p) : NULL;
    b->fd = fd;
    if (!sqe) { /* no O_DIRECT here, the file is gone, no descriptor left: no answer to be had */
        b->state = RFI_PROBE_IMPOSSIBLE;
        return;
    }
    io_uring_prep_read(sqe, fd, b->block, p->block_bytes, b->offset);
    mark(sqe, worker, READ);
}

static void has_read(struct rfi_prober *p, uint32_t worker, int result)
{
    struct probe *b = &p->probes[worker];
    struct io_uring_sqe *sqe = entry(p);
    /* An error of the device is an answer; a refusal of our alignment is none. */
    b->state = result == -EINVAL ? RFI_PROBE_IMPOSSIBLE : RFI_PROBE_ANSWERED;
    if (!sqe)
        return;
    io_uring_prep_close(sqe, b->fd);
    mark(sqe, worker, CLOSE);
}

void rfi_prober_step(struct rfi_prober *p)
{
    struct io_uring_cqe *cqe;
    if (p->in_flight == 0)
        return;
    while (io_uring_peek_cqe(&p->ring, &cqe) == 0) {
        uint32_t worker = (uint32_t)(cqe->user_data / OPS);
        unsigned op = (unsigned)(cqe->user_data % OPS);
        int result = cqe->res;
        io_uring_cqe_seen(&p->ring, cqe);
        p->in_flight--;
        if (op == OPEN)
            opened(p, worker, result);
        else if (op == READ)
            has_read(p, worker, result);
    }
    if (io_uring_sq_ready(&p->ring))
        io_uring_submit(&p->ring);
}

enum rfi_probe_state rfi_prober_state(const struct rfi_prober *p, uint32_t worker)
{
    return p->probes[worker].state;
}

void rfi_prober_reset(struct rfi_prober *p, uint32_t worker)
{
    if (p->probes[worker].state != RFI_PROBE_UNDER_WAY)
        p->probes[worker].state = RFI_PROBE_IDLE;
}
