/* A process's view of a whole run: the segment's regions turned into handles, after every number that
 * addresses memory was compared with the mapping. Shared by parent, workers (through fork), trainers and
 * readers of statistics. Must not know who does what with it. */
#pragma once

#include "base/error.h"
#include "ring/ring.h"
#include "run/run_shared.h"
#include "segment/segment.h"

#include <stdbool.h>

/* One bit a queue in a slot's writers mask, one queue a worker and the spares. */
enum { RFI_MAX_WORKERS = 64 };

enum { RFI_BELL_BYTES = 8192, RFI_TRAINER_BYTES = 4096, RFI_RECORDER_ENTRIES = 4096 };

struct rfi_run_view {
    struct rfi_segment segment;
    struct rfi_config_shared config; /* private copy */
    struct rfi_coordinator_shared *coordinator;
    struct rfi_worker_shared *workers; /* [config.workers] */
    struct rfi_rank_shared *ranks; /* [config.ranks] */
    struct rfi_inflight_shared *inflight; /* [queues][queue_depth] */
    struct rfi_recorder_shared *recorder;
    struct rfi_recorded *recorded;
    struct rfi_ring *rings; /* [config.ranks], malloced */
    unsigned char *descriptors;
    const void *dataset; /* core image */
    uint64_t dataset_bytes;
    void *membership;
    struct rfi_moves_shared *moves;
    void *faults; /* error log; run/faults.h */
    struct rfi_history_shared *history; /* [workers + ranks] */
};

/* What a run needs in memory: pure arithmetic on a filled config. */
struct rfi_run_size {
    struct rfi_region_request regions[RFI_N_REGIONS];
    uint64_t control_bytes, data_bytes;
    /* Of data_bytes: arenas that take memory only once a device hangs, parts of arenas that do once prefetch grows. */
    uint64_t spare_bytes;
    uint64_t cache_bytes; /* at the end of data_bytes: the resident cache, which takes its memory as it fills */
};
int rfi_run_size(struct rfi_config_shared *config, uint64_t dataset_bytes, uint64_t membership_bytes,
                 uint64_t origin_bytes, struct rfi_run_size *ret, struct rfi_error *err);

/* Sum over the structs whose layout both sides must share. */
uint64_t rfi_run_signature(void);

/* Handles on a created (owner) or attached segment. Takes the segment over, unless it fails. The owner calls
 * rfi_run_init_rings after this. */
int rfi_run_open(struct rfi_segment *s, bool owner, const struct rfi_config_shared *config, struct rfi_run_view *ret,
                 struct rfi_error *err);
void rfi_run_close(struct rfi_run_view *r);

/* Attaches read-only to a run by name. */
int rfi_run_attach(const char *name, bool map_data, struct rfi_run_view *ret, struct rfi_error *err);

/* Whether the run's parent has died (or gone): one load. */
bool rfi_run_orphaned(const struct rfi_run_view *r);
/* The parent takes the owner mutex, for life. */
int rfi_run_own(struct rfi_run_view *r, struct rfi_error *err);
/* Before the mapping goes: the thread's list of robust mutexes must not lead into it. */
void rfi_run_disown(struct rfi_run_view *r);

/* A slot's descriptor arrays. */
struct rfi_arrays {
    uint64_t *offsets, *lengths, *ids;
    int64_t *labels; /* NULL: none */
    uint64_t *field_offsets, *field_lengths; /* NULL: one field */
    uint8_t *flags;
};
static inline void rfi_run_arrays(const struct rfi_run_view *r, uint32_t ring, uint32_t slot, struct rfi_arrays *ret)
{
    const struct rfi_config_shared *c = &r->config;
    unsigned char *p = r->descriptors + c->descriptor_stride * ((uint64_t)ring * c->depth + slot);
    *ret = (struct rfi_arrays){.offsets = (uint64_t *)p};
    ret->lengths = ret->offsets + c->batch;
    ret->ids = ret->lengths + c->batch;
    uint64_t *at = ret->ids + c->batch;
    if (c->has_labels) {
        ret->labels = (int64_t *)at;
        at += c->batch;
    }
    if (c->n_fields > 1) {
        ret->field_offsets = at;
        ret->field_lengths = at + c->batch * c->n_fields;
        at += 2 * c->batch * c->n_fields;
    }
    ret->flags = (uint8_t *)at;
}

/* A statistic: whoever counts may be in the middle of it, and nothing is ordered by it. */
static inline uint64_t rfi_run_count(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* How much of a rank's first arena is there from the start. */
static inline uint64_t rfi_run_arena_at_first(const struct rfi_config_shared *c)
{
    return c->lap_bytes < c->arena_bytes ? c->lap_bytes : c->arena_stride;
}

/* Where an arena begins in the data object. Ring i starts in arena i. */
static inline uint64_t rfi_run_arena_offset(const struct rfi_config_shared *c, uint32_t arena)
{
    return c->arena_first + c->arena_stride * arena;
}

static inline unsigned char *rfi_run_arena(const struct rfi_run_view *r, uint32_t arena)
{
    return r->segment.data + rfi_run_arena_offset(&r->config, arena);
}

static inline struct rfi_inflight_shared *rfi_run_inflight(const struct rfi_run_view *r, uint32_t queue, uint32_t entry)
{
    return r->inflight + (uint64_t)queue * r->config.queue_depth + entry;
}

/* How it reads, in a word: uring, pread, null; mapped where copies are made out of the page cache (mapped+pread where
 * the rest is not read with io_uring); +direct. `reading` is the coordinator's word. */
enum { RFI_ENGINE_NAME = 16 };
void rfi_run_engine_name(const struct rfi_config_shared *c, uint32_t reading, char ret[RFI_ENGINE_NAME]);

/* A line in the flight recorder. */
void rfi_run_record(struct rfi_run_view *r, uint64_t now_ns, uint32_t ring, uint32_t worker, uint64_t ticket,
                    uint64_t data_offset);

/* Epoch and batch of a ticket: see struct rfi_generation. Any numbers are safe to pass. A ticket behind the last
 * batch stands at batch 0 of the epoch after it, or, where a ring is gated, at the end of its epoch. */
void rfi_run_content(const struct rfi_epoch_lens *l, const struct rfi_generation *g, uint64_t ticket,
                     uint64_t *ret_epoch, uint64_t *ret_batch);

/* Batches from (epoch, batch) to the beginning of epoch `end`; saturates. */
uint64_t rfi_run_batches(const struct rfi_epoch_lens *l, uint64_t epoch, uint64_t batch, uint64_t end);

/* Batches of one epoch, before moves. */
uint64_t rfi_run_len(const struct rfi_epoch_lens *l, uint64_t epoch);
