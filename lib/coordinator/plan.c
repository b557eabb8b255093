/* The numbers of a run, decided before anything is made: pure but for looking at files and memory. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "checkpoint/resume.h"
#include "plan/arena.h"
#include "plan/cache.h"
#include "plan/plan.h"
#include "plan/source.h"
#include "run/cache.h"
#include "segment/room.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { QUEUE_DEPTH = 64, SWEPT_QUEUE_DEPTH = 16, MOVES_ROOM = 16384, SWEPT_BYTES = 32 << 10, PREAD_MOST = 16 };

/* A ring doubles so often at most, and all of them together take so many bytes, or so small a part of the memory. Where large
 * batches have it begin with less than the usual number, up to that one the part may be larger. */
enum { GROWTHS = 4, GROWN_PART = 256, USUAL_PART = 16, SAMPLE_DESCRIBED = 40, DESCRIBED = 1 << 20 };
static const uint64_t grown_most = (uint64_t)192 << 20;

/* O_DIRECT pays when the page cache cannot hold the data anyway. */
static bool choose_direct(const struct rfi_serve_options *o, bool possible)
{
    rf_dataset_info info;
    if (o->direct == RF_ON && !possible)
        rfi_log(RFI_LOG_WARNING,
                "--direct on: not every file takes O_DIRECT here (tmpfs, some network file systems), so "
                "all are read buffered");
    if (o->direct != RF_AUTO)
        return o->direct == RF_ON && possible;
    rfi_dataset_info(o->dataset, &info);
    return possible && o->engine != RF_ENGINE_NULL && info.bytes > rfi_min(rfi_room_available(), rfi_room_cgroup()) / 2;
}

/* The state that a run begins with, and its order: at the beginning, or where another life stood. */
static int begin(const struct rfi_serve_options *o, const struct rfi_order_source *source, struct rfi_serve_plan *p,
                 struct rfi_error *err)
{
    rf_dataset_info info;
    uint64_t id[2];
    char run[40];
    rfi_dataset_info(o->dataset, &info);
    if (o->resume)
        return rfi_resume(o->resume, o->order, info.fingerprint, source, &p->order, &p->birth, err);
    if (getrandom(id, sizeof id, 0) != sizeof id)
        return rfi_fail(err, errno, "cannot get random bytes for the run's identity: %s", strerror(errno));
    snprintf(run, sizeof run, "%016" PRIx64 "%016" PRIx64, id[0], id[1]);
    int rc = rfi_order_create(o->order, source, NULL, &p->order, err);
    if (rc < 0)
        return rc;
    rc = rfi_state_begin(o->order, info.fingerprint, info.samples, o->name ? o->name : "", run, o->start_epoch,
                         &p->birth, err);
    if (rc < 0)
        rfi_order_destroy(p->order);
    return rc;
}

static int write_origin(struct rfi_serve_plan *p, const char *name, struct rfi_error *err)
{
    size_t bytes;
    snprintf(p->birth.name, sizeof p->birth.name, "%s", name ? name : "");
    p->origin = rfi_state_text(&p->birth, &bytes);
    if (!p->origin)
        return rfi_fail(err, ENOMEM, "out of memory for the run's origin");
    p->origin_bytes = bytes;
    return 0;
}

/* The order itself is made here, because only it knows how many samples the smallest rank has (padding
 * may repeat one sample inside a batch). Its table moves into the segment later. */
static int plan_tables(const struct rfi_serve_options *o, struct rfi_serve_plan *p, struct rfi_error *err)
{
    struct rfi_order_source source;
    size_t core;
    rfi_order_source_of(o->dataset, &source);
    rfi_dataset_core(o->dataset, &core);
    p->dataset_bytes = core;
    int rc = rfi_order_table_bytes(o->order, &source, &p->membership_bytes, err);
    if (rc == 0)
        rc = begin(o, &source, p, err);
    if (rc < 0)
        p->order = NULL;
    if (rc == 0 && p->membership_bytes) /* a --subset file may have changed in between */
        p->membership_bytes = rfi_order_samples(p->order) * sizeof(uint32_t);
    return rc == 0 ? write_origin(p, o->name, err) : rc;
}

static void copy_order(const rf_order_options *o, struct rfi_config_shared *c)
{
    c->strategy = o->strategy;
    c->base = o->base;
    c->shuffle = o->shuffle;
    c->tail = o->tail;
    c->hash_key = o->hash_key;
    c->seed = o->seed;
    c->block_samples = o->block_samples;
    c->window_blocks = o->window_blocks;
    c->hash_partitions = o->hash_partitions;
    c->hash_seed = o->hash_seed;
    c->batch = o->batch;
    c->world_size = o->world_size;
}

/* Checksums are compared where there are any and bytes are read at all. */
static void copy_faults(const struct rfi_serve_options *o, uint64_t loaded, struct rfi_config_shared *c)
{
    c->on_error = o->on_error;
    c->hedge_ms = o->hedge_ms;
    c->mirrors = o->n_mirrors;
    c->faults_loaded = loaded;
    c->verify = rfi_dataset_has_checksums(o->dataset) && rfi_crc32c_available() && o->engine != RF_ENGINE_NULL;
}

static int plan_cache(const struct rfi_serve_options *o, struct rfi_config_shared *c, struct rfi_error *err)
{
    struct rfi_resident_size size = {0};
    int rc = 0;
    if (o->cache_bytes > UINT64_MAX / 16)
        return rfi_fail(err, EINVAL, "--cache-bytes %" PRIu64 " is beyond any memory. Use less", o->cache_bytes);
    if (o->cache_bytes && o->engine == RF_ENGINE_NULL)
        rfi_log(RFI_LOG_WARNING, "--cache-bytes does nothing with the engine null: it reads nothing");
    else
        rc = rfi_resident_size(o->dataset, o->cache_bytes, &size, err);
    if (rc == 0 && o->cache_bytes && !size.n && c->samples && o->engine != RF_ENGINE_NULL)
        rfi_log(RFI_LOG_WARNING, "--cache-bytes %" PRIu64 " is less than one sample: nothing is kept", o->cache_bytes);
    c->cache_samples = size.n;
    c->cache_unit = size.unit;
    c->cache_bytes = rfi_align_up(size.bytes, RFI_RESIDENT_CHUNK);
    return rc;
}

/* A block shuffle of small samples reads whole blocks, and for that the ring holds two windows: one with the trainer,
 * one being read. Large samples are read as well one by one. */
static void plan_sweeps(const struct rfi_serve_options *o, const struct rfi_order *order, struct rfi_config_shared *c,
                        uint64_t largest, uint64_t *prefetch, uint64_t *ring_bytes)
{
    uint64_t window = rfi_min(rfi_order_window_samples(order), rfi_order_samples(order)), batch = c->batch;
    uint64_t mean = rfi_dataset_mean_bytes(o->dataset);
    *prefetch = o->prefetch;
    *ring_bytes = o->ring_bytes;
    c->sweeps = c->shuffle == RF_SHUFFLE_BLOCK && mean <= SWEPT_BYTES && !o->hedge_ms && o->engine != RF_ENGINE_NULL &&
                batch && window;
    if (!c->sweeps || o->prefetch || o->ring_bytes)
        return;
    *prefetch = rfi_min(2 * (window / batch + 2), RFI_PREFETCH_MAX);
    if (!rfi_dataset_fixed_bytes(o->dataset) && rfi_mul_over(*prefetch * batch, mean, ring_bytes))
        *ring_bytes = 0;
    if (*ring_bytes)
        *ring_bytes = rfi_max(*ring_bytes, largest) + 2 * largest;
}

/* How far prefetch may grow where nobody said how far to read ahead: the ring is laid out for it, and takes the memory only
 * when it grows (grow.c). Descriptors are there from the start: they stay small beside it. */
static void plan_growth(const struct rfi_serve_options *o, const struct rfi_topology *t, uint64_t largest,
                        struct rfi_config_shared *c)
{
    uint64_t memory = 0, most, usual;
    c->prefetch = c->depth;
    c->lap_bytes = c->arena_bytes;
    for (uint32_t n = 0; n < t->n_nodes; n++)
        memory += t->nodes[n].memory_bytes;
    most = rfi_max(grown_most, memory / GROWN_PART) / o->ranks;
    usual = rfi_max(most, memory / USUAL_PART / o->ranks);
    if (o->prefetch || o->ring_bytes || c->sweeps)
        return;
    for (int i = 0; i < GROWTHS; i++) {
        uint64_t may = c->arena_bytes / RFI_PREFETCH_DEFAULT < largest ? usual : most;
        uint64_t described = 2 * (uint64_t)c->depth * c->batch * SAMPLE_DESCRIBED;
        if (2 * c->arena_bytes > may || described > rfi_max(DESCRIBED, 2 * c->arena_bytes / 8))
            break;
        c->arena_bytes *= 2;
        c->depth *= 2;
    }
}

/* A worker that reads without a queue waits for each read, so there may be more of them than cores: how many are active
 * is found out while they read. */
static uint32_t most_workers(const struct rfi_serve_options *o, const struct rfi_topology *t)
{
    uint32_t n = rfi_placement_workers(t, o->ranks);
    return o->engine == RF_ENGINE_PREAD && o->replication <= 1 ? (uint32_t)rfi_max(n, rfi_min(4 * n, PREAD_MOST)) : n;
}

int rfi_serve_plan(const struct rfi_serve_options *o, const struct rfi_topology *t, struct rfi_serve_plan *ret,
                   struct rfi_error *err)
{
    struct rfi_config_shared *c = &ret->config;
    rf_dataset_info info;
    uint64_t depth, prefetch, ring_bytes;
    *ret = (struct rfi_serve_plan){0};
    rfi_dataset_info(o->dataset, &info);
    copy_order(o->order, c);
    c->first_rank = o->first_rank;
    c->ranks = o->ranks;
    if (!o->ranks || (uint64_t)o->first_rank + o->ranks > c->world_size)
        return rfi_fail(err, EINVAL,
                        "wrong ranks: %u from %u on do not lie inside a world of %u. Correct --ranks, --first-rank "
                        "or --world-size",
                        o->ranks, o->first_rank, c->world_size);
    int rc = plan_tables(o, ret, err);
    if (rc == 0)
        rc = rfi_plan_align(o->dataset, &c->align, &ret->direct_possible, err);
    if (rc == 0)
        rc = rfi_plan_largest_of(o->dataset, ret->order, o->order->tail, c->align, &ret->largest, err);
    if (rc == 0)
        plan_sweeps(o, ret->order, c, ret->largest, &prefetch, &ring_bytes);
    if (rc == 0)
        rc = rfi_plan_arena(ret->largest, info.fixed_bytes != 0, prefetch, ring_bytes, &depth, &c->arena_bytes, err);
    if (rc < 0)
        return rc;
    c->arena_bytes = rfi_align_up(c->arena_bytes, c->align);
    c->depth = (uint32_t)depth;
    plan_growth(o, t, ret->largest, c);
    c->workers = o->workers ? o->workers : most_workers(o, t);
    c->workers_pinned = o->workers != 0;
    c->depth_pinned = o->queue_depth != 0;
    c->cpu_budget = o->cpu_budget;
    c->spares = o->spares != RFI_SPARES_CHOSEN ? o->spares : c->workers < RFI_MAX_WORKERS ? 1 : 0;
    c->queues = c->workers + c->spares;
    c->replication = o->replication ? o->replication : 1;
    c->queue_depth = o->queue_depth ? o->queue_depth : c->sweeps ? SWEPT_QUEUE_DEPTH : QUEUE_DEPTH;
    c->nodes = t->n_nodes;
    c->epochs = o->epochs;
    c->start_epoch = o->start_epoch;
    c->gated =
        rfi_order_samples(ret->order) > 0 && (o->redistribute || (o->order->strategy == RF_ADAPTIVE && o->rebalance));
    c->moves_cap = (uint32_t)rfi_state_now(&ret->birth)->n_moves + (c->gated ? MOVES_ROOM : 0);
    c->samples = info.samples;
    c->fixed_bytes = info.fixed_bytes;
    c->n_fields = info.n_fields;
    c->has_labels = rfi_dataset_has_labels(o->dataset);
    c->direct = choose_direct(o, ret->direct_possible);
    ret->may_be_direct = c->direct || (o->direct == RF_AUTO && ret->direct_possible && o->engine != RF_ENGINE_NULL);
    c->heartbeat_ms = o->heartbeat_ms;
    c->timeout_ms = o->timeout_ms;
    c->max_restarts = o->max_restarts;
    c->started_ns = rfi_now_ns();
    copy_faults(o, rfi_state_last(&ret->birth)->n_faults, c);
    memcpy(c->fingerprint, info.fingerprint, sizeof info.fingerprint);
    c->staging_bytes = c->sweeps ? RFI_SWEPT_PIECE_BYTES : RFI_STAGING_BYTES;
    if (ret->may_be_direct || c->hedge_ms || c->sweeps)
        ret->staging_bytes = (uint64_t)c->queues * c->queue_depth * c->staging_bytes;
    rc = plan_cache(o, c, err);
    if (rc < 0)
        return rc;
    return rfi_run_size(c, ret->dataset_bytes, ret->membership_bytes, ret->origin_bytes, &ret->size, err);
}

void rfi_serve_plan_fini(struct rfi_serve_plan *p)
{
    rfi_order_destroy(p->order);
    rfi_state_fini(&p->birth);
    free(p->origin);
    p->order = NULL;
    p->origin = NULL;
}
