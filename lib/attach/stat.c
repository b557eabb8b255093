/* One reading of a running segment. Read-only: a reader can disturb nobody. */
#include "attach/balance.h"
#include "base/clock.h"
#include "dataset/dataset.h"
#include "reader/choose.h"
#include "run/cache.h"
#include "run/faults.h"
#include "run/run.h"

#include <errno.h>
#include <ringfeed/ringfeed.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAULTS_LISTED = 1024 };

static double rate(const _Atomic uint64_t *w)
{
    uint64_t bits = rfi_run_count(w);
    double d;
    memcpy(&d, &bits, sizeof d);
    return d >= 0 && d < 1e300 ? d : 0;
}

/* The value below which the share q of all waits lies: the bucket's upper bound, at most `most`. */
static double quantile_us(const struct rfi_trainer_shared *t, double q, double most)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < RFI_WAIT_BUCKETS; i++)
        total += rfi_run_count(&t->wait_histogram[i]);
    for (unsigned i = 0; i < RFI_WAIT_BUCKETS && total; i++) {
        seen += rfi_run_count(&t->wait_histogram[i]);
        if ((double)seen >= q * (double)total)
            return (double)rfi_wait_bucket_ns(i) * 1e-3 < most ? (double)rfi_wait_bucket_ns(i) * 1e-3 : most;
    }
    return 0;
}

/* As the coordinator judged it. */
static rf_status status(const _Atomic uint32_t *w)
{
    uint32_t s = atomic_load_explicit(w, memory_order_relaxed);
    return s <= RF_STATUS_FAILED ? (rf_status)s : RF_STATUS_UNKNOWN;
}

static void read_rank(const struct rfi_run_view *r, uint32_t i, rf_rank_stat *s)
{
    const struct rfi_ring *ring = &r->rings[i];
    const struct rfi_trainer_shared *t = ring->tr;
    uint64_t released = rfi_run_count(&t->released);
    struct rfi_generation g;
    *s = (rf_rank_stat){.rank = ring->rank, .depth = rfi_ring_ahead(ring), .node = r->ranks[i].node};
    s->pid = atomic_load_explicit(&r->ranks[i].pid, memory_order_relaxed);
    s->attached = atomic_load_explicit(&r->ranks[i].incarnation, memory_order_relaxed);
    s->status = status(&r->ranks[i].status);
    rfi_ring_generation_settled(ring, released, &g);
    rfi_run_content(&r->ranks[i].lens, &g, released < g.first_ticket ? g.first_ticket : released, &s->epoch, &s->batch);
    s->checkpoints = rfi_run_count(&r->ranks[i].checkpoints);
    s->primary = r->config.replication > 1 ? r->ranks[i].keeper[0] : -1;
    for (uint32_t k = 1; k < r->config.replication && k < sizeof r->ranks[i].keeper; k++)
        s->standbys[s->n_standbys++] = r->ranks[i].keeper[k];
    s->samples = rfi_run_count(&t->samples);
    s->bytes = rfi_run_count(&t->bytes);
    s->samples_per_s = rate(&r->ranks[i].rate_samples);
    s->bytes_per_s = rate(&r->ranks[i].rate_bytes);
    s->prefetch_hits = rfi_run_count(&t->hits);
    s->prefetch_misses = rfi_run_count(&t->misses);
    s->wait_us_max = (double)rfi_run_count(&t->wait_max_ns) * 1e-3;
    s->wait_us_p50 = quantile_us(t, 0.5, s->wait_us_max);
    s->wait_us_p99 = quantile_us(t, 0.99, s->wait_us_max);
    s->ready = rfi_ring_ready(ring);
    s->local_samples = rfi_run_count(&ring->sh->local_samples);
    s->remote_samples = rfi_run_count(&ring->sh->remote_samples);
    s->pages_checked = atomic_load_explicit(&r->ranks[i].pages_checked, memory_order_relaxed);
    s->pages_on_node = atomic_load_explicit(&r->ranks[i].pages_on_node, memory_order_relaxed);
    s->ring_bytes = rfi_run_count(&r->ranks[i].arena_held);
    s->huge_bytes = rfi_run_count(&r->ranks[i].arena_huge);
}

static void read_worker(const struct rfi_run_view *r, uint32_t i, uint64_t now, rf_worker_stat *s)
{
    const struct rfi_worker_shared *w = &r->workers[i];
    uint64_t beat = rfi_run_count(&w->heartbeat_ns), started = rfi_run_count(&w->started_ns),
             samples = rfi_run_count(&w->samples);
    *s = (rf_worker_stat){.worker = i, .node = w->node, .cpu = w->cpu};
    s->pid = atomic_load_explicit(&w->pid, memory_order_relaxed);
    s->status = status(&w->status);
    s->incarnation = rfi_run_count(&w->incarnation);
    s->heartbeat_ms = beat && now > beat ? (double)(now - beat) * 1e-6 : 0;
    s->samples = samples;
    s->bytes = rfi_run_count(&w->bytes);
    s->samples_per_s = rate(&w->rate_samples);
    s->reads = rfi_run_count(&w->reads);
    if (beat > started)
        s->utilization = (double)rfi_run_count(&w->busy_ns) / (double)(beat - started);
    if (s->utilization > 1)
        s->utilization = 1;
    s->queue_depth = atomic_load_explicit(&r->coordinator->depth, memory_order_relaxed);
    s->latency_us = (double)rfi_run_count(&w->latency_ns) * 1e-3;
    s->resting = rfi_run_count(&r->coordinator->resting) >> i & 1;
    s->hedges = rfi_run_count(&w->hedges);
    s->hedges_won = rfi_run_count(&w->hedges_won);
    s->cache_hits = rfi_run_count(&w->cached);
    s->avg_load_time_us = samples ? (double)rfi_run_count(&w->load_ns) * 1e-3 / (double)samples : 0;
}

static const char *state_name(const struct rfi_run_view *r)
{
    static const char *const names[] = {"starting", "ready", "stopping", "done", "failed"};
    uint32_t state = atomic_load_explicit(&r->coordinator->state, memory_order_acquire);
    if (state <= RFI_RUN_READY && rfi_run_orphaned(r))
        return "dead";
    return state < sizeof names / sizeof *names ? names[state] : "unknown";
}

/* The end of a path that is longer than the place for it. */
static void copy_path(const struct rfi_dataset *d, uint32_t file, char *to, size_t cap)
{
    struct rfi_file f = {.path = "?"};
    if (file < rfi_dataset_n_files(d))
        rfi_dataset_file(d, file, &f);
    size_t n = strlen(f.path);
    snprintf(to, cap, "%s", n < cap ? f.path : f.path + (n - cap + 1));
}

static void read_fault(const struct rfi_dataset *d, const struct rfi_fault *f, rf_fault *ret)
{
    *ret = (rf_fault){.epoch = f->epoch,
                      .rank = (uint32_t)f->rank,
                      .error = f->error,
                      .batch = f->batch,
                      .slot = f->slot,
                      .sample = f->sample,
                      .substitute = f->substitute,
                      .file = f->file,
                      .offset = f->offset};
    copy_path(d, f->file, ret->path, sizeof ret->path);
}

static int by_place(const void *a, const void *b)
{
    const rf_fault *x = a, *y = b;
    const uint64_t left[] = {x->epoch, x->rank, x->batch, x->slot}, right[] = {y->epoch, y->rank, y->batch, y->slot};
    for (int i = 0; i < 4; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

/* All decisions are counted; the last ones in epoch, rank and batch are listed. */
static void read_cache(const struct rfi_run_view *r, rf_stat *s)
{
    struct rfi_resident_region cache;
    if (!rfi_resident_region(r, &cache))
        return;
    s->cache_bytes = r->config.cache_bytes;
    s->cached_samples = rfi_run_count(&cache.head->samples);
    s->cached_bytes = rfi_run_count(&cache.head->bytes);
}

static int read_faults(const struct rfi_run_view *r, const struct rfi_dataset *d, rf_stat *s, struct rfi_error *err)
{
    uint64_t n = rfi_faults_count(r);
    struct rfi_fault f;
    for (uint32_t p = 0; p <= r->config.queues; p++) {
        s->wrong_copies += rfi_run_count(&rfi_faults_part(r, p)->wrong_copies);
        s->repaired += rfi_run_count(&rfi_faults_part(r, p)->repaired);
    }
    if (!n)
        return 0;
    s->faults = calloc(n, sizeof *s->faults);
    if (!s->faults)
        return rfi_fail(err, ENOMEM, "out of memory");
    while (s->n_faults < n && rfi_faults_get(r, s->n_faults, &f)) {
        read_fault(d, &f, &s->faults[s->n_faults++]);
        *(f.substitute == RFI_FAULT_SKIPPED ? &s->skipped : &s->substituted) += 1;
    }
    qsort(s->faults, s->n_faults, sizeof *s->faults, by_place);
    if (s->n_faults > FAULTS_LISTED) {
        memmove(s->faults, s->faults + (s->n_faults - FAULTS_LISTED), FAULTS_LISTED * sizeof *s->faults);
        s->n_faults = FAULTS_LISTED;
    }
    return 0;
}

static int fill(const struct rfi_run_view *r, rf_stat *s, struct rfi_error *err)
{
    const struct rfi_config_shared *c = &r->config;
    struct rfi_dataset *d;
    rf_dataset_info info;
    uint64_t now = rfi_now_ns();
    int rc = rfi_dataset_from_image(r->dataset, r->dataset_bytes, &d, err);
    if (rc < 0)
        return rc;
    rfi_dataset_info(d, &info);
    rc = read_faults(r, d, s, err);
    rfi_dataset_close(d);
    if (rc < 0)
        return rc;
    snprintf(s->name, sizeof s->name, "%.64s", r->segment.name);
    snprintf(s->state, sizeof s->state, "%s", state_name(r));
    snprintf(s->format, sizeof s->format, "%.31s", info.format);
    snprintf(s->fingerprint, sizeof s->fingerprint, "%.32s", c->fingerprint);
    /* Relaxed: one word that stands for itself. */
    rfi_run_engine_name(c, atomic_load_explicit(&r->coordinator->reading, memory_order_relaxed), s->engine);
    s->files = info.files;
    s->samples = info.samples;
    s->bytes = info.bytes;
    s->world_size = c->world_size;
    s->first_rank = c->first_rank;
    s->restarts = rfi_run_count(&r->coordinator->restarts);
    s->rebalances = rfi_run_count(&r->coordinator->rebalances);
    s->imbalance = rate(&r->coordinator->imbalance);
    snprintf(s->balance, sizeof s->balance, "%s",
             rfi_balance_word(atomic_load_explicit(&r->coordinator->balance_reason, memory_order_relaxed)));
    s->fenced = rfi_run_count(&r->coordinator->fenced);
    s->moved = rfi_run_count(&r->coordinator->moved);
    s->spare_queues = atomic_load_explicit(&r->coordinator->spare_queues, memory_order_relaxed);
    s->spare_arenas = atomic_load_explicit(&r->coordinator->spare_arenas, memory_order_relaxed);
    snprintf(s->engine_why, sizeof s->engine_why, "%s",
             rfi_choice_word(atomic_load_explicit(&r->coordinator->reading_why, memory_order_relaxed)));
    s->direct_us = (double)rfi_run_count(&r->coordinator->direct_ns) * 1e-3;
    s->buffered_us = (double)rfi_run_count(&r->coordinator->buffered_ns) * 1e-3;
    s->cpu_cores = rate(&r->coordinator->cpu);
    s->active_workers = (uint32_t)rfi_run_count(&r->coordinator->chosen_workers);
    s->cpu_budget = c->cpu_budget;
    read_cache(r, s);
    s->retired_queues = atomic_load_explicit(&r->coordinator->retired, memory_order_relaxed);
    s->server_pid = (int)r->coordinator->pid;
    s->uptime_s = now > c->started_ns ? (double)(now - c->started_ns) * 1e-9 : 0;
    s->segment_bytes = r->segment.control_bytes + r->segment.data_bytes;
    s->ranks = calloc(c->ranks, sizeof *s->ranks);
    s->workers = calloc(c->workers ? c->workers : 1, sizeof *s->workers);
    if (!s->ranks || !s->workers)
        return rfi_fail(err, ENOMEM, "out of memory");
    s->n_ranks = c->ranks;
    s->n_workers = c->workers;
    s->epoch = UINT64_MAX;
    for (uint32_t i = 0; i < c->ranks; i++) {
        read_rank(r, i, &s->ranks[i]);
        s->epoch = s->ranks[i].epoch < s->epoch ? s->ranks[i].epoch : s->epoch;
        s->errors += rfi_run_count(&r->rings[i].sh->errors);
    }
    for (uint32_t i = 0; i < c->workers; i++)
        read_worker(r, i, now, &s->workers[i]);
    return 0;
}

int rf_stat_read(const char *name, rf_stat *ret)
{
    struct rfi_error *err = rfi_thread_error();
    struct rfi_run_view r;
    *ret = (rf_stat){0};
    int rc = rfi_run_attach(name, false, &r, err);
    if (rc < 0)
        return rc;
    rc = fill(&r, ret, err);
    rfi_run_close(&r);
    if (rc < 0)
        rf_stat_free(ret);
    return rc;
}

void rf_stat_free(rf_stat *s)
{
    free(s->ranks);
    free(s->workers);
    free(s->faults);
    s->faults = NULL;
    s->n_faults = 0;
    s->ranks = NULL;
    s->workers = NULL;
}

const char *rf_status_name(rf_status s)
{
    static const char *const names[] = {"unknown", "active", "idle", "slow", "failed"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "unknown";
}
