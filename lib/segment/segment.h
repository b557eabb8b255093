/* The two POSIX shared-memory objects of a run: birth, ownership, attaching, listing, removal. Knows
 * names, sizes, locks and pages; must not know what lies inside a region. */
#pragma once

#include "base/error.h"
#include "segment/header.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct rfi_region_request {
    uint32_t element_bytes;
    uint64_t count;
};

/* A process's view of a run's objects. */
struct rfi_segment {
    char name[72];
    bool owner;
    int lock_fd; /* owner: holds the lock; a description of its own that is never mapped or inherited */
    int control_fd, data_fd; /* -1 when closed */
    unsigned char *control, *data;
    uint64_t control_bytes, data_bytes;
    uint64_t nonce[2];
    uint32_t n_regions;
    struct rfi_region_shared regions[RFI_MAX_REGIONS]; /* private copy, checked */
    int64_t owner_pid;
};

/* 0 or -EINVAL with the rule. */
int rfi_name_check(const char *name, struct rfi_error *err);

/* Where a control object with these regions would place them; *ret_bytes its size. Pure. */
int rfi_segment_layout(const struct rfi_region_request *requests, uint32_t n, struct rfi_region_shared *regions,
                       uint64_t *ret_bytes, struct rfi_error *err);

/* Order of birth (lib/README.md), up to and without the ready word: reclaims a dead owner's name, creates
 * both objects (mode 0600), takes the lock, checks memory limits and room, sizes, maps aligned to 2 MiB.
 * `bind` (may be NULL) is called with each mapping before it is touched (mbind). Everything is populated
 * here: a full /dev/shm is an error with the number of bytes, never a SIGBUS later.
 * -EEXIST: a living owner has the name; -ENOSPC: room, with the exact size. */
typedef int (*rfi_segment_bind_fn)(void *ctx, unsigned char *control, unsigned char *data, struct rfi_error *err);
int rfi_segment_create(const char *name, const struct rfi_region_request *requests, uint32_t n, uint64_t data_bytes,
                       uint64_t signature, rfi_segment_bind_fn bind, void *ctx, struct rfi_segment *ret,
                       struct rfi_error *err);

/* Of the payload: `n` pieces of `bytes`, `stride` apart, from offset `first` on, and what lies before that. All whole pages. */
struct rfi_pieces {
    uint64_t first, stride, bytes;
    uint32_t n;
};

/* The same where only these pieces are populated from the start, and `spare_bytes` not counted as needed. */
int rfi_segment_create_sparse(const char *name, const struct rfi_region_request *requests, uint32_t n,
                              uint64_t data_bytes, const struct rfi_pieces *there, uint64_t spare_bytes,
                              uint64_t signature, rfi_segment_bind_fn bind, void *ctx, struct rfi_segment *ret,
                              struct rfi_error *err);

/* Populates a page-aligned range of the payload later on: 0 or -ENOSPC. May be asked again. */
int rfi_segment_populate(struct rfi_segment *s, uint64_t offset, uint64_t bytes, struct rfi_error *err);

/* Stores the ready word: from now on others may attach. */
void rfi_segment_ready(struct rfi_segment *s);

/* Owner: unlinks both names (data first), drops the lock. Mappings of others stay. */
void rfi_segment_destroy(struct rfi_segment *s);

/* In a forked worker: closes the lock's descriptor without touching the names. */
void rfi_segment_disown(struct rfi_segment *s);

/* Attaches read-only to control. -ENOENT: no such name; -EAGAIN: not ready yet; -EPROTO: not one of
 * ours, another layout version, or damaged; -EACCES. `map_data` maps the payload too, read-only or (rw)
 * leaves it to the caller through data_fd. Never trusts a value of the header without a check. */
int rfi_segment_attach(const char *name, uint64_t signature, bool map_data, struct rfi_segment *ret,
                       struct rfi_error *err);
void rfi_segment_detach(struct rfi_segment *s);

/* Maps [offset, offset+bytes) of control writable; page-aligned. NULL with *err on failure. */
void *rfi_segment_map_rw(const struct rfi_segment *s, uint64_t offset, uint64_t bytes, struct rfi_error *err);

static inline void *rfi_segment_region(const struct rfi_segment *s, uint32_t id)
{
    return s->control + s->regions[id].offset;
}

/* ---- other runs on this machine ---- */

enum rfi_owner { RFI_OWNER_ALIVE, RFI_OWNER_DEAD, RFI_OWNER_UNKNOWN /* not ours to open */ };

struct rfi_run_entry {
    char name[72];
    enum rfi_owner owner;
    bool ready;
    int64_t pid;
    uint64_t control_bytes, data_bytes;
    uint64_t created_ns;
    uid_t uid;
};

/* Calls fn for every object pair found by prefix and magic. */
int rfi_segment_list(int (*fn)(void *ctx, const struct rfi_run_entry *e), void *ctx, struct rfi_error *err);

/* Removes the objects of `name` when their owner is dead: 0 removed, -EBUSY alive, -ENOENT, -EPROTO. */
int rfi_segment_reclaim(const char *name, struct rfi_error *err);

/* Removes every dead run and orphaned payload object; fn (may be NULL) hears each removed name. */
int rfi_segment_gc(void (*fn)(void *ctx, const char *name, uint64_t bytes), void *ctx, struct rfi_error *err);
