/* `bench --compare NAME,…`: other loaders over the same files, in turns with ringfeed. */
#include "bench/bench.h"
#include "bench/machine.h"
#include "bench/peers.h"
#include "bench/report.h"

#include "base/bytes.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOADERS_MOST = 16, SAMPLES_MOST = 1 << 26 };

/* Figures of each pair, by run. */
struct figures {
    double *samples_per_s, *gb_per_s, *cpu_per_gb; /* [runs]; 0: none */
};

struct loader {
    const struct bench_peer *peer; /* NULL: ringfeed itself */
    struct figures f;
    char version[96];
    char unusable[256]; /* "": it runs */
};

struct compare {
    struct bench_args *args;
    struct bench_setup setup;
    struct bench_source source;
    struct bench_devices devices;
    char folder[PATH_MAX]; /* of the job */
    struct loader loaders[LOADERS_MOST]; /* the first is ringfeed */
    unsigned n;
    struct bench_notes notes;
    struct bench_chosen chosen;
};

/* ---- the job ---- */

struct job_sample {
    uint32_t file, zero;
    uint64_t offset, bytes;
};

static FILE *create(const struct compare *c, const char *name, struct rfi_error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.*s/%s", (int)strlen(c->folder), c->folder, name);
    FILE *f = fopen(path, "we");
    if (!f)
        rfi_fail(err, errno, "%s: %s. Set TMPDIR", path, strerror(errno));
    return f;
}

static int finish(FILE *f, struct rfi_error *err)
{
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad)
        return rfi_fail(err, EIO, "the job's files cannot be written. Is the disk of TMPDIR full?");
    return 0;
}

static int write_files(const struct compare *c, const struct rfi_dataset *d, struct rfi_error *err)
{
    FILE *f = create(c, "files.txt", err);
    if (!f)
        return err->code;
    for (uint32_t i = 0; i < rfi_dataset_n_files(d); i++) {
        struct rfi_file file;
        rfi_dataset_file(d, i, &file);
        fprintf(f, "%s\n", file.path);
    }
    return finish(f, err);
}

static int write_samples(const struct compare *c, const struct rfi_dataset *d, struct rfi_error *err)
{
    FILE *f = create(c, "samples.bin", err);
    int rc = f ? 0 : err->code;
    for (uint64_t i = 0; i < rfi_dataset_samples(d) && rc == 0; i++) {
        struct rfi_extent e;
        rc = rfi_dataset_extent(d, i, &e);
        if (rc < 0) {
            rfi_fail(err, -rc, "sample %llu: its entry in the table is damaged", (unsigned long long)i);
            break;
        }
        const struct job_sample s = {.file = e.file, .offset = e.offset, .bytes = e.bytes};
        fwrite(&s, sizeof s, 1, f);
    }
    if (f && finish(f, rc == 0 ? err : NULL) < 0 && rc == 0)
        rc = err->code;
    return rc;
}

/* One epoch of a rank. */
static int write_order(const struct compare *c, uint32_t rank, struct rfi_error *err)
{
    char name[64];
    uint64_t batch = c->args->order.o.batch, *ids = calloc(batch, sizeof *ids);
    snprintf(name, sizeof name, "order-%u.bin", rank);
    FILE *f = ids ? create(c, name, err) : NULL;
    int rc = f ? 0 : ids ? err->code : rfi_fail(err, ENOMEM, "out of memory");
    for (uint64_t b = 0, len = rf_order_len(c->setup.order, rank); b < len && rc == 0; b++) {
        int64_t n = rf_order_batch(c->setup.order, c->setup.server.start_epoch, rank, b, ids, NULL);
        if (n < 0)
            rc = rfi_fail(err, (int)-n, "%s", rf_order_error(c->setup.order));
        else
            fwrite(ids, sizeof *ids, (size_t)n, f);
    }
    if (f && finish(f, rc == 0 ? err : NULL) < 0 && rc == 0)
        rc = err->code;
    free(ids);
    return rc;
}

static int write_job(struct compare *c, struct rfi_error *err)
{
    const struct rfi_dataset *d = rfi_dataset_of(c->source.dataset);
    if (rfi_dataset_samples(d) == 0 || rfi_dataset_samples(d) > SAMPLES_MOST)
        return rfi_fail(err, EINVAL, "DATASET: %llu samples cannot be compared: 1 to %d can. Use --subset of an index",
                        (unsigned long long)rfi_dataset_samples(d), SAMPLES_MOST);
    int rc = bench_temporary(c->folder, sizeof c->folder, err);
    if (rc == 0)
        rc = write_files(c, d, err);
    if (rc == 0)
        rc = write_samples(c, d, err);
    for (uint32_t i = 0; i < c->args->order.ranks && rc == 0; i++)
        rc = write_order(c, (uint32_t)c->args->order.first_rank + i, err);
    return rc;
}

static void remove_job(const struct compare *c)
{
    char path[PATH_MAX + 64];
    if (!c->folder[0])
        return;
    for (uint32_t i = 0; i < c->args->order.ranks + 2; i++) {
        if (i < 2)
            snprintf(path, sizeof path, "%s/%s", c->folder, i ? "files.txt" : "samples.bin");
        else
            snprintf(path, sizeof path, "%s/order-%u.bin", c->folder, (uint32_t)c->args->order.first_rank + i - 2);
        unlink(path);
    }
    rmdir(c->folder);
}

/* ---- turns ---- */

static void keep(const struct figures *f, uint64_t i, double samples, double bytes, double seconds, double cpu_per_gb)
{
    if (seconds <= 0 || bytes <= 0)
        return;
    f->samples_per_s[i] = samples / seconds;
    f->gb_per_s[i] = bytes / seconds * 1e-9;
    f->cpu_per_gb[i] = cpu_per_gb;
}

/* All processes count, the trainers too: in the other loaders they cannot be told apart. */
static int turn_ours(struct compare *c, uint64_t i, struct rfi_error *err)
{
    struct bench_point p;
    struct bench_setup s = c->setup;
    s.runs = 1;
    int rc = bench_measure(&s, (enum bench_cache)c->args->cache, &p, err);
    if (rc == 0) {
        const struct bench_run *r = &p.runs[0];
        double cpu = r->parent_cpu_s + r->workers_cpu_s + r->trainers_cpu_s, bytes = (double)r->window.bytes;
        c->chosen = r->chosen;
        snprintf(c->loaders[0].version, sizeof c->loaders[0].version, "%s, %s, %u workers", rf_version(),
                 r->chosen.engine, r->chosen.workers);
        if (bench_run_long_enough(r))
            keep(&c->loaders[0].f, i, (double)r->window.samples, bytes, r->seconds, cpu / (bytes * 1e-9));
        for (unsigned k = 0; k < p.notes.n; k++)
            bench_note(&c->notes, "ringfeed: %.240s", p.notes.text[k]);
    }
    bench_point_free(&p);
    return rc;
}

static int turn_theirs(struct compare *c, struct loader *l, uint64_t i, struct rfi_error *err)
{
    const struct bench_args *a = c->args;
    unsigned ranks = (unsigned)a->order.ranks, threads = a->serve.workers ? (unsigned)a->serve.workers : 2;
    const struct bench_peer_job job = {.folder = c->folder,
                                       .first_rank = (uint32_t)a->order.first_rank,
                                       .ranks = ranks,
                                       .batch = a->order.o.batch,
                                       .threads = threads > ranks ? threads / ranks : 1,
                                       .seconds = a->runtime_s,
                                       .step_ns = c->setup.step.compute_ns,
                                       .interrupted = &bench_interrupted};
    struct bench_peer_result r;
    struct bench_cached cached;
    struct rfi_error why = {0};
    int rc = bench_cache_prepare(rfi_dataset_of(c->source.dataset), (enum bench_cache)a->cache, &bench_interrupted,
                                 &cached, err);
    if (rc < 0)
        return rc;
    rc = bench_peer_run(l->peer, &job, &r, &why);
    if (rc == -EINTR)
        return rfi_fail(err, EINTR, "interrupted");
    if (rc != 0) { /* not there, or broken: the others go on */
        snprintf(l->unusable, sizeof l->unusable, "%.255s", why.text);
        bench_note(&c->notes, "%s: %.200s", l->peer->name, why.text);
        return 0;
    }
    memcpy(l->version, r.version, sizeof l->version);
    keep(&l->f, i, r.samples, r.bytes, r.seconds, r.cpu_bytes > 0 ? r.cpu_seconds / (r.cpu_bytes * 1e-9) : 0);
    return 0;
}

static int take_turns(struct compare *c, struct rfi_error *err)
{
    struct cli_progress progress;
    int rc = 0;
    cli_progress_begin(&progress, "comparing", c->args->runs);
    for (uint64_t i = 0; i < c->args->runs && rc == 0; i++) {
        rc = turn_ours(c, i, err);
        for (unsigned k = 1; k < c->n && rc == 0; k++)
            if (!c->loaders[k].unusable[0])
                rc = turn_theirs(c, &c->loaders[k], i, err);
        cli_progress_at(&progress, i + 1, "rounds");
    }
    cli_progress_end(&progress);
    return rc;
}

/* ---- the document ---- */

static struct bench_spread spread(const struct compare *c, const double *values, const double *over)
{
    uint64_t n = 0;
    double *known = calloc(c->args->runs, sizeof *known);
    for (uint64_t i = 0; i < c->args->runs && known; i++)
        if (values[i] > 0 && (!over || over[i] > 0))
            known[n++] = over ? values[i] / over[i] : values[i];
    struct bench_spread s = bench_spread_of(known, n);
    free(known);
    return s;
}

static void emit_loader(struct cli_emit *e, const struct compare *c, const struct loader *l)
{
    const struct figures *ours = &c->loaders[0].f;
    bool other = l->peer != NULL;
    cli_emit_object(e, NULL);
    cli_emit_str(e, "loader", other ? l->peer->name : "ringfeed");
    cli_emit_str(e, "version", l->unusable[0] ? "not measured" : l->version);
    bench_emit_spread(e, "samples_per_s", spread(c, l->f.samples_per_s, NULL), 0);
    bench_emit_spread(e, "gb_per_s", spread(c, l->f.gb_per_s, NULL), 3);
    bench_emit_spread(e, "cpu_s_per_gb", spread(c, l->f.cpu_per_gb, NULL), 3);
    bench_emit_spread(e, "samples_ratio", spread(c, ours->samples_per_s, l->f.samples_per_s), 2);
    bench_emit_spread(e, "cpu_ratio", spread(c, ours->cpu_per_gb, l->f.cpu_per_gb), 3);
    cli_emit_close(e);
}

static int report(struct compare *c)
{
    struct cli_emit e;
    bench_note(&c->notes, "ratios are ringfeed's figure over the other's, pair by pair: more samples_ratio and less "
                          "cpu_ratio are better for ringfeed");
    cli_emit_begin(&e, c->args->json);
    cli_emit_str(&e, "bench", "compare");
    bench_emit_machine(&e, &c->devices);
    bench_emit_dataset(&e, c->source.dataset);
    bench_emit_order(&e, c->args);
    cli_emit_str(&e, "cache", bench_cache_name((enum bench_cache)c->args->cache));
    cli_emit_bool(&e, "direct", c->chosen.direct);
    cli_emit_f64(&e, "step_ms", (double)c->setup.step.compute_ns * 1e-6, 3);
    cli_emit_u64(&e, "pairs", c->args->runs);
    cli_emit_array(&e, "loaders");
    for (unsigned i = 0; i < c->n; i++)
        emit_loader(&e, c, &c->loaders[i]);
    cli_emit_close(&e);
    bench_emit_notes(&e, &c->notes);
    return cli_emit_end(&e);
}

/* ---- setting up ---- */

static int unknown_peer(const char *name, size_t n)
{
    char known[256] = "";
    for (const struct bench_peer *p = bench_peers; p->name; p++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", p == bench_peers ? "" : ", ", p->name);
    return cli_usage("bench: --compare %.*s: no such loader. There are %s", (int)n, name, known);
}

static int parse_names(struct compare *c)
{
    c->n = 1; /* ringfeed */
    for (const char *at = c->args->compare;; at++) {
        size_t n = strcspn(at, ",");
        const struct bench_peer *p = bench_peer_find(at, n);
        if (!p)
            return unknown_peer(at, n);
        if (c->n == LOADERS_MOST)
            return cli_usage("bench: --compare: more than %d loaders", LOADERS_MOST - 1);
        c->loaders[c->n++].peer = p;
        at += n;
        if (!*at)
            return CLI_OK;
    }
}

static int make_figures(struct compare *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        struct figures *f = &c->loaders[i].f;
        f->samples_per_s = calloc(c->args->runs, sizeof(double));
        f->gb_per_s = calloc(c->args->runs, sizeof(double));
        f->cpu_per_gb = calloc(c->args->runs, sizeof(double));
        if (!f->samples_per_s || !f->gb_per_s || !f->cpu_per_gb)
            return -ENOMEM;
    }
    return 0;
}

static int run(struct compare *c, rf_dataset *named, struct rfi_error *err)
{
    int rc = bench_source_open(named, 0, &c->source, err);
    if (rc < 0)
        return rc;
    bench_setup_init(c->args, &c->setup);
    c->setup.bare = c->setup.limit = false;
    c->setup.step.compute_ns = (uint64_t)llround(c->args->step_ms * 1e6);
    c->setup.devices = c->devices;
    c->setup.server.dataset = &c->source.where;
    c->setup.server.order = &c->args->order.o;
    c->setup.dataset = c->source.dataset;
    rc = rf_order_open(&c->args->order.o, c->source.dataset, &c->setup.order);
    if (rc < 0)
        return rfi_fail(err, -rc, "%s", rf_last_error());
    rc = make_figures(c) < 0 ? rfi_fail(err, ENOMEM, "out of memory") : write_job(c, err);
    return rc < 0 ? rc : take_turns(c, err);
}

int bench_compare(struct bench_args *a)
{
    struct compare *c = calloc(1, sizeof *c);
    struct rfi_error err = {0};
    rf_dataset *named = NULL;
    if (!c)
        return cli_fail("bench: out of memory");
    c->args = a;
    if (!a->cache_given)
        a->cache = BENCH_CACHE_WARM;
    int code = parse_names(c);
    if (code == CLI_OK && (named = cli_open_dataset(&a->dataset, &a->paths, &code))) {
        bench_devices_find(rfi_dataset_of(named), &c->devices);
        code = run(c, named, &err) < 0 ? bench_fail(&err) : report(c);
    }
    rf_order_close(c->setup.order);
    remove_job(c);
    bench_source_close(&c->source);
    rf_dataset_close(named);
    for (unsigned i = 0; i < c->n; i++) {
        free(c->loaders[i].f.samples_per_s);
        free(c->loaders[i].f.gb_per_s);
        free(c->loaders[i].f.cpu_per_gb);
    }
    free(c);
    return code;
}
