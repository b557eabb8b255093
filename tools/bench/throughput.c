/* `bench DATASET`: how fast it is delivered, at every point of the sweeps, warm and cold. */
#include "bench/bench.h"
#include "bench/machine.h"
#include "bench/report.h"
#include "bench/sweep.h"

#include <errno.h>
#include <stdlib.h>

struct point {
    uint64_t values[BENCH_KEYS];
    struct bench_point measured;
};

struct throughput {
    struct bench_args *args;
    struct bench_sweep sweep;
    rf_dataset *dataset; /* as the user named it */
    struct bench_devices devices;
    struct point *points; /* [n], room for two a point of the sweep */
    size_t n;
};

static int measure(struct throughput *t, struct bench_setup *s, enum bench_cache cache, const uint64_t *values,
                   struct rfi_error *err)
{
    struct point *p = &t->points[t->n];
    for (int k = 0; k < BENCH_KEYS; k++)
        p->values[k] = values[k];
    t->n++;
    return bench_measure(s, cache, &p->measured, err);
}

/* With O_DIRECT the cache plays no part: once is enough. */
static int measure_caches(struct throughput *t, struct bench_setup *s, const uint64_t *values, struct rfi_error *err)
{
    enum bench_cache cache = (enum bench_cache)t->args->cache;
    if (cache != BENCH_CACHE_BOTH)
        return measure(t, s, cache, values, err);
    if (t->args->serve.direct == RF_ON)
        return measure(t, s, BENCH_CACHE_AS_IS, values, err);
    if (!bench_cache_fits(rfi_dataset_of(s->dataset))) {
        int only = measure(t, s, BENCH_CACHE_COLD, values, err);
        bench_note(&t->points[t->n - 1].measured.notes,
                   "not measured warm: the files do not fit into available memory");
        return only;
    }
    int rc = measure(t, s, BENCH_CACHE_WARM, values, err);
    struct bench_point *warm = &t->points[t->n - 1].measured;
    if (rc == 0 && warm->runs[0].chosen.direct) {
        bench_note(&warm->notes, "O_DIRECT: the page cache plays no part, so there is no second measurement, cold");
        return 0;
    }
    return rc < 0 ? rc : measure(t, s, BENCH_CACHE_COLD, values, err);
}

static int run_point(struct throughput *t, unsigned i, struct rfi_error *err)
{
    struct bench_args *a = t->args;
    struct bench_source source;
    struct bench_setup s;
    rf_order_options order = a->order.o;
    uint64_t v[BENCH_KEYS];
    bench_sweep_at(&t->sweep, i, v);
    bench_setup_init(a, &s);
    s.devices = t->devices;
    int rc = bench_source_open(t->dataset, v[BENCH_BLOCK], &source, err);
    if (rc < 0)
        return rc;
    order.batch = v[BENCH_BATCH] ? v[BENCH_BATCH] : order.batch;
    s.server.queue_depth = v[BENCH_QUEUE_DEPTH] ? (uint32_t)v[BENCH_QUEUE_DEPTH] : s.server.queue_depth;
    s.server.workers = v[BENCH_WORKERS] ? (uint32_t)v[BENCH_WORKERS] : s.server.workers;
    s.server.dataset = &source.where;
    s.server.order = &order;
    s.dataset = source.dataset;
    rc = rf_order_open(&order, source.dataset, &s.order);
    rc = rc < 0 ? rfi_fail(err, -rc, "%s", rf_last_error()) : measure_caches(t, &s, v, err);
    rf_order_close(s.order);
    bench_source_close(&source);
    return rc;
}

/* ---- the document ---- */

/* As they are called in the document. */
static const char *const emitted_keys[BENCH_KEYS] = {"queue_depth", "block", "batch", "workers"};

/* Queue depth and workers are figures of every point. */
static void emit_values(struct cli_emit *e, const struct throughput *t, const struct point *p)
{
    for (int k = BENCH_BLOCK; k <= BENCH_BATCH; k++)
        if (t->sweep.keys[k].n)
            cli_emit_u64(e, emitted_keys[k], p->values[k]);
}

/* In text each point has a title; in JSON they are an array. */
static void open_result(struct cli_emit *e, const struct throughput *t, const struct point *p)
{
    char title[128];
    int n = snprintf(title, sizeof title, "%s", bench_cache_name(p->measured.cache));
    for (int k = 0; k < BENCH_KEYS; k++)
        if (t->sweep.keys[k].n && n > 0 && (size_t)n < sizeof title)
            n += snprintf(title + n, sizeof title - (size_t)n, ", %s %llu", bench_key_names[k],
                          (unsigned long long)p->values[k]);
    cli_emit_object(e, e->json ? NULL : title);
}

static void emit_summary(struct cli_emit *e, const struct throughput *t)
{
    cli_emit_array(e, "summary");
    for (size_t i = 0; i < t->n; i++) {
        const struct point *p = &t->points[i];
        cli_emit_object(e, NULL);
        cli_emit_str(e, "cache", bench_cache_name(p->measured.cache));
        for (int k = 0; k < BENCH_KEYS; k++)
            if (t->sweep.keys[k].n)
                cli_emit_u64(e, emitted_keys[k], p->values[k]);
        bench_emit_summary(e, &p->measured);
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

static int report(const struct throughput *t)
{
    struct cli_emit e;
    cli_emit_begin(&e, t->args->json);
    cli_emit_str(&e, "bench", "throughput");
    bench_emit_machine(&e, &t->devices);
    bench_emit_dataset(&e, t->dataset);
    bench_emit_order(&e, t->args);
    if (e.json)
        cli_emit_array(&e, "results");
    else
        cli_emit_object(&e, "results");
    for (size_t i = 0; i < t->n; i++) {
        open_result(&e, t, &t->points[i]);
        emit_values(&e, t, &t->points[i]);
        bench_emit_point(&e, &t->points[i].measured, t->args->touch);
        cli_emit_close(&e);
    }
    cli_emit_close(&e);
    emit_summary(&e, t);
    return cli_emit_end(&e);
}

static int run_all(struct throughput *t)
{
    struct rfi_error err = {0};
    struct cli_progress progress;
    unsigned n = bench_sweep_points(&t->sweep);
    int rc = 0;
    t->points = calloc(2 * n, sizeof *t->points);
    if (!t->points)
        return cli_fail("bench: out of memory for the results");
    cli_progress_begin(&progress, "measuring", n);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        rc = run_point(t, i, &err);
        cli_progress_at(&progress, i + 1, "points");
    }
    cli_progress_end(&progress);
    if (rc < 0)
        return bench_fail(&err);
    return report(t);
}

int bench_throughput(struct bench_args *a)
{
    struct throughput t = {.args = a};
    int code = bench_sweep_parse(&a->sweep, &t.sweep);
    if (code != CLI_OK || !(t.dataset = cli_open_dataset(&a->dataset, &a->paths, &code)))
        return code;
    bench_devices_find(rfi_dataset_of(t.dataset), &t.devices);
    code = run_all(&t);
    for (size_t i = 0; i < t.n; i++)
        bench_point_free(&t.points[i].measured);
    free(t.points);
    rf_dataset_close(t.dataset);
    return code;
}
