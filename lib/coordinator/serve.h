/* The parent of a run: makes the segment, forks and watches the workers, hears the trainers, ends. One
 * process, one thread, for life. */
#pragma once

#include "base/error.h"
#include "checkpoint/state.h"
#include "dataset/dataset.h"
#include "run/faults.h"
#include "run/run.h"

#include <ringfeed/ringfeed.h>

#define RFI_SPARES_CHOSEN UINT32_MAX

struct rfi_serve_options {
    const char *name;
    struct rfi_dataset *dataset; /* borrowed until rfi_serve returns */
    const rf_order_options *order;
    uint32_t ranks, first_rank, workers; /* workers 0: chosen */
    uint64_t epochs, start_epoch, prefetch, ring_bytes;
    uint32_t queue_depth; /* 0: chosen while reading */
    uint32_t cpu_budget; /* percent of the cores that this process may use; 0: no limit */
    rf_engine engine;
    rf_switch direct, pin, numa;
    uint32_t heartbeat_ms, timeout_ms, max_restarts;
    uint32_t
        spares; /* RFI_SPARES_CHOSEN: 1 where there is room for it. io_urings, and arenas for every rank each, kept for a device that hangs */
    uint32_t replication; /* 0 and 1: any worker reads for any rank */
    double slow_ratio; /* below this fraction of its peers' median a worker or rank is slow */
    const char *const *mirrors; /* [n_mirrors] folders with copies of the files; borrowed */
    uint32_t n_mirrors, hedge_ms;
    rf_on_error on_error;
    uint64_t cache_bytes; /* room of the resident cache; 0: none */
    int64_t parent_pid; /* end when this process ends; 0: none */
    const struct rfi_state *resume; /* where to go on: complete; NULL: at the beginning */
    const char *checkpoint; /* file; NULL: none is written */
    uint64_t checkpoint_every; /* samples released here; 0: only at the end of the run */
    bool rebalance; /* strategy adaptive: move batches between ranks */
    double rebalance_threshold;
    bool redistribute; /* the batches of a rank whose trainer died go to the others */
    /* Called once when trainers may attach; then about 20 times a second. */
    void (*ready)(void *ctx, const struct rfi_run_view *run);
    void (*tick)(void *ctx, const struct rfi_run_view *run);
    void *ctx;
};

/* Serves until every rank is through, or a signal. 0: done or stopped cleanly; negative errno. Blocks
 * SIGINT, SIGTERM and SIGHUP in the calling process and sets SIGCHLD to its default. */
int rfi_serve(const struct rfi_serve_options *o, struct rfi_error *err);

/* The numbers of a run before anything starts: fills the config (and the order's memory need). */
struct rfi_serve_plan {
    struct rfi_config_shared config;
    struct rfi_run_size size;
    uint64_t dataset_bytes, membership_bytes, staging_bytes;
    uint64_t largest; /* footprint of the largest possible batch */
    bool direct_possible;
    bool may_be_direct; /* now, or when the engine is chosen again */
    struct rfi_order *order; /* made on the way; the caller's, to be destroyed */
    struct rfi_state birth; /* where the run begins; the caller's, to be freed */
    char *origin; /* its text; malloced */
    uint64_t origin_bytes;
};
void rfi_serve_plan_fini(struct rfi_serve_plan *p);
struct rfi_topology;
/* Notes in the picture of this machine which disk the dataset is on; several count where they are on one node. */
void rfi_where_is_data(const struct rfi_dataset *d, struct rfi_topology *t);
int rfi_serve_plan(const struct rfi_serve_options *o, const struct rfi_topology *t, struct rfi_serve_plan *ret,
                   struct rfi_error *err);
