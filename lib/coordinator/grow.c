/* How far each ring is read ahead, where nobody said it. A ring is laid out for several times the default, in address
 * space alone; when its trainer waits now and then although it is slower than its workers in the mean, another part
 * of the arena gets its memory, and the ring goes on in laps twice as long (rfi_ring_grow). What is in a batch does not
 * depend on it. It never gets smaller: the memory has been paid for. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "coordinator/budget.h"

#include <errno.h>
#include <stdlib.h>

enum { WINDOW_NS = 200000000, WINDOW_BATCHES = 8 };

struct rfi_growth {
    struct rfi_reach reach;
    uint64_t from_ns, wait_ns, batches, hits, misses; /* when the window began, and what was counted then */
    double waited, missed; /* in the last window */
    bool due, over; /* the next growth is under way; there is no room for one */
};

int rfi_grow_open(struct rfi_coordinator *c)
{
    c->growth = calloc(c->run.config.ranks, sizeof *c->growth);
    return c->growth ? 0 : rfi_fail(c->err, ENOMEM, "out of memory");
}

void rfi_grow_close(struct rfi_coordinator *c)
{
    free(c->growth);
    c->growth = NULL;
}

/* The window of one ring, once it is long enough to say something. The trainer may write anything there. */
static void measure(struct rfi_growth *g, const struct rfi_trainer_shared *t, uint64_t now)
{
    struct rfi_growth next = *g;
    double hits, misses;
    next.wait_ns = rfi_run_count(&t->wait_ns);
    next.batches = rfi_run_count(&t->batches);
    next.hits = rfi_run_count(&t->hits);
    next.misses = rfi_run_count(&t->misses);
    next.from_ns = now;
    if (g->from_ns && (now - g->from_ns < WINDOW_NS || next.batches - g->batches < WINDOW_BATCHES))
        return;
    hits = (double)(next.hits - g->hits);
    misses = (double)(next.misses - g->misses);
    next.waited = (double)(next.wait_ns - g->wait_ns) / (double)(now - g->from_ns);
    next.missed = misses > 0 ? misses / (hits + misses) : 0;
    if (g->from_ns)
        next.due = rfi_reach_step(&next.reach, next.waited, next.missed);
    *g = next;
}

static void grow(struct rfi_coordinator *c, uint32_t i)
{
    static int said;
    struct rfi_growth *g = &c->growth[i];
    struct rfi_ring *r = &c->run.rings[i];
    struct rfi_error err = {0};
    uint32_t before = rfi_ring_ahead(r), after = (uint32_t)rfi_min(2 * (uint64_t)before, r->depth);
    uint64_t bytes = c->run.config.lap_bytes * (after / c->run.config.prefetch);
    int rc = rfi_spares_widen(c, i, bytes, &err);
    if (rc < 0) {
        g->over = true;
        rfi_log_once(&said, RFI_LOG_INFO, "rank %u is not read further ahead than %u batches: %s", r->rank, before,
                     err.text);
    }
    if (rc == 0)
        return;
    g->due = false;
    if (rc < 0 || !rfi_ring_grow(r, after))
        return;
    rfi_log(RFI_LOG_INFO,
            "rank %u: %u batches are read ahead from now on, %u before: its trainer waited for %.1f %% of the time, "
            "and %.1f %% of its samples were not ready",
            r->rank, after, before, g->waited * 100, g->missed * 100);
}

void rfi_grow_step(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->run.config;
    uint64_t now = f->prefetch < f->depth ? rfi_now_ns() : 0;
    for (uint32_t i = 0; f->prefetch < f->depth && i < f->ranks; i++) {
        struct rfi_growth *g = &c->growth[i];
        if (g->over || c->leases[i].settled || rfi_ring_ahead(&c->run.rings[i]) >= f->depth)
            continue;
        if (!g->due)
            measure(g, c->run.rings[i].tr, now);
        g->due |= rfi_test_switch("RINGFEED_TUNE_STORM") && rfi_run_count(&c->run.rings[i].tr->batches) > 0;
        if (g->due)
            grow(c, i);
    }
}
