/* Who is well: a status for every worker and rank, stored where `stat` looks, and its history.
 *   unknown  not seen yet
 *   active   at work
 *   idle     nothing to do: no batch claimed, no trainer, a trainer that asks for nothing
 *   slow     silent for half of the heartbeat's limit (at the limit it is fenced), or far slower than its peers
 *   failed   dead, being fenced, given up; a trainer that died
 * Slow by throughput: below `slow_ratio` of the median of the other active ones, for two looks in a row; well again
 * above one and a half of that. A worker's throughput is counted over the time in which it had batches, so that one
 * who finds little to do is not slow; a rank's is what its trainer reports (rf_report_health), else what it
 * releases. */
#include "coordinator/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_NS = 500000000, POINT_NS = 1000000000, LOOKS_TO_SLOW = 2 };
#define REPORT_NS UINT64_C(10000000000) /* a report counts for so long */
#define BACK_AGAIN 1.5

struct judged {
    uint64_t samples, active_ns; /* a worker's, since the last look */
    double rate; /* smoothed; 0: none yet */
    uint32_t below; /* looks in a row */
    bool slow;
    uint64_t point_ns; /* last point of the history */
};

struct rfi_judge {
    uint64_t stepped_ns, looked_ns;
    double *rates; /* scratch */
    struct judged all[]; /* workers, then ranks */
};

int rfi_status_open(struct rfi_coordinator *c)
{
    size_t n = (size_t)c->run.config.workers + c->run.config.ranks;
    c->judge = calloc(1, sizeof *c->judge + n * sizeof c->judge->all[0]);
    if (c->judge)
        c->judge->rates = calloc(n, sizeof *c->judge->rates);
    return c->judge && c->judge->rates ? 0 : rfi_fail(c->err, ENOMEM, "out of memory");
}

void rfi_status_close(struct rfi_coordinator *c)
{
    if (c->judge)
        free(c->judge->rates);
    free(c->judge);
    c->judge = NULL;
}

static double number(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d >= 0 && d < 1e300 ? d : 0;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The median of the others that have a rate; 0: there are none. */
static double peers(struct rfi_judge *j, uint32_t first, uint32_t n, uint32_t me)
{
    uint32_t found = 0;
    for (uint32_t i = first; i < first + n; i++)
        if (i != me && j->all[i].rate > 0)
            j->rates[found++] = j->all[i].rate;
    if (!found)
        return 0;
    qsort(j->rates, found, sizeof *j->rates, by_value);
    return found % 2 ? j->rates[found / 2] : (j->rates[found / 2 - 1] + j->rates[found / 2]) / 2;
}

static void judge(struct rfi_coordinator *c, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        struct judged *d = &c->judge->all[i];
        double median = peers(c->judge, first, n, i);
        bool below = d->rate > 0 && d->rate < c->o->slow_ratio * median * (d->slow ? BACK_AGAIN : 1);
        d->below = below ? d->below + 1 : 0;
        d->slow = below && (d->slow || d->below >= LOOKS_TO_SLOW);
    }
}

static double smooth(double old, double now)
{
    return old > 0 ? 0.5 * old + 0.5 * now : now;
}

static void look_at_worker(struct rfi_coordinator *c, uint32_t w, uint64_t elapsed_ns)
{
    struct judged *d = &c->judge->all[w];
    uint64_t samples = rfi_run_count(&c->run.workers[w].samples);
    if (c->children[w].state != RFI_WORKER_RUNNING)
        d->rate = 0;
    else if (d->active_ns >= elapsed_ns / 10) /* too little to say anything otherwise */
        d->rate = smooth(d->rate, (double)(samples - d->samples) * 1e9 / (double)d->active_ns);
    d->samples = samples;
    d->active_ns = 0;
}

double rfi_reported_rate(const struct rfi_coordinator *c, uint32_t i, uint64_t now)
{
    const struct rfi_trainer_shared *t = c->run.rings[i].tr;
    uint64_t reported = rfi_run_count(&t->reported_ns);
    bool fresh = reported && (reported > now || now - reported < REPORT_NS); /* it may come after `now` was read */
    return fresh ? number(rfi_run_count(&t->reported_rate)) : 0;
}

static void look_at_rank(struct rfi_coordinator *c, uint32_t i, uint64_t now)
{
    struct judged *d = &c->judge->all[c->run.config.workers + i];
    double reported = rfi_reported_rate(c, i, now);
    if (atomic_load_explicit(&c->run.ranks[i].status, memory_order_relaxed) < RF_STATUS_ACTIVE ||
        atomic_load_explicit(&c->run.ranks[i].status, memory_order_relaxed) == RF_STATUS_IDLE)
        d->rate = 0;
    else
        d->rate = reported > 0 ? reported : number(rfi_run_count(&c->run.ranks[i].rate_samples));
}

static rf_status worker_status(const struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    const struct rfi_worker_shared *s = &c->run.workers[w];
    uint64_t beat = rfi_run_count(&s->heartbeat_ns), seen = beat ? beat : rfi_run_count(&s->started_ns);
    switch (c->children[w].state) {
    case RFI_WORKER_ABSENT:
        return RF_STATUS_UNKNOWN;
    case RFI_WORKER_STOPPED:
        return RF_STATUS_IDLE;
    case RFI_WORKER_RUNNING:
        break;
    default:
        return RF_STATUS_FAILED;
    }
    if (c->children[w].fenced_ns)
        return RF_STATUS_FAILED;
    if (now > seen && now - seen > (uint64_t)c->run.config.heartbeat_ms * 1000000u / 2)
        return RF_STATUS_SLOW;
    if (beat == 0)
        return RF_STATUS_UNKNOWN;
    if (!atomic_load_explicit(&s->jobs, memory_order_relaxed) && number(rfi_run_count(&s->rate_samples)) <= 0)
        return RF_STATUS_IDLE;
    return c->judge->all[w].slow ? RF_STATUS_SLOW : RF_STATUS_ACTIVE;
}

static rf_status rank_status(const struct rfi_coordinator *c, uint32_t i, uint64_t now)
{
    const struct rfi_rank_shared *s = &c->run.ranks[i];
    uint64_t last = rfi_run_count(&c->run.rings[i].tr->heartbeat_ns);
    bool attached = atomic_load_explicit(&s->pid, memory_order_relaxed) != 0;
    if (!attached && atomic_load_explicit(&s->incarnation, memory_order_relaxed) == 0)
        return RF_STATUS_UNKNOWN;
    if (!attached)
        return atomic_load_explicit(&s->died, memory_order_relaxed) ? RF_STATUS_FAILED : RF_STATUS_IDLE;
    if (atomic_load_explicit(&s->stuck, memory_order_relaxed))
        return RF_STATUS_SLOW;
    if (last == 0)
        return RF_STATUS_UNKNOWN;
    if (now > last && now - last > (uint64_t)c->run.config.heartbeat_ms * 1000000u)
        return RF_STATUS_IDLE;
    return c->judge->all[c->run.config.workers + i].slow ? RF_STATUS_SLOW : RF_STATUS_ACTIVE;
}

static void point(struct rfi_coordinator *c, uint32_t i, rf_status status, uint64_t rate, uint64_t now)
{
    struct rfi_history_shared *h = &c->run.history[i];
    uint64_t n = rfi_run_count(&h->next);
    atomic_store_explicit(&h->points[n % RFI_HISTORY_POINTS].time_ns, now, memory_order_relaxed);
    atomic_store_explicit(&h->points[n % RFI_HISTORY_POINTS].status, status, memory_order_relaxed);
    atomic_store_explicit(&h->points[n % RFI_HISTORY_POINTS].rate, rate, memory_order_relaxed);
    atomic_store_explicit(&h->next, n + 1, memory_order_release); /* a reader of next sees the point */
    c->judge->all[i].point_ns = now;
}

static void set(struct rfi_coordinator *c, uint32_t i, _Atomic uint32_t *ret, rf_status status, uint64_t rate,
                uint64_t now)
{
    bool changed = atomic_exchange_explicit(ret, status, memory_order_relaxed) != (uint32_t)status;
    if (changed || now - c->judge->all[i].point_ns >= POINT_NS)
        point(c, i, status, rate, now);
}

void rfi_status_step(struct rfi_coordinator *c)
{
    struct rfi_judge *j = c->judge;
    const struct rfi_config_shared *f = &c->run.config;
    uint64_t now = rfi_now_ns(), passed = j->stepped_ns ? now - j->stepped_ns : 0;
    j->stepped_ns = now;
    for (uint32_t w = 0; w < f->workers; w++)
        if (atomic_load_explicit(&c->run.workers[w].jobs, memory_order_relaxed))
            j->all[w].active_ns += passed;
    if (now - j->looked_ns >= LOOK_NS) {
        for (uint32_t w = 0; w < f->workers; w++)
            look_at_worker(c, w, now - j->looked_ns);
        for (uint32_t i = 0; i < f->ranks; i++)
            look_at_rank(c, i, now);
        judge(c, 0, f->workers);
        judge(c, f->workers, f->ranks);
        j->looked_ns = now;
    }
    for (uint32_t w = 0; w < f->workers; w++)
        set(c, w, &c->run.workers[w].status, worker_status(c, w, now), rfi_run_count(&c->run.workers[w].rate_samples),
            now);
    for (uint32_t i = 0; i < f->ranks; i++)
        set(c, f->workers + i, &c->run.ranks[i].status, rank_status(c, i, now),
            rfi_run_count(&c->run.ranks[i].rate_samples), now);
}
