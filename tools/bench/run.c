#include "bench/run.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "reader/choose.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct running {
    const struct bench_run_options *o;
    rf_server *server;
    struct rfi_run_view view;
    bool viewed, trained;
    struct bench_trainers trainers;
    struct bench_usage before, after;
};

static int interrupted(struct rfi_error *err)
{
    return rfi_fail(err, EINTR, "interrupted");
}

static int start_server(struct running *r, struct rfi_error *err)
{
    rf_server_options o = *r->o->server;
    o.name = r->o->name;
    o.epochs = 0;
    int rc = rf_server_start(&o, -1, &r->server);
    if (rc < 0)
        return *r->o->interrupted ? interrupted(err) : rfi_fail(err, -rc, "%s", rf_last_error());
    rc = rfi_run_attach(r->o->name, false, &r->view, err);
    r->viewed = rc == 0;
    return rc;
}

/* Engine and O_DIRECT may change while it runs: as they are now. */
static void read_chosen(const struct rfi_run_view *v, struct bench_chosen *ret)
{
    const struct rfi_config_shared *c = &v->config;
    uint32_t reading = atomic_load_explicit(&v->coordinator->reading, memory_order_relaxed);
    *ret = (struct bench_chosen){.workers = c->workers,
                                 .queue_depth = c->queue_depth,
                                 .prefetch = c->prefetch,
                                 .direct = (reading & RFI_READ_DIRECT) != 0,
                                 .arena_bytes = c->arena_bytes,
                                 .align = c->align};
    rfi_run_engine_name(c, reading, ret->engine);
}

static int start_trainers(struct running *r, struct rfi_error *err)
{
    const struct rfi_config_shared *c = &r->view.config;
    const struct bench_run_options *o = r->o;
    struct bench_field field = {.name = o->name,
                                .step = o->step,
                                .epochs = o->runtime_ns ? 0 : o->epochs,
                                .start_epoch = c->start_epoch,
                                .moves = c->gated != 0,
                                .ramp_batches = o->step.together ? 1 : 0,
                                .interrupted = o->interrupted};
    r->trained = true;
    int rc = bench_trainers_start(&r->trainers, &field, c->first_rank, c->ranks, err);
    if (rc == 0)
        bench_trainers_wait(&r->trainers, &r->trainers.field.attached, 0);
    return rc;
}

/* What a trainer that failed said. */
static int check_trainers(const struct running *r, struct rfi_error *err)
{
    for (uint32_t i = 0; i < r->trainers.field.n && r->trainers.ranks; i++)
        if (r->trainers.ranks[i].error[0])
            return rfi_fail(err, EIO, "rank %u: %s", r->trainers.ranks[i].rank, r->trainers.ranks[i].error);
    return *r->o->interrupted ? interrupted(err) : 0;
}

/* From go to the end of the window. */
static void measure(struct running *r)
{
    struct bench_trainers *t = &r->trainers;
    const struct bench_run_options *o = r->o;
    uint64_t ramp_until = rfi_now_ns() + o->ramp_ns;
    bench_trainers_go(t);
    if (!bench_trainers_wait(t, &t->field.ramped, 0))
        return;
    if (o->ramp_ns)
        bench_trainers_wait(t, &t->field.ended, ramp_until);
    bench_usage_read(&r->view, o->devices, &r->before);
    atomic_store_explicit(&t->field.phase, BENCH_MEASURE, memory_order_relaxed);
    bench_trainers_wait(t, &t->field.ended, o->runtime_ns ? rfi_now_ns() + o->runtime_ns : 0);
    atomic_store_explicit(&t->field.phase, BENCH_STOP, memory_order_relaxed);
    bench_usage_read(&r->view, o->devices, &r->after);
}

static void add(struct bench_counts *to, const struct bench_counts *from)
{
    to->batches += from->batches;
    to->samples += from->samples;
    to->bytes += from->bytes;
}

static void sum_ranks(struct running *r, struct bench_run *ret)
{
    uint64_t from = UINT64_MAX, to = 0;
    ret->ranks = r->trainers.ranks;
    ret->n_ranks = r->trainers.field.n;
    r->trainers.ranks = NULL;
    for (uint32_t i = 0; i < ret->n_ranks; i++) {
        const struct bench_rank *rank = &ret->ranks[i];
        add(&ret->all, &rank->all);
        add(&ret->window, &rank->window);
        if (!rank->window.batches)
            continue;
        from = rfi_min(from, rank->from_ns);
        to = rfi_max(to, rank->to_ns);
        ret->trainers_cpu_s += rank->cpu_s;
    }
    ret->seconds = to > from ? (double)(to - from) * 1e-9 : 0;
}

static void difference(const struct bench_usage *a, const struct bench_usage *b, struct bench_run *ret)
{
    ret->parent_cpu_s = b->parent_cpu_s - a->parent_cpu_s;
    ret->workers_cpu_s = b->workers_cpu_s - a->workers_cpu_s;
    ret->issued = b->issued - a->issued;
    ret->resident = b->resident - a->resident;
    ret->restarts = b->restarts - a->restarts;
    ret->io_known = a->io_known && b->io_known && ret->restarts == 0;
    ret->io_bytes = b->io_bytes - a->io_bytes;
    ret->device_known = a->device_known && b->device_known;
    ret->device.reads = b->device.reads - a->device.reads;
    ret->device.bytes = b->device.bytes - a->device.bytes;
}

static int go_through(struct running *r, struct bench_run *ret, struct rfi_error *err)
{
    int rc = start_server(r, err);
    if (rc == 0)
        rc = start_trainers(r, err);
    if (rc == 0 && (rc = check_trainers(r, err)) == 0) {
        measure(r);
        read_chosen(&r->view, &ret->chosen);
        ret->memory_known = bench_memory_read(&r->view, &ret->memory);
    }
    if (r->trained)
        bench_trainers_stop(&r->trainers);
    return rc == 0 ? check_trainers(r, err) : rc;
}

int bench_run(const struct bench_run_options *o, struct bench_run *ret, struct rfi_error *err)
{
    struct running r = {.o = o};
    *ret = (struct bench_run){0};
    int rc = go_through(&r, ret, err);
    if (rc == 0) {
        sum_ranks(&r, ret);
        if (r.after.at_ns)
            difference(&r.before, &r.after, ret);
    }
    if (r.trained)
        bench_trainers_free(&r.trainers);
    if (r.viewed)
        rfi_run_close(&r.view);
    int status = rf_server_stop(r.server);
    if (rc == 0 && status != 0)
        rc = rfi_fail(err, EIO, "the server did not end well (%d)", status);
    return rc;
}

void bench_run_free(struct bench_run *r)
{
    free(r->ranks);
    r->ranks = NULL;
}
