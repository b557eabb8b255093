/* The ring's stress body: what a worker, a trainer and the parent do, written once and run as threads (for
 * ThreadSanitizer) and as processes (for SIGKILL).
 *
 * Content is a hash of (epoch, batch, ticket) over the whole region, checked by the trainer when it takes a
 * batch and again before it releases it. `epoch` numbers the generations; which one a ticket belongs to is
 * known from a log kept here, beside the ring. So a lost, doubled, stale, torn or overwritten batch, a
 * wrong place and a late write are all seen as wrong content. */
#pragma once

#include "ring_world.h"

#include <stdbool.h>

enum { BODY_WORKERS = 8, BODY_LOG = 1 << 16, BODY_HELD = 8, BODY_CLAIMS = 3 };

struct body_cut {
    _Atomic uint64_t first, epoch, batch, end; /* as in the generation record */
};

/* In shared memory. */
struct body_shared {
    _Atomic int stop; /* everyone leaves at the next chance */
    _Atomic int failed; /* 1: `why` is being written, 2: it is complete */
    char why[400];
    /* The trainer's resets: it counts `asked` up, the parent cuts and answers. */
    _Atomic uint64_t asked, answered, answer_cut;
    _Atomic uint64_t n_log;
    struct body_cut log[BODY_LOG]; /* entry i at i mod BODY_LOG */
    _Atomic uint64_t published, taken, ends, errors, resets, cuts, cancelled, reclaimed, grown;
};

struct body {
    struct ring_world world;
    struct body_shared *sh;
    uint64_t random; /* the parent's stream */
};

/* `lap_bytes` is a quarter of the arena: cuts change at random how much of it is used, and how far ahead. */
void body_make(struct body *b, uint32_t depth, uint64_t lap_bytes, uint64_t seed);
void body_free(struct body *b);

__attribute__((format(printf, 2, 3))) void body_fail(struct body_shared *sh, const char *fmt, ...);

/* ---- worker ---- */

struct body_worker {
    const struct body *body;
    struct rfi_ring ring;
    unsigned number; /* also its io_uring's */
    uint64_t random;
    struct rfi_claim claims[BODY_CLAIMS];
    unsigned n_claims;
    /* Asked at every step: true abandons everything on the spot. NULL: never. */
    bool (*dies)(struct body_worker *w);
};

void body_worker_init(struct body_worker *w, const struct body *b, unsigned number, uint64_t seed);

/* Works until stop (true) or until `dies` said so (false; claims[0 .. n_claims) are left as they are). */
bool body_worker_run(struct body_worker *w);

/* What a dead worker's reads may still do: other bytes into the regions that it had claimed. */
void body_worker_late_writes(struct body_worker *w);

/* ---- trainer ---- */

/* Takes, checks and releases from the first unreleased ticket until stop. */
void body_trainer_run(const struct body *b, uint64_t seed);

/* ---- parent ---- */

/* Answers a reset, or now and then makes a cut of its own. */
void body_parent_step(struct body *b);
/* As the coordinator: call it only for a worker that is gone and whose late writes are over. */
void body_parent_reclaim(struct body *b, unsigned worker);

/* Prints the counters; 0 when nothing failed and everything happened at least once. */
int body_report(const struct body *b, const char *what, uint64_t worker_deaths, uint64_t trainer_deaths);
