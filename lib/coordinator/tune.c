/* How many reads each worker keeps in flight, who of the workers is active, and when they pause for the CPU budget. Only claiming is held back: a worker finishes
 * what it has claimed, lives on, and takes over at once when an active one dies. What is delivered does not depend on
 * it, since what is in a batch does not depend on who reads it. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/futex.h"
#include "base/log.h"
#include "coordinator/budget.h"
#include "worker/latency.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { WINDOW_NS = 200000000, DEPTH_LEAST = 4, DEPTH_REST = 4 };

/* Trainers that waited for less than this part of their samples are not starved. */
#define STARVED 0.05

struct facts {
    struct rfi_crew_facts crew;
    double reads_per_s;
    uint64_t lowest_ns; /* latency of a read */
    bool full; /* workers had as many reads in flight as they may */
};

struct rfi_tuner {
    struct rfi_budget budget;
    struct rfi_crew crew;
    struct rfi_climb depth;
    bool tuned, depth_tuned; /* the number of workers, of reads in flight is ours to choose */
    uint32_t chosen;
    uint64_t stepped_ns, from_ns, paused_ns;
    double cpu, cpu_from; /* seconds that the server has used; at the beginning of the window */
    /* Counted at the beginning of the window. */
    uint64_t bytes, hits, misses, busy_ns, reads, rounds, full;
    unsigned random; /* of the test that changes all the time */
};

static double seconds_of(struct timespec t)
{
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double clock_of(clockid_t id)
{
    struct timespec t;
    return clock_gettime(id, &t) == 0 ? seconds_of(t) : 0;
}

/* CPU time of this process, of the workers alive and of those that were reaped. */
static double cpu_used(const struct rfi_coordinator *c)
{
    struct rusage dead;
    double sum = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    if (getrusage(RUSAGE_CHILDREN, &dead) == 0)
        sum += (double)(dead.ru_utime.tv_sec + dead.ru_stime.tv_sec) +
               (double)(dead.ru_utime.tv_usec + dead.ru_stime.tv_usec) * 1e-6;
    for (uint32_t w = 0; w < c->run.config.workers; w++) {
        clockid_t id;
        if (c->children[w].state == RFI_WORKER_RUNNING && clock_getcpuclockid(c->children[w].pid, &id) == 0)
            sum += clock_of(id);
    }
    return sum;
}

/* Nodes that have rings need a worker each: a trainer's release wakes the workers of the ring's node. */
static uint32_t least_workers(const struct rfi_coordinator *c)
{
    uint64_t nodes = 0;
    for (uint32_t w = 0; w < c->run.config.workers; w++)
        nodes |= UINT64_C(1) << c->placement.worker_node[w];
    return (uint32_t)__builtin_popcountll(nodes);
}

/* The first running worker of each node, then others in their order. Who is dead keeps its bit: it will come back as one
 * of the active ones, and until the next step one too many does no harm. */
static uint64_t choose(const struct rfi_coordinator *c, uint32_t n)
{
    uint64_t dead = 0, on = 0, nodes = 0;
    for (uint32_t w = 0; w < c->run.config.workers; w++) {
        uint64_t node = UINT64_C(1) << c->placement.worker_node[w], bit = UINT64_C(1) << w;
        if (c->children[w].state != RFI_WORKER_RUNNING || c->children[w].fenced_ns)
            dead |= bit;
        else if (!(nodes & node))
            on |= bit, nodes |= node;
    }
    for (uint32_t w = 0; w < c->run.config.workers && (uint32_t)__builtin_popcountll(on) < n; w++)
        on |= ~dead & UINT64_C(1) << w;
    return on | dead;
}

static void tell(struct rfi_coordinator *c, uint64_t resting)
{
    struct rfi_coordinator_shared *s = c->run.coordinator;
    if (atomic_exchange_explicit(&s->resting, resting, memory_order_relaxed) == resting)
        return;
    atomic_fetch_add_explicit(&s->tuned, 1, memory_order_release); /* who reads the new value sees who rests */
    rfi_futex_wake_all(&s->tuned);
}

/* A worker that starts anew counts its time from 0: then the window says less, or nothing. */
static uint64_t grown(uint64_t *last, uint64_t now)
{
    uint64_t by = now > *last ? now - *last : 0;
    *last = now;
    return by;
}

static void measure(struct rfi_coordinator *c, uint64_t elapsed_ns, struct facts *f)
{
    struct rfi_tuner *t = c->tuner;
    uint64_t hits = 0, misses = 0, bytes = 0, busy = 0, reads = 0, rounds = 0, full = 0, lowest = 0;
    double seconds = (double)elapsed_ns * 1e-9;
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        hits += rfi_run_count(&c->run.rings[i].tr->hits);
        misses += rfi_run_count(&c->run.rings[i].tr->misses);
    }
    for (uint32_t i = 0; i < c->run.config.workers; i++) {
        const struct rfi_worker_shared *w = &c->run.workers[i];
        uint64_t least = rfi_run_count(&w->lowest_ns);
        bytes += rfi_run_count(&w->bytes);
        busy += rfi_run_count(&w->busy_ns);
        reads += rfi_run_count(&w->reads);
        rounds += rfi_run_count(&w->rounds);
        full += rfi_run_count(&w->full_rounds);
        lowest = lowest && (!least || lowest < least) ? lowest : least;
    }
    hits = grown(&t->hits, hits);
    misses = grown(&t->misses, misses);
    rounds = grown(&t->rounds, rounds);
    *f = (struct facts){.crew = {.rate = (double)grown(&t->bytes, bytes) / seconds,
                                 .busy = (double)grown(&t->busy_ns, busy) / (double)elapsed_ns,
                                 .paused = (double)t->paused_ns / (double)elapsed_ns,
                                 .starved = (double)misses > STARVED * (double)(hits + misses)},
                        .reads_per_s = (double)grown(&t->reads, reads) / seconds,
                        .full = 2 * grown(&t->full, full) > rounds,
                        .lowest_ns = lowest};
}

static void store_cpu(struct rfi_coordinator *c, double cores)
{
    uint64_t bits;
    memcpy(&bits, &cores, sizeof bits);
    atomic_store_explicit(&c->run.coordinator->cpu, bits, memory_order_relaxed);
}

static void tune_workers(struct rfi_coordinator *c, const struct facts *f)
{
    struct rfi_tuner *t = c->tuner;
    uint32_t before = t->crew.climb.value;
    t->chosen = rfi_crew_step(&t->crew, &f->crew);
    if (t->crew.climb.value != before)
        rfi_log(RFI_LOG_INFO, "%u of %u workers read from now on, %u did before: %s", t->crew.climb.value,
                c->run.config.workers, before, t->crew.why);
}

static void tune_depth(struct rfi_coordinator *c, const struct facts *f)
{
    struct rfi_tuner *t = c->tuner;
    uint32_t before = t->depth.value, law = rfi_latency_depth(f->reads_per_s / t->chosen, f->lowest_ns);
    t->depth.low = (uint32_t)rfi_min(t->depth.high, rfi_max(DEPTH_LEAST, law));
    rfi_climb_step(&t->depth, f->crew.rate, f->full && f->crew.paused <= 0);
    if (t->depth.value != before)
        rfi_log(RFI_LOG_INFO,
                "%u reads in flight a worker from now on, %u before: measured in turns, at %.0f reads/s and a "
                "latency of %.0f us at least",
                t->depth.value, before, f->reads_per_s, (double)f->lowest_ns * 1e-3);
}

/* One thing at a time: what both change is the same rate. */
static void end_window(struct rfi_coordinator *c, uint64_t now)
{
    struct rfi_tuner *t = c->tuner;
    struct facts f;
    measure(c, now - t->from_ns, &f);
    store_cpu(c, (t->cpu - t->cpu_from) / ((double)(now - t->from_ns) * 1e-9));
    if (t->tuned && !t->depth.turn)
        tune_workers(c, &f);
    if (t->depth_tuned && !t->crew.climb.turn)
        tune_depth(c, &f);
    t->from_ns = now;
    t->cpu_from = t->cpu;
    t->paused_ns = 0;
}

int rfi_tune_open(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->run.config;
    struct rfi_tuner *t = c->tuner = calloc(1, sizeof *t);
    if (!t)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    uint32_t start = (uint32_t)rfi_min(f->workers, rfi_placement_workers(&c->topology, f->ranks));
    t->budget.cores = f->cpu_budget >= 100 ? 0 : f->cpu_budget * (double)c->topology.n_cpus / 100;
    /* Keepers are who they are, and a sweep belongs to one worker. */
    t->tuned = !f->workers_pinned && f->replication <= 1 && !f->sweeps && f->workers > 1;
    t->chosen = t->tuned ? start : f->workers;
    rfi_crew_init(&t->crew, t->tuned ? least_workers(c) : f->workers, t->chosen, f->workers);
    t->depth_tuned = !f->depth_pinned && !f->sweeps && !f->hedge_ms && rfi_reader_overlaps(&c->readers[0]);
    rfi_climb_init(&t->depth, DEPTH_LEAST, f->queue_depth, f->queue_depth, DEPTH_REST);
    atomic_store_explicit(&c->run.coordinator->depth, f->queue_depth, memory_order_relaxed);
    return 0;
}

void rfi_tune_close(struct rfi_coordinator *c)
{
    free(c->tuner);
    c->tuner = NULL;
}

/* A worker that may not claim cannot publish: its death says nothing about what it would have done. */
bool rfi_tune_resting(const struct rfi_coordinator *c, uint32_t w)
{
    return rfi_run_count(&c->run.coordinator->resting) >> w & 1;
}

static uint64_t who(struct rfi_coordinator *c, bool paused)
{
    struct rfi_tuner *t = c->tuner;
    if (rfi_test_switch("RINGFEED_TUNE_STORM")) /* any set of workers at any time, none now and then */
        return (uint64_t)rand_r(&t->random) % 4 ? (uint64_t)rand_r(&t->random) : 0;
    if (paused)
        return 0;
    return t->tuned ? choose(c, t->chosen) : UINT64_MAX;
}

static uint32_t depth(struct rfi_tuner *t)
{
    if (rfi_test_switch("RINGFEED_TUNE_STORM"))
        return 1 + (uint32_t)rand_r(&t->random) % t->depth.high;
    return rfi_climb_now(&t->depth);
}

void rfi_tune_step(struct rfi_coordinator *c)
{
    struct rfi_tuner *t = c->tuner;
    uint64_t now = rfi_now_ns(), passed = t->stepped_ns ? now - t->stepped_ns : 0;
    bool was_paused = t->budget.paused, window = now - t->from_ns >= WINDOW_NS;
    if (t->budget.cores > 0 || window) {
        double used = cpu_used(c);
        rfi_budget_step(&t->budget, (double)passed * 1e-9, passed ? used - t->cpu : 0);
        t->cpu = used;
        t->stepped_ns = now;
        t->paused_ns += was_paused ? passed : 0;
    }
    if (!t->from_ns) {
        t->from_ns = now;
        t->cpu_from = t->cpu;
    } else if (window) {
        end_window(c, now);
    }
    atomic_store_explicit(&c->run.coordinator->chosen_workers, t->chosen, memory_order_relaxed);
    atomic_store_explicit(&c->run.coordinator->depth, depth(t), memory_order_relaxed);
    tell(c, ~who(c, t->budget.paused));
}
