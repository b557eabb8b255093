#include "bench/report.h"

#include <stdlib.h>

static const char *const cache_names[] = {"warm", "cold", "as-is", "both"};

const char *bench_cache_name(enum bench_cache c)
{
    return cache_names[c];
}

void bench_emit_spread(struct cli_emit *e, const char *key, struct bench_spread s, int digits)
{
    char text[128];
    if (s.n == 0) {
        cli_emit_null(e, key);
    } else if (e->json) {
        cli_emit_object(e, key);
        cli_emit_f64(e, "median", s.median, digits);
        cli_emit_f64(e, "min", s.min, digits);
        cli_emit_f64(e, "max", s.max, digits);
        cli_emit_close(e);
    } else {
        if (s.n == 1)
            snprintf(text, sizeof text, "%.*f", digits, s.median);
        else
            snprintf(text, sizeof text, "%.*f [%.*f..%.*f]", digits, s.median, digits, s.min, digits, s.max);
        cli_emit_str(e, key, text);
    }
}

/* ---- figures of a run ---- */

typedef double (*figure_fn)(const struct bench_run *r);

static double samples_per_s(const struct bench_run *r)
{
    return (double)r->window.samples / r->seconds;
}

static double gb_per_s(const struct bench_run *r)
{
    return (double)r->window.bytes / r->seconds * 1e-9;
}

static double reads_per_s(const struct bench_run *r)
{
    return (double)r->issued / r->seconds;
}

static double resident_part(const struct bench_run *r)
{
    return (double)r->resident / (double)r->window.samples;
}

static double device_reads_per_s(const struct bench_run *r)
{
    return r->device_known ? (double)r->device.reads / r->seconds : -1;
}

static double device_gb_per_s(const struct bench_run *r)
{
    return r->device_known ? (double)r->device.bytes / r->seconds * 1e-9 : -1;
}

static double device_part(const struct bench_run *r)
{
    return r->device_known && r->window.bytes ? (double)r->device.bytes / (double)r->window.bytes : -1;
}

static double io_part(const struct bench_run *r)
{
    return r->io_known && r->window.bytes ? (double)r->io_bytes / (double)r->window.bytes : -1;
}

static double per_gb(const struct bench_run *r, double seconds)
{
    return r->window.bytes ? seconds / ((double)r->window.bytes * 1e-9) : -1;
}

static double cpu_per_gb(const struct bench_run *r)
{
    return per_gb(r, r->parent_cpu_s + r->workers_cpu_s);
}

static double parent_cpu_per_gb(const struct bench_run *r)
{
    return per_gb(r, r->parent_cpu_s);
}

static double trainers_cpu_per_gb(const struct bench_run *r)
{
    return per_gb(r, r->trainers_cpu_s);
}

static double cpu_used(const struct bench_run *r)
{
    return (r->parent_cpu_s + r->workers_cpu_s + r->trainers_cpu_s) / r->seconds;
}

/* Over the runs that were long enough and know it (a figure is never negative). */
static struct bench_spread spread(const struct bench_point *p, figure_fn figure)
{
    uint64_t n = 0;
    double *values = calloc(p->n ? p->n : 1, sizeof *values);
    for (uint64_t i = 0; i < p->n && values; i++)
        if (bench_run_long_enough(&p->runs[i]) && figure(&p->runs[i]) >= 0)
            values[n++] = figure(&p->runs[i]);
    struct bench_spread s = bench_spread_of(values, n);
    free(values);
    return s;
}

static void emit_figure(struct cli_emit *e, const struct bench_point *p, const char *key, figure_fn figure, int digits)
{
    bench_emit_spread(e, key, spread(p, figure), digits);
}

/* ---- waits ---- */

struct bench_histogram *bench_all_waits(const struct bench_run *runs, uint64_t n, uint32_t rank)
{
    struct bench_histogram *h = calloc(1, sizeof *h);
    for (uint64_t i = 0; i < n && h; i++)
        for (uint32_t k = 0; k < runs[i].n_ranks; k++)
            if (rank == BENCH_ALL_RANKS || rank == k)
                bench_histogram_merge(h, &runs[i].ranks[k].waits);
    return h;
}

void bench_emit_waits(struct cli_emit *e, const struct bench_histogram *h, struct bench_notes *notes)
{
    static const struct {
        const char *key;
        double q;
    } wanted[] = {{"wait_us_p50", 0.5}, {"wait_us_p99", 0.99}, {"wait_us_p99_9", 0.999}, {"wait_us_p99_99", 0.9999}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        uint64_t ns;
        if (h && bench_histogram_quantile(h, wanted[i].q, &ns)) {
            cli_emit_f64(e, wanted[i].key, (double)ns * 1e-3, 2);
            continue;
        }
        cli_emit_null(e, wanted[i].key);
        if (notes)
            bench_note(notes, "%s: too short: %llu waits are needed, there were %llu", wanted[i].key,
                       (unsigned long long)bench_histogram_needs(wanted[i].q), (unsigned long long)(h ? h->n : 0));
    }
    if (h && h->n)
        cli_emit_f64(e, "wait_us_max", (double)h->max * 1e-3, 2);
    else
        cli_emit_null(e, "wait_us_max");
}

/* ---- parts of a point ---- */

static void emit_chosen(struct cli_emit *e, const struct bench_chosen *c)
{
    cli_emit_str(e, "engine", c->engine);
    cli_emit_bool(e, "direct", c->direct);
    cli_emit_u64(e, "workers", c->workers);
    cli_emit_u64(e, "queue_depth", c->queue_depth);
    cli_emit_u64(e, "prefetch", c->prefetch);
    cli_emit_bytes(e, "arena_bytes", c->arena_bytes);
}

static void emit_cached(struct cli_emit *e, const struct bench_cached *c)
{
    static const char *const how[] = {NULL, "all caches dropped", "advice by file"};
    cli_emit_str(e, "made_cold_by", how[c->dropped]);
    if (c->known)
        cli_emit_f64(e, "cached_before", c->part, 4);
    else
        cli_emit_null(e, "cached_before");
}

/* The last run: memory does not vary as time does. */
static void emit_memory(struct cli_emit *e, const struct bench_run *r)
{
    const struct bench_memory *m = &r->memory;
    cli_emit_object(e, "pss_bytes");
    if (r->memory_known) {
        cli_emit_bytes(e, "all", m->parent + m->workers + m->trainers);
        cli_emit_bytes(e, "parent", m->parent);
        cli_emit_bytes(e, "workers", m->workers);
        cli_emit_bytes(e, "trainers", m->trainers);
        cli_emit_bytes(e, "anonymous", m->anonymous);
        cli_emit_bytes(e, "shared", m->shared);
        cli_emit_bytes(e, "file", m->file);
    }
    cli_emit_close(e);
}

static void emit_rank(struct cli_emit *e, const struct bench_point *p, uint32_t k)
{
    uint64_t n = 0;
    double *rates = calloc(p->n, sizeof *rates), *bytes = calloc(p->n, sizeof *bytes);
    for (uint64_t i = 0; i < p->n && rates && bytes; i++) {
        const struct bench_rank *r = &p->runs[i].ranks[k];
        double seconds = (double)(r->to_ns - r->from_ns) * 1e-9;
        if (!bench_run_long_enough(&p->runs[i]) || seconds <= 0)
            continue;
        rates[n] = (double)r->window.samples / seconds;
        bytes[n++] = (double)r->window.bytes / seconds * 1e-9;
    }
    struct bench_histogram *waits = bench_all_waits(p->runs, p->n, k);
    cli_emit_object(e, NULL);
    cli_emit_u64(e, "rank", p->runs[0].ranks[k].rank);
    cli_emit_u64(e, "samples", p->runs[p->n - 1].ranks[k].all.samples);
    bench_emit_spread(e, "samples_per_s", bench_spread_of(rates, n), 1);
    bench_emit_spread(e, "gb_per_s", bench_spread_of(bytes, n), 4);
    bench_emit_waits(e, waits, NULL);
    cli_emit_close(e);
    free(waits);
    free(rates);
    free(bytes);
}

static bool pair_known(const struct bench_point *p, uint64_t i)
{
    return i < p->n && bench_run_long_enough(&p->runs[i]) && p->bare[i].seconds > 0;
}

static struct bench_spread ratio(const struct bench_point *p)
{
    uint64_t n = 0;
    double *ratios = calloc(p->n ? p->n : 1, sizeof *ratios);
    for (uint64_t i = 0; i < p->n_bare && ratios; i++)
        if (pair_known(p, i))
            ratios[n++] = gb_per_s(&p->runs[i]) / ((double)p->bare[i].bytes * p->bare_part / p->bare[i].seconds * 1e-9);
    struct bench_spread s = bench_spread_of(ratios, n);
    free(ratios);
    return s;
}

static void emit_bare(struct cli_emit *e, const struct bench_point *p)
{
    uint64_t n = 0;
    double *rates = calloc(p->n_bare, sizeof *rates), *cpu = calloc(p->n_bare, sizeof *cpu);
    for (uint64_t i = 0; i < p->n_bare && rates && cpu; i++) {
        double bytes = (double)p->bare[i].bytes * p->bare_part;
        if (p->bare[i].seconds <= 0 || bytes <= 0)
            continue;
        rates[n] = bytes / p->bare[i].seconds * 1e-9;
        cpu[n++] = p->bare[i].cpu_seconds / (bytes * 1e-9);
    }
    struct bench_spread rate = bench_spread_of(rates, n), samples = rate;
    double per = p->bare_sample_bytes > 0 ? 1e9 / p->bare_sample_bytes : 0;
    samples.median *= per;
    samples.min *= per;
    samples.max *= per;
    cli_emit_object(e, "bare_loop");
    bench_emit_spread(e, "ratio", ratio(p), 3);
    bench_emit_spread(e, "samples_per_s", samples, 1);
    bench_emit_spread(e, "gb_per_s", rate, 4);
    bench_emit_spread(e, "cpu_s_per_gb", bench_spread_of(cpu, n), 4);
    cli_emit_close(e);
    free(rates);
    free(cpu);
}

/* A figure that was not measured is null, never zero. */
static void emit_measured(struct cli_emit *e, const char *key, double value, int digits)
{
    if (value > 0)
        cli_emit_f64(e, key, value, digits);
    else
        cli_emit_null(e, key);
}

static void emit_term(struct cli_emit *e, const struct bench_limit *l, int term, const char *name, double measured,
                      const char *unit, int digits)
{
    cli_emit_object(e, NULL);
    cli_emit_str(e, "term", name);
    emit_measured(e, "measured", measured, digits);
    cli_emit_str(e, "unit", unit);
    emit_measured(e, "limit_gb_per_s", l->terms[term] * 1e-9, 4);
    cli_emit_bool(e, "binds", l->binds == term);
    cli_emit_close(e);
}

static void emit_limit(struct cli_emit *e, const struct bench_point *p)
{
    const struct bench_limit *l = &p->limit;
    const struct bench_run *last = &p->runs[p->n - 1];
    cli_emit_object(e, "limit");
    emit_measured(e, "gb_per_s", l->binds >= 0 ? l->terms[l->binds] * 1e-9 : 0, 4);
    emit_measured(e, "reached",
                  l->binds >= 0 && bench_run_long_enough(last) ? gb_per_s(last) * 1e9 / l->terms[l->binds] : 0, 3);
    cli_emit_f64(e, "bytes_from_device", l->device_part, 4);
    cli_emit_f64(e, "memory_passes", l->passes, 2);
    cli_emit_u64(e, "cores", l->cores);
    cli_emit_array(e, "terms");
    emit_term(e, l, BENCH_DEVICE_BANDWIDTH, "device bandwidth", l->device_bytes_per_s * 1e-9, "GB/s, 1 MiB reads", 4);
    emit_term(e, l, BENCH_DEVICE_IOPS, "device IOPS", l->device_iops, "reads/s, 4 KiB", 0);
    emit_term(e, l, BENCH_CPU, "CPU", l->cpu_s_per_byte * 1e9, "CPU-s/GB, bare loop", 4);
    emit_term(e, l, BENCH_MEMORY, "memory passes", l->memory_bytes_per_s * 1e-9, "GB/s, copying", 4);
    cli_emit_close(e);
    cli_emit_close(e);
}

void bench_emit_notes(struct cli_emit *e, const struct bench_notes *n)
{
    cli_emit_array(e, "notes");
    for (unsigned i = 0; i < n->n; i++) {
        if (!e->json) /* a line each */
            cli_emit_object(e, NULL);
        cli_emit_str(e, e->json ? NULL : "note", n->text[i]);
        if (!e->json)
            cli_emit_close(e);
    }
    cli_emit_close(e);
}

static void emit_rates(struct cli_emit *e, const struct bench_point *p)
{
    emit_figure(e, p, "samples_per_s", samples_per_s, 1);
    emit_figure(e, p, "gb_per_s", gb_per_s, 4);
    emit_figure(e, p, "iops", reads_per_s, 1);
    emit_figure(e, p, "from_resident_cache", resident_part, 4);
    emit_figure(e, p, "device_iops", device_reads_per_s, 1);
    emit_figure(e, p, "device_gb_per_s", device_gb_per_s, 4);
    emit_figure(e, p, "device_bytes_per_byte", device_part, 4);
    emit_figure(e, p, "workers_io_bytes_per_byte", io_part, 4);
    emit_figure(e, p, "cpu_s_per_gb", cpu_per_gb, 4);
    emit_figure(e, p, "parent_cpu_s_per_gb", parent_cpu_per_gb, 4);
    emit_figure(e, p, "trainers_cpu_s_per_gb", trainers_cpu_per_gb, 4);
    emit_figure(e, p, "cores_used", cpu_used, 3);
}

void bench_emit_point(struct cli_emit *e, const struct bench_point *p, bool touched)
{
    const struct bench_run *last = &p->runs[p->n - 1];
    struct bench_notes notes = p->notes;
    struct bench_histogram *waits = bench_all_waits(p->runs, p->n, BENCH_ALL_RANKS);
    cli_emit_str(e, "cache", bench_cache_name(p->cache));
    emit_cached(e, &p->cached);
    emit_chosen(e, &last->chosen);
    cli_emit_str(e, "trainers", touched ? "read every byte of each batch" : "touch no byte");
    cli_emit_u64(e, "runs", p->n);
    cli_emit_u64(e, "batches", last->all.batches);
    cli_emit_u64(e, "samples", last->all.samples);
    cli_emit_bytes(e, "bytes", last->all.bytes);
    cli_emit_f64(e, "window_seconds", last->seconds, 4);
    cli_emit_u64(e, "window_samples", last->window.samples);
    emit_rates(e, p);
    bench_emit_waits(e, waits, &notes);
    emit_memory(e, last);
    cli_emit_array(e, "ranks");
    for (uint32_t k = 0; k < last->n_ranks; k++)
        emit_rank(e, p, k);
    cli_emit_close(e);
    if (p->n_bare)
        emit_bare(e, p);
    if (p->limit_known)
        emit_limit(e, p);
    bench_emit_notes(e, &notes);
    free(waits);
}

void bench_emit_summary(struct cli_emit *e, const struct bench_point *p)
{
    struct bench_histogram *waits = bench_all_waits(p->runs, p->n, BENCH_ALL_RANKS);
    uint64_t ns;
    emit_figure(e, p, "samples_per_s", samples_per_s, 0);
    emit_figure(e, p, "gb_per_s", gb_per_s, 3);
    emit_figure(e, p, "iops", reads_per_s, 0);
    emit_figure(e, p, "cpu_s_per_gb", cpu_per_gb, 3);
    emit_measured(e, "wait_us_p50", waits && bench_histogram_quantile(waits, 0.5, &ns) ? (double)ns * 1e-3 : 0, 1);
    emit_measured(e, "wait_us_p99", waits && bench_histogram_quantile(waits, 0.99, &ns) ? (double)ns * 1e-3 : 0, 1);
    bench_emit_spread(e, "bare_ratio", ratio(p), 3);
    free(waits);
}
