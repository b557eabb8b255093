/* I/O engines: a small table of operations that turns read requests into completions. An engine owns
 * its queue; it does not own memory, files or policy. One reader belongs to one process and thread,
 * but its io_uring is made by the parent before the fork (lib/README.md: after a worker's death the
 * parent drains it), so `rfi_reader` lives in memory that fork copies and the kernel rings are
 * shared mappings.
 *
 * Must not know: rings of batches, slots, datasets. */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rfi_read {
    int fd;
    void *dest;
    uint64_t offset; /* in the file */
    uint32_t bytes; /* at most RFI_READ_MAX */
    uint32_t tag; /* index of the in-flight entry, < depth; comes back with the completion */
};

enum { RFI_READ_MAX = 4 << 20, RFI_AT_ONCE_MOST = 64 };

struct rfi_completion {
    uint32_t tag;
    int32_t result; /* bytes read (may be short), or a negative errno */
};

struct rfi_reader;

/* Memory for reads: `n` pieces of `bytes`, `stride` apart. */
struct rfi_landing {
    unsigned char *memory;
    uint64_t stride, bytes;
    uint32_t n;
};

struct rfi_reader_ops {
    const char *name;
    /* Makes the queue (in the parent). `depth` entries at most in flight. */
    int (*open)(struct rfi_reader *r, uint32_t depth, struct rfi_error *err);
    /* Parent, before the first fork: reads will land in this memory, mapped shared and populated, for as long as the
     * queue lives. `like`: a reader that was told of the same memory, or NULL. 0, or a negative errno: reads into it
     * work all the same, and cost a little more. NULL: nothing to prepare. */
    int (*prepare)(struct rfi_reader *r, const struct rfi_landing *memory, const struct rfi_reader *like);
    /* Reads of the list (at most RFI_AT_ONCE_MOST, none of 0 bytes) that need no waiting are made now, each as a whole or
     * not at all. Returns how many were not. Only when that is not 0 are results set: the bytes asked for, -EAGAIN for a
     * read that is to be queued, or another negative errno. NULL: the engine has only a queue. */
    uint32_t (*at_once)(struct rfi_reader *r, const struct rfi_read *reads, uint32_t n, int32_t *results);
    /* The descriptor is about to be closed, and no read of it is in flight. NULL: nothing is kept of it. */
    void (*forget)(struct rfi_reader *r, int fd);
    /* Queues one read; never more than depth between queue and reap. Never blocks (pread: reads). */
    void (*queue)(struct rfi_reader *r, const struct rfi_read *read);
    /* Hands what is queued to the kernel. 0 or -errno. EINTR, EAGAIN and EBUSY are handled inside. */
    int (*submit)(struct rfi_reader *r);
    /* Takes up to `cap` completions. When there is none and wait_ns > 0, waits at most that long.
     * Submits first what is queued. Returns the count or -errno. */
    int (*reap)(struct rfi_reader *r, struct rfi_completion *ret, uint32_t cap, uint64_t wait_ns);
    /* Parent, after its worker was reaped: one non-blocking step of the drain. Calls enter(GETEVENTS)
     * while the overflow flag is set, discards published but unsubmitted entries, and consumes
     * completions. Returns 1 when nothing is in flight any more and the queue may serve another
     * process, 0 to call again (poll drain_fd or wait a millisecond), or -errno. `seen` is called
     * with the tag of every completion found. */
    int (*drain)(struct rfi_reader *r, void (*seen)(void *ctx, uint32_t tag, int32_t result), void *ctx);
    /* A descriptor that polls readable when completions wait, or -1. */
    int (*drain_fd)(const struct rfi_reader *r);
    /* Forked child that does not own this queue: closes its copies only. */
    void (*abandon)(struct rfi_reader *r);
    void (*close)(struct rfi_reader *r);
};

struct rfi_reader {
    const struct rfi_reader_ops *ops;
    uint32_t depth;
    uint32_t in_flight; /* queued or submitted, not reaped: of the owning process */
    uint64_t submits; /* syscalls made to submit or wait */
    void *state; /* engine's own */
};

extern const struct rfi_reader_ops rfi_reader_uring, rfi_reader_pread, rfi_reader_null, rfi_reader_mapped;

/* `engine` RF_ENGINE_AUTO: io_uring when the kernel lets us, else pread with one note in the log.
 * An explicit engine that cannot be had is an error. Single functions below forward to ops. */
int rfi_reader_open(struct rfi_reader *r, rf_engine engine, uint32_t depth, struct rfi_error *err);

/* The mapped engine on top of a queue of another one (auto, uring or pread). */
int rfi_reader_open_mapped(struct rfi_reader *r, rf_engine queue, uint32_t depth, struct rfi_error *err);

/* Whether a byte range of an open file is in the page cache: 1, 0, or -1 when nobody says. */
int rfi_reader_resident(int fd, uint64_t offset, uint32_t bytes);

/* Whether reads may be in flight in the kernel while the process does other things. */
static inline bool rfi_reader_overlaps(const struct rfi_reader *r)
{
    return r->ops->drain_fd(r) >= 0;
}

/* Whether io_uring can be used here: 0, or -errno with the reason (sysctl, seccomp, memlock). */
int rfi_reader_uring_probe(struct rfi_error *err);

/* Alignment that O_DIRECT wants of memory and of offsets/lengths for an open file (statx
 * STATX_DIOALIGN). False: O_DIRECT is not to be had on it. */
struct rfi_dio {
    uint32_t memory, offset;
};
bool rfi_dio_align(int fd, struct rfi_dio *ret);
