#include "bench/measure.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MOST = 8 << 20, LOOP_BYTES_LEAST = 8 << 20, PIECE = 1 << 20 };

void bench_note(struct bench_notes *n, const char *fmt, ...)
{
    char text[BENCH_NOTE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (unsigned i = 0; i < n->n; i++)
        if (strcmp(n->text[i], text) == 0)
            return;
    if (n->n < BENCH_NOTES_MOST)
        memcpy(n->text[n->n++], text, sizeof text);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct bench_spread bench_spread_of(double *values, uint64_t n)
{
    if (n == 0)
        return (struct bench_spread){0};
    qsort(values, n, sizeof *values, by_size);
    return (struct bench_spread){
        .median = (values[(n - 1) / 2] + values[n / 2]) / 2, .min = values[0], .max = values[n - 1], .n = n};
}

bool bench_run_long_enough(const struct bench_run *r)
{
    return r->window.batches >= BENCH_BATCHES_LEAST && r->seconds * 1e3 >= BENCH_WINDOW_MS_LEAST;
}

/* ---- the bare loop ---- */

struct lists {
    struct reads *items; /* [n] */
    unsigned n;
    struct bare_options o;
    bool useless; /* a note says why */
};

static void free_lists(struct lists *l)
{
    for (unsigned i = 0; i < l->n && l->items; i++)
        reads_free(&l->items[i]);
    free(l->items);
}

static int fill_lists(const struct bench_setup *s, const struct bench_run *run, struct lists *l, struct rfi_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < l->n && rc == 0; i++) {
        const struct reads_part part = {.epoch = s->server.start_epoch,
                                        .epochs = s->runtime_ns ? 1 : s->epochs,
                                        .first_rank = s->server.first_rank,
                                        .ranks = run->n_ranks,
                                        .part = i,
                                        .parts = l->n,
                                        .batch = s->server.order->batch,
                                        .most = LIST_MOST / l->n};
        l->items[i].piece = (uint32_t)rfi_max(PIECE, run->chosen.align);
        l->items[i].direct = run->chosen.direct;
        rc = reads_from_order(&l->items[i], s->dataset, s->order, &part, err);
    }
    return rc;
}

/* As many loops as there were workers, each with its part of the batches, the same depth and memory. */
static int make_lists(const struct bench_setup *s, const struct bench_run *run, struct lists *l, struct bench_point *p,
                      struct rfi_error *err)
{
    uint64_t bytes = 0, delivered = 0, samples = 0;
    l->n = run->chosen.workers ? run->chosen.workers : 1;
    l->items = calloc(l->n, sizeof *l->items);
    if (!l->items)
        return rfi_fail(err, ENOMEM, "out of memory");
    l->o =
        (struct bare_options){.depth = (uint32_t)rfi_min(run->chosen.queue_depth, BARE_DEPTH_MAX),
                              .buffer_bytes = rfi_max(run->chosen.arena_bytes * run->n_ranks / l->n, LOOP_BYTES_LEAST),
                              .direct = run->chosen.direct,
                              .fixed_buffers = run->chosen.direct,
                              .ramp_ns = s->ramp_ns,
                              .runtime_ns = s->runtime_ns};
    int rc = fill_lists(s, run, l, err);
    for (unsigned i = 0; i < l->n && rc == 0; i++) {
        for (size_t k = 0; k < l->items[i].n; k++)
            bytes += l->items[i].items[k].bytes;
        delivered += l->items[i].bytes;
        samples += l->items[i].samples;
        l->useless |= l->items[i].n == 0;
        if (l->items[i].n >= LIST_MOST / l->n)
            bench_note(&p->notes, "the bare loop makes the first %zu reads of the run only", l->items[i].n);
    }
    if (rc == 0 && l->useless)
        bench_note(&p->notes, "no bare loop beside it: there are fewer batches than workers");
    p->bare_part = bytes ? (double)delivered / (double)bytes : 0;
    p->bare_sample_bytes = samples ? (double)delivered / (double)samples : 0;
    return rc;
}

static int run_bare(const struct bench_setup *s, enum bench_cache cache, struct lists *l, struct bench_point *p,
                    struct rfi_error *err)
{
    const struct bench_run *last = &p->runs[p->n - 1];
    struct bench_cached before;
    if (l->useless || !s->bare)
        return 0;
    int rc = bench_cache_prepare(rfi_dataset_of(s->dataset), cache, s->interrupted, &before, err);
    if (s->runtime_ns && p->bare_part > 0) /* as far into the data as the run was, before its window began */
        l->o.ramp_bytes = (uint64_t)((double)(last->all.bytes - last->window.bytes) / p->bare_part) / l->n;
    if (rc == 0)
        rc = bench_beside(l->items, l->n, &l->o, s->interrupted, &p->bare[p->n_bare], err);
    if (rc < 0 && rc != -EINTR) { /* too many files to hold open, say: the run's own figures stand */
        bench_note(&p->notes, "no bare loop beside it: %.200s", err->text);
        l->useless = true;
        return 0;
    }
    p->n_bare += rc == 0;
    return rc;
}

/* ---- a point ---- */

static int run_ours(const struct bench_setup *s, enum bench_cache cache, struct bench_point *p, struct rfi_error *err)
{
    const struct bench_run_options o = {.server = &s->server,
                                        .name = s->name,
                                        .epochs = s->epochs,
                                        .ramp_ns = s->ramp_ns,
                                        .runtime_ns = s->runtime_ns,
                                        .step = s->step,
                                        .devices = &s->devices,
                                        .interrupted = s->interrupted};
    int rc = bench_cache_prepare(rfi_dataset_of(s->dataset), cache, s->interrupted, &p->cached, err);
    if (rc == 0)
        rc = bench_run(&o, &p->runs[p->n], err);
    p->n += rc == 0;
    return rc;
}

/* Who goes first changes from pair to pair, so that drift of the machine meets both alike. */
static int run_pairs(const struct bench_setup *s, enum bench_cache cache, struct lists *l, struct bench_point *p,
                     struct rfi_error *err)
{
    int rc = run_ours(s, cache, p, err); /* tells what the loop must be like */
    if (rc == 0 && s->bare)
        rc = make_lists(s, &p->runs[0], l, p, err);
    if (rc == 0)
        rc = run_bare(s, cache, l, p, err);
    for (uint64_t i = 1; i < s->runs && rc == 0; i++) {
        rc = i % 2 ? run_bare(s, cache, l, p, err) : run_ours(s, cache, p, err);
        if (rc == 0)
            rc = i % 2 ? run_ours(s, cache, p, err) : run_bare(s, cache, l, p, err);
    }
    return rc;
}

static int add_limit(const struct bench_setup *s, struct bench_point *p, struct rfi_error *err)
{
    const struct bench_run *last = &p->runs[p->n - 1];
    int rc = bench_limit_measure(rfi_dataset_of(s->dataset), last->chosen.workers ? last->chosen.workers : 1,
                                 s->interrupted, &p->limit, err);
    if (rc == 0)
        bench_limit_apply(&p->limit, last, p->n_bare ? &p->bare[p->n_bare - 1] : NULL, p->bare_part, s->step.touch);
    if (rc == 0 && p->limit.not_probed[0])
        bench_note(&p->notes, "the device was not probed: %s", p->limit.not_probed);
    p->limit_known = rc == 0;
    return rc;
}

static void note_runs(const struct bench_setup *s, struct bench_point *p)
{
    for (uint64_t i = 0; i < p->n; i++) {
        const struct bench_run *r = &p->runs[i];
        double part = r->io_known && r->window.bytes ? (double)r->io_bytes / (double)r->window.bytes : -1;
        if (!bench_run_long_enough(r))
            bench_note(&p->notes,
                       "too short for a rate: a window of %d batches and %d ms is needed behind the first ring; use "
                       "more --epochs, or --runtime",
                       BENCH_BATCHES_LEAST, BENCH_WINDOW_MS_LEAST);
        if (r->restarts)
            bench_note(&p->notes, "workers died and were started again: CPU time and device bytes are not exact");
        if (p->cache == BENCH_CACHE_COLD && part >= 0 && part < 0.9)
            bench_note(&p->notes, "not all of it was cold: less came from the device than was delivered");
        if (p->cache == BENCH_CACHE_WARM && part > 0.01 && !r->chosen.direct)
            bench_note(&p->notes, "not all of it was warm: some came from the device");
    }
    if (s->devices.n == 0)
        bench_note(&p->notes, "no block device is known for these files: its counters are missing");
    if (s->devices.more)
        bench_note(&p->notes, "some files lie on devices that are not counted");
}

int bench_measure(const struct bench_setup *s, enum bench_cache cache, struct bench_point *ret, struct rfi_error *err)
{
    struct lists lists = {0};
    *ret = (struct bench_point){.cache = cache};
    ret->runs = calloc(s->runs, sizeof *ret->runs);
    ret->bare = calloc(s->runs, sizeof *ret->bare);
    int rc =
        ret->runs && ret->bare ? 0 : rfi_fail(err, ENOMEM, "out of memory for %llu runs", (unsigned long long)s->runs);
    if (rc == 0)
        rc = run_pairs(s, cache, &lists, ret, err);
    free_lists(&lists);
    if (rc == 0 && s->limit)
        rc = add_limit(s, ret, err);
    if (rc == 0)
        note_runs(s, ret);
    return rc;
}

void bench_point_free(struct bench_point *p)
{
    for (uint64_t i = 0; i < p->n; i++)
        bench_run_free(&p->runs[i]);
    free(p->runs);
    free(p->bare);
}
