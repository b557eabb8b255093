/* The mapped engine: what is in the page cache is copied from a mapping of the file, at once; everything else goes to
 * the queue of another engine (io_uring, or pread where that is forbidden), which is all that the parent ever sees of
 * it. So a dead worker leaves nothing behind that io_uring alone would not: a copy is over when its process is.
 *
 * A read that fails in a copy is not an error yet: it goes to the queue like one that is not in memory, and what the
 * system says there is what the caller hears. So a file that was cut, or a page that the device cannot give, looks the
 * same through every engine. */
#include "reader/guard.h"
#include "reader/maps.h"
#include "reader/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

struct mapped {
    struct rfi_reader cold; /* whatever cannot be copied */
    struct rfi_maps maps; /* of the process that copies; the parent's is empty */
};

static void follow(struct rfi_reader *r)
{
    const struct mapped *m = r->state;
    r->in_flight = m->cold.in_flight;
    r->submits = m->cold.submits;
}

static int open_over(struct rfi_reader *r, rf_engine queue, uint32_t depth, struct rfi_error *err)
{
    struct mapped *m = calloc(1, sizeof *m);
    if (!m)
        return rfi_fail(err, ENOMEM, "reader: no memory for a queue of %u reads. Free some memory", depth);
    int rc = rfi_reader_open(&m->cold, queue, depth, err);
    if (rc < 0) {
        free(m);
        return rc;
    }
    r->state = m;
    return 0;
}

static int mapped_open(struct rfi_reader *r, uint32_t depth, struct rfi_error *err)
{
    return open_over(r, RF_ENGINE_AUTO, depth, err);
}

/* One system call that does not wait, for files that are not mapped. */
static int32_t ask(struct mapped *m, const struct rfi_read *read)
{
    struct iovec v = {read->dest, read->bytes};
    if (!rfi_maps_ask(&m->maps, read->fd))
        return -EAGAIN;
    m->cold.submits++;
    return preadv2(read->fd, &v, 1, (off_t)read->offset, RWF_NOWAIT) == (ssize_t)read->bytes ? (int32_t)read->bytes
                                                                                             : -EAGAIN;
}

struct sources {
    const unsigned char *from[RFI_AT_ONCE_MOST];
    uint32_t cold; /* how many have none */
    bool one_file;
};

/* Where the reads are to be copied from. What lies in one HOT chunk, or two, of the file of the read before takes a few
 * instructions. */
static void find_sources(struct mapped *m, const struct rfi_read *reads, uint32_t n, struct sources *s)
{
    const struct rfi_map *f = NULL;
    int fd = -1;
    s->cold = 0;
    s->one_file = true;
    for (uint32_t i = 0; i < n; i++) {
        const struct rfi_read *read = &reads[i];
        if (read->fd != fd) {
            s->one_file &= i == 0;
            fd = read->fd;
            f = rfi_maps_of(&m->maps, fd);
        }
        uint64_t first = read->offset / RFI_MAP_CHUNK, end = read->offset + read->bytes;
        if (f && end > read->offset && end <= f->bytes && rfi_maps_hot(&m->maps, f, first) &&
            (end <= (first + 1) * RFI_MAP_CHUNK ||
             (end <= (first + 2) * RFI_MAP_CHUNK && rfi_maps_hot(&m->maps, f, first + 1)))) {
            s->from[i] = f->base + read->offset;
            continue;
        }
        s->from[i] = rfi_maps_look(&m->maps, fd, read->offset, read->bytes);
        s->cold += s->from[i] == NULL;
        f = rfi_maps_of(&m->maps, fd);
    }
}

static bool files_whole(struct mapped *m, const struct rfi_read *reads, uint32_t n)
{
    bool whole = true;
    for (uint32_t i = 0; i < n; i++)
        whole &= rfi_maps_whole(&m->maps, reads[i].fd);
    return whole;
}

static int32_t result_of(struct mapped *m, const struct rfi_read *read, const unsigned char *from)
{
    if (!from)
        return ask(m, read);
    if (from == rfi_copy_no_target)
        return -EFAULT;
    if (from == rfi_copy_no_source)
        rfi_maps_avoid(&m->maps, read->fd);
    return rfi_maps_whole(&m->maps, read->fd) ? (int32_t)read->bytes : -EAGAIN;
}

static uint32_t mapped_at_once(struct rfi_reader *r, const struct rfi_read *reads, uint32_t n, int32_t *results)
{
    struct mapped *m = r->state;
    struct sources s;
    uint32_t refused = 0;
    find_sources(m, reads, n, &s);
    int failed = s.cold < n ? rfi_guard_copy(reads, s.from, n) : 0;
    if (failed < 0)
        memset(s.from, 0, sizeof s.from);
    rfi_maps_settle(&m->maps);
    if (s.cold == 0 && failed == 0 && files_whole(m, reads, s.one_file ? 1 : n))
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        results[i] = result_of(m, &reads[i], s.from[i]);
        refused += results[i] != (int32_t)reads[i].bytes;
    }
    follow(r);
    return refused;
}

static int mapped_prepare(struct rfi_reader *r, const struct rfi_landing *memory, const struct rfi_reader *like)
{
    struct mapped *m = r->state;
    const struct mapped *other = like ? like->state : NULL;
    return m->cold.ops->prepare ? m->cold.ops->prepare(&m->cold, memory, other ? &other->cold : NULL) : 0;
}

static void mapped_forget(struct rfi_reader *r, int fd)
{
    struct mapped *m = r->state;
    rfi_maps_forget(&m->maps, fd);
}

static void mapped_queue(struct rfi_reader *r, const struct rfi_read *read)
{
    struct mapped *m = r->state;
    m->cold.ops->queue(&m->cold, read);
    follow(r);
}

static int mapped_submit(struct rfi_reader *r)
{
    struct mapped *m = r->state;
    int rc = m->cold.ops->submit(&m->cold);
    follow(r);
    return rc;
}

static int mapped_reap(struct rfi_reader *r, struct rfi_completion *ret, uint32_t cap, uint64_t wait_ns)
{
    struct mapped *m = r->state;
    int n = m->cold.ops->reap(&m->cold, ret, cap, wait_ns);
    follow(r);
    return n;
}

static int mapped_drain(struct rfi_reader *r, void (*seen)(void *ctx, uint32_t tag, int32_t result), void *ctx)
{
    struct mapped *m = r->state;
    int rc = m->cold.ops->drain(&m->cold, seen, ctx);
    follow(r);
    return rc;
}

static int mapped_drain_fd(const struct rfi_reader *r)
{
    const struct mapped *m = r->state;
    return m->cold.ops->drain_fd(&m->cold);
}

static void mapped_close(struct rfi_reader *r)
{
    struct mapped *m = r->state;
    if (!m)
        return;
    m->cold.ops->close(&m->cold);
    rfi_maps_fini(&m->maps);
    free(m);
    r->state = NULL;
    r->in_flight = 0;
}

const struct rfi_reader_ops rfi_reader_mapped = {
    .name = "mapped",
    .open = mapped_open,
    .prepare = mapped_prepare,
    .at_once = mapped_at_once,
    .forget = mapped_forget,
    .queue = mapped_queue,
    .submit = mapped_submit,
    .reap = mapped_reap,
    .drain = mapped_drain,
    .drain_fd = mapped_drain_fd,
    .abandon = mapped_close,
    .close = mapped_close,
};

int rfi_reader_open_mapped(struct rfi_reader *r, rf_engine queue, uint32_t depth, struct rfi_error *err)
{
    memset(r, 0, sizeof *r);
    r->depth = depth;
    int rc = open_over(r, queue, depth, err);
    if (rc == 0)
        r->ops = &rfi_reader_mapped;
    return rc;
}
