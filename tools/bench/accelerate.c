/* Emulated accelerators: the trainers of a run wait where an accelerator would compute, and step together. */
#include "bench/machine.h"
#include "bench/report.h"
#include "bench/workload.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* Steps after the first below which utilisation says nothing. */
enum { STEPS_LEAST = 10 };

struct outcome {
    uint64_t accelerators, steps; /* a rank in the last run, the first included */
    struct bench_spread utilisation; /* over the runs; n 0: too short */
    double waited; /* percent of its time that the rank which waited longest spent in next, in the last run */
    struct bench_point point;
};

/* ---- one number of accelerators ---- */

/* Of one run, over its accelerators; -1: too short. Without --ramp-time all but the first step counts. */
static double utilisation(const struct bench_run *r, const struct bench_job *j, bool ramp)
{
    double sum = 0;
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        const struct bench_rank *k = &r->ranks[i];
        uint64_t steps = ramp ? k->window.batches : k->all.batches ? k->all.batches - 1 : 0;
        if (steps < STEPS_LEAST)
            return -1;
        sum += bench_utilisation(steps, j->step_ns, ramp ? k->to_ns - k->from_ns : k->last_end_ns - k->first_end_ns);
    }
    return sum / r->n_ranks;
}

static double longest_waited(const struct bench_run *r)
{
    double most = 0;
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        const struct bench_rank *k = &r->ranks[i];
        if (k->to_ns > k->from_ns)
            most = fmax(most, 100 * (double)k->wait_ns / (double)(k->to_ns - k->from_ns));
    }
    return most;
}

static int judge(const struct bench_args *a, const struct bench_job *j, struct outcome *o)
{
    const struct bench_point *p = &o->point;
    double *values = calloc(p->n, sizeof *values);
    uint64_t n = 0;
    if (!values)
        return -ENOMEM;
    for (uint64_t i = 0; i < p->n; i++) {
        double u = utilisation(&p->runs[i], j, a->ramp_s > 0);
        if (u >= 0)
            values[n++] = u;
    }
    o->steps = p->runs[p->n - 1].ranks[0].all.batches;
    o->waited = longest_waited(&p->runs[p->n - 1]);
    o->utilisation = bench_spread_of(values, n == p->n ? n : 0);
    free(values);
    return 0;
}

/* The threads that play accelerators take CPU time themselves. */
static void note_emulation(struct bench_notes *n, const struct outcome *o, double mark)
{
    if (o->utilisation.n && o->utilisation.min < mark && o->waited < 1)
        bench_note(n,
                   "%llu accelerators: not kept busy although hardly any batch was waited for: emulating so many takes "
                   "the CPU time",
                   (unsigned long long)o->accelerators);
}

static bool passes(const struct outcome *o, double mark)
{
    return o->utilisation.n && o->utilisation.min >= mark;
}

static void fill_setup(const struct bench_args *a, const struct bench_job *j, uint64_t n, const rf_order_options *order,
                       struct bench_setup *s)
{
    bench_setup_init(a, s);
    s->bare = s->limit = false;
    s->devices = j->devices;
    s->step = (struct bench_step){.compute_ns = j->step_ns, .together = true, .touch = a->touch, .drop = a->drop_bytes};
    s->server.dataset = &j->source.where;
    s->server.order = order;
    s->server.ranks = (uint32_t)n;
    s->server.first_rank = 0;
    s->dataset = j->source.dataset;
}

static int measure(const struct bench_args *a, const struct bench_job *j, uint64_t n, struct outcome *o,
                   struct rfi_error *err)
{
    struct bench_setup s;
    rf_order_options order = a->order.o;
    order.world_size = (uint32_t)n;
    fill_setup(a, j, n, &order, &s);
    *o = (struct outcome){.accelerators = n};
    int rc = rf_order_open(&order, s.dataset, &s.order);
    if (rc < 0)
        return rfi_fail(err, -rc, "%s", rf_last_error());
    if (rf_order_len(s.order, 0) == 0)
        rc = rfi_fail(err, ENODATA,
                      "%llu samples are no step of %llu accelerators, of %u samples each. Make more data, or use fewer "
                      "--accelerators",
                      (unsigned long long)j->data.samples, (unsigned long long)n, j->shape->batch);
    else
        rc = bench_measure(&s, (enum bench_cache)a->cache, &o->point, err);
    rf_order_close(s.order);
    if (rc == 0 && judge(a, j, o) < 0)
        rc = rfi_fail(err, ENOMEM, "out of memory");
    return rc;
}

/* ---- the document ---- */

static void note_difference(struct bench_notes *n, const struct bench_args *a, const struct bench_job *j,
                            uint64_t accelerators)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t asked = bench_shape_samples(j->shape, j->data.scale, accelerators, memory);
    if (!j->published)
        bench_note(n, "the step time is the caller's own: there is no pass mark");
    if (j->data.scale != 1)
        bench_note(n, "scaled: samples have %g of their published bytes", j->data.scale);
    if (j->data.samples < asked)
        bench_note(n, "scaled: %llu samples, the rules ask for %llu", (unsigned long long)j->data.samples,
                   (unsigned long long)asked);
    if (a->drop_bytes)
        bench_note(n, "--drop-bytes: each batch is given back before its step, unlooked at, as the reference benchmark "
                      "drops what it has read");
    if (j->shape->layout == BENCH_JPEG_A_FILE)
        bench_note(n, "the JPEG files hold random bytes behind their header");
}

static void emit_what(struct cli_emit *e, const struct bench_args *a, const struct bench_job *j)
{
    cli_emit_str(e, "workload", j->shape->name);
    cli_emit_str(e, "accelerator", a->accelerator_given ? bench_accelerator_names[a->accelerator] : NULL);
    cli_emit_f64(e, "step_ms", (double)j->step_ns * 1e-6, 5);
    cli_emit_str(e, "step_time", j->published ? "published" : "own");
    cli_emit_u64(e, "batch", j->shape->batch);
    if (j->mark > 0)
        cli_emit_f64(e, "pass_mark", j->mark, 0);
    else
        cli_emit_null(e, "pass_mark");
    cli_emit_str(e, "batches_are",
                 a->drop_bytes ? "dropped before the step (as the reference benchmark)"
                 : a->touch    ? "read by the trainer, and held for the step"
                               : "delivered in memory, and held for the step");
    cli_emit_object(e, "data");
    cli_emit_str(e, "folder", j->data.folder);
    cli_emit_f64(e, "scale", j->data.scale, 6);
    cli_emit_u64(e, "seed", j->data.seed);
    cli_emit_u64(e, "samples", j->data.samples);
    cli_emit_bytes(e, "bytes", bench_data_bytes(&j->data));
    cli_emit_close(e);
}

static void emit_outcome(struct cli_emit *e, const struct bench_job *j, const struct outcome *o)
{
    cli_emit_u64(e, "accelerators", o->accelerators);
    cli_emit_u64(e, "steps", o->steps);
    bench_emit_spread(e, "utilisation", o->utilisation, 2);
    cli_emit_f64(e, "waited", o->waited, 2);
    if (j->mark > 0 && o->utilisation.n)
        cli_emit_bool(e, "passed", passes(o, j->mark));
    else
        cli_emit_null(e, "passed");
}

static int report(const struct bench_args *a, const struct bench_job *j, struct outcome *o)
{
    struct cli_emit e;
    note_difference(&o->point.notes, a, j, o->accelerators);
    note_emulation(&o->point.notes, o, j->mark);
    if (o->utilisation.n == 0)
        bench_note(&o->point.notes,
                   "utilisation: too short: %d steps behind the first are needed; use more --epochs, or "
                   "--runtime",
                   STEPS_LEAST);
    cli_emit_begin(&e, a->json);
    cli_emit_str(&e, "bench", "workload");
    bench_emit_machine(&e, &j->devices);
    emit_what(&e, a, j);
    emit_outcome(&e, j, o);
    cli_emit_object(&e, "delivery");
    bench_emit_point(&e, &o->point, a->touch);
    cli_emit_close(&e);
    return cli_emit_end(&e);
}

int bench_accelerate(struct bench_args *a, struct bench_job *j)
{
    struct outcome o;
    struct rfi_error err = {0};
    int rc = measure(a, j, a->accelerators, &o, &err);
    int code = rc < 0 ? bench_fail(&err) : report(a, j, &o);
    bench_point_free(&o.point);
    return code;
}

/* ---- the largest number ---- */

enum { TRIES_MOST = 32 };

struct search {
    struct outcome tries[TRIES_MOST];
    unsigned n;
    double mark;
    uint64_t passed, failed; /* the largest that did, the smallest that did not (0: none) */
};

/* Whether accelerators that pass would have made enough steps in the time given: then fewer are an answer too. */
static bool had_time(const struct bench_args *a, const struct bench_job *j, double mark)
{
    return a->runtime_s * 1e9 >= (STEPS_LEAST + 1) * (double)j->step_ns * 100 / mark;
}

/* One more number, on a fresh run. */
static int try_one(const struct bench_args *a, const struct bench_job *j, uint64_t accelerators, struct search *s,
                   struct rfi_error *err)
{
    struct outcome *o = &s->tries[s->n];
    int rc = measure(a, j, accelerators, o, err);
    s->n++;
    if (rc < 0)
        return rc;
    if (o->utilisation.n == 0 && !had_time(a, j, s->mark))
        return rfi_fail(err, ENODATA,
                        "%llu accelerators: too short: %d steps behind the first are needed. Use more --epochs, or "
                        "--runtime",
                        (unsigned long long)accelerators, STEPS_LEAST);
    if (passes(o, s->mark))
        s->passed = accelerators;
    else
        s->failed = accelerators;
    return 0;
}

/* Doubling until one fails, then halving the gap. */
static int search(const struct bench_args *a, const struct bench_job *j, uint64_t most, struct search *s,
                  struct rfi_error *err)
{
    int rc = 0;
    while (rc == 0 && !s->failed && s->passed < most && s->n < TRIES_MOST)
        rc = try_one(a, j, s->passed == 0 ? 1 : 2 * s->passed < most ? 2 * s->passed : most, s, err);
    while (rc == 0 && s->failed && s->failed - s->passed > 1 && s->n < TRIES_MOST)
        rc = try_one(a, j, s->passed + (s->failed - s->passed) / 2, s, err);
    return rc;
}

static int report_most(const struct bench_args *a, const struct bench_job *j, const struct search *s, uint64_t most)
{
    struct cli_emit e;
    struct bench_notes notes = {0};
    note_difference(&notes, a, j, s->passed ? s->passed : 1);
    for (unsigned i = 0; i < s->n; i++)
        note_emulation(&notes, &s->tries[i], s->mark);
    if (s->passed == most)
        bench_note(&notes, "%llu was the largest number to try", (unsigned long long)most);
    cli_emit_begin(&e, a->json);
    cli_emit_str(&e, "bench", "workload");
    bench_emit_machine(&e, &j->devices);
    emit_what(&e, a, j);
    cli_emit_f64(&e, "searched_mark", s->mark, 0);
    cli_emit_u64(&e, "most_accelerators", s->passed);
    cli_emit_array(&e, "tries");
    for (unsigned i = 0; i < s->n; i++) {
        cli_emit_object(&e, NULL);
        emit_outcome(&e, j, &s->tries[i]);
        bench_emit_summary(&e, &s->tries[i].point);
        cli_emit_close(&e);
    }
    cli_emit_close(&e);
    bench_emit_notes(&e, &notes);
    return cli_emit_end(&e);
}

/* As many as have a step an epoch; --accelerators is a bound where it is given. */
static uint64_t most_to_try(const struct bench_args *a, const struct bench_job *j)
{
    uint64_t by_data = j->data.samples / j->shape->batch;
    return a->accelerators_given && a->accelerators < by_data ? a->accelerators : by_data;
}

int bench_accelerate_most(struct bench_args *a, struct bench_job *j)
{
    struct search s = {.mark = j->mark > 0 ? j->mark : 90};
    struct rfi_error err = {0};
    uint64_t most = most_to_try(a, j);
    int rc = search(a, j, most, &s, &err);
    int code = rc < 0 ? bench_fail(&err) : report_most(a, j, &s, most);
    for (unsigned i = 0; i < s.n; i++)
        bench_point_free(&s.tries[i].point);
    return code;
}
