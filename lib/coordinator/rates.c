/* Throughput of ranks and workers: counters read twice a second, smoothed, put where `stat` looks. */
#include "coordinator/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { INTERVAL_NS = 500000000 };

static void store_rate(_Atomic uint64_t *word, double rate)
{
    uint64_t bits = atomic_load_explicit(word, memory_order_relaxed);
    double old;
    memcpy(&old, &bits, sizeof old);
    rate = old > 0 ? 0.5 * old + 0.5 * rate : rate;
    if (rate < 1e-3)
        rate = 0;
    memcpy(&bits, &rate, sizeof bits);
    atomic_store_explicit(word, bits, memory_order_relaxed);
}

static void rate_of(uint64_t *last, _Atomic uint64_t *counter, _Atomic uint64_t *rate, double seconds)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    if (seconds > 0)
        store_rate(rate, (double)(now - *last) / seconds);
    *last = now;
}

void rfi_rates_step(struct rfi_coordinator *c)
{
    uint64_t now = rfi_now_ns();
    uint32_t ranks = c->run.config.ranks, workers = c->run.config.workers;
    if (!c->rated && !(c->rated = calloc(2 * (size_t)ranks + workers, sizeof *c->rated)))
        return;
    if (now - c->rated_ns < INTERVAL_NS)
        return;
    double seconds = c->rated_ns ? (double)(now - c->rated_ns) * 1e-9 : 0;
    c->rated_ns = now;
    for (uint32_t i = 0; i < ranks; i++) {
        struct rfi_trainer_shared *t = c->run.rings[i].tr;
        rate_of(&c->rated[2 * i], &t->samples, &c->run.ranks[i].rate_samples, seconds);
        rate_of(&c->rated[2 * i + 1], &t->bytes, &c->run.ranks[i].rate_bytes, seconds);
    }
    for (uint32_t w = 0; w < workers; w++)
        rate_of(&c->rated[2 * ranks + w], &c->run.workers[w].samples, &c->run.workers[w].rate_samples, seconds);
}
