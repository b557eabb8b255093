/* Times reads of random samples with O_DIRECT and through the page cache, in turns, one at a time, while the run goes
 * on: so both meet the same load. At most 64 reads; completions wake the parent's loop, which never waits for one. A read
 * that does not end ends the trial without a verdict, and its memory stays. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { READS = 32, ENOUGH = 8, BYTES_MOST = 128 << 10, LIMIT_NS = 500000000, ALIGN_MOST = 64 << 10 };

struct rfi_trial {
    struct io_uring ring;
    bool open;
    unsigned char *block; /* never freed while a read may land in it */
    int fd; /* of the read under way; -1: none */
    bool direct; /* it is */
    uint64_t begun_ns, asked_ns, seed;
    uint32_t n[2], looked; /* results: buffered, direct; samples looked at */
    uint64_t took_ns[2][READS];
};

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

uint64_t rfi_trial_median_ns(struct rfi_trial *t, bool direct)
{
    uint32_t n = t->n[direct];
    if (n < ENOUGH)
        return 0;
    qsort(t->took_ns[direct], n, sizeof t->took_ns[direct][0], by_value);
    return t->took_ns[direct][n / 2];
}

static uint64_t random_sample(struct rfi_trial *t, uint64_t samples)
{
    t->seed = t->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint64_t)(((unsigned __int128)t->seed * samples) >> 64);
}

/* Opens some sample's file the one way or the other. False: not this sample. */
static bool open_sample(struct rfi_coordinator *c, struct rfi_trial *t, struct rfi_extent *e)
{
    char path[4096];
    if (rfi_dataset_extent(c->dataset, random_sample(t, c->run.config.samples), e) < 0 || e->bytes == 0 ||
        rfi_dataset_path(c->dataset, e->file, path, sizeof path) < 0)
        return false;
    t->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (t->direct ? O_DIRECT : 0));
    if (t->fd >= 0 && !t->direct)
        posix_fadvise(t->fd, 0, 0, POSIX_FADV_RANDOM);
    return t->fd >= 0;
}

/* The next read, of the kind that has had fewer. Both are handed to a thread of the kernel: a buffered one could block us. */
static bool ask(struct rfi_coordinator *c, struct rfi_trial *t)
{
    struct rfi_extent e;
    uint64_t align = c->run.config.align, from;
    struct io_uring_sqe *sqe;
    t->direct = t->n[true] <= t->n[false];
    if (t->n[t->direct] == READS || rfi_now_ns() - t->begun_ns > LIMIT_NS || t->looked++ >= 4 * READS ||
        !open_sample(c, t, &e) || !(sqe = io_uring_get_sqe(&t->ring)))
        return false;
    from = rfi_align_down(e.offset, align);
    io_uring_prep_read(sqe, t->fd, t->block,
                       (unsigned)rfi_min(rfi_align_up(e.offset + e.bytes - from, align), BYTES_MOST), from);
    sqe->flags |= IOSQE_ASYNC;
    t->asked_ns = rfi_now_ns();
    return io_uring_submit(&t->ring) == 1;
}

static void close_file(struct rfi_trial *t)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

/* Whether it goes on. */
static bool answered(struct rfi_coordinator *c, struct rfi_trial *t)
{
    struct io_uring_cqe *cqe;
    if (io_uring_peek_cqe(&t->ring, &cqe) != 0)
        return true;
    int result = cqe->res;
    io_uring_cqe_seen(&t->ring, cqe);
    close_file(t);
    if (result > 0)
        t->took_ns[t->direct][t->n[t->direct]++] = rfi_now_ns() - t->asked_ns;
    return result > 0 && ask(c, t);
}

struct rfi_trial *rfi_trial_open(struct rfi_coordinator *c)
{
    struct rfi_trial *t = c->run.config.align <= ALIGN_MOST && c->run.config.samples ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return NULL;
    t->fd = -1;
    t->begun_ns = rfi_now_ns();
    t->block = aligned_alloc(ALIGN_MOST, BYTES_MOST);
    t->open = io_uring_queue_init(2, &t->ring, 0) == 0;
    if (t->block && t->open && getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) == sizeof t->seed &&
        rfi_watch(c, t->ring.ring_fd, RFI_EV_TRIAL, 0) == 0 && ask(c, t))
        return t;
    close_file(t);
    rfi_trial_close(c, t);
    return NULL;
}

void rfi_trial_abandon(const struct rfi_trial *t)
{
    close(t->ring.ring_fd);
    if (t->fd >= 0)
        close(t->fd);
}

void rfi_trial_close(struct rfi_coordinator *c, struct rfi_trial *t)
{
    if (!t)
        return;
    if (t->open) {
        rfi_unwatch(c, t->ring.ring_fd);
        io_uring_queue_exit(&t->ring);
    }
    if (t->fd < 0)
        free(t->block);
    else
        close(t->fd);
    free(t);
}

bool rfi_trial_step(struct rfi_coordinator *c, struct rfi_trial *t)
{
    return answered(c, t) && rfi_now_ns() - t->begun_ns <= 2 * LIMIT_NS;
}
