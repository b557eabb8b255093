#include "ring_content.h"

#include "base/clock.h"

#include <inttypes.h>
#include <sched.h>

#define WAIT_NS UINT64_C(10000000000)
#define SLEEP_NS UINT64_C(1000000000)

struct held {
    uint64_t ticket, base, offset, bytes;
};

struct trainer {
    const struct body *body;
    struct rfi_ring ring;
    uint64_t random, next;
    struct held held[BODY_HELD];
    unsigned n_held;
};

/* The generation of a ticket, from the log: the newest entry at or below it. */
static bool expected(const struct trainer *t, uint64_t ticket, uint64_t *ret_epoch, uint64_t *ret_batch,
                     uint64_t *ret_end)
{
    const struct body_shared *sh = t->body->sh;
    uint64_t n = atomic_load(&sh->n_log);

    for (uint64_t i = n; i-- > 0 && n - i < BODY_LOG;) {
        const struct body_cut *c = &sh->log[i % BODY_LOG];
        uint64_t first = atomic_load(&c->first);
        if (first > ticket)
            continue;
        *ret_epoch = atomic_load(&c->epoch);
        *ret_batch = atomic_load(&c->batch) + (ticket - first);
        *ret_end = atomic_load(&c->end);
        return true;
    }
    body_fail(t->body->sh, "ticket %" PRIu64 " is in no generation", ticket);
    return false;
}

static void check_bytes(const struct trainer *t, const struct held *h, const char *when)
{
    const uint64_t *at = (const uint64_t *)(const void *)(t->body->world.arena + h->offset);

    for (uint64_t i = 0; i < h->bytes / 8; i++)
        if (at[i] != content_word(h->base, i)) {
            body_fail(t->body->sh, "ticket %" PRIu64 ", word %" PRIu64 " of %" PRIu64 " is wrong %s", h->ticket, i,
                      h->bytes / 8, when);
            return;
        }
}

static void release_all(struct trainer *t)
{
    for (unsigned i = 0; i < t->n_held; i++)
        check_bytes(t, &t->held[i], "before its release");
    t->n_held = 0;
    rfi_ring_release(&t->ring, t->next);
}

static void hold(struct trainer *t, uint64_t epoch, uint64_t batch)
{
    const struct rfi_slot_shared *s = &t->ring.slots[t->next % t->ring.depth];
    struct held h = {.ticket = t->next,
                     .base = content_base(epoch, batch, t->next),
                     .offset = s->data_offset,
                     .bytes = s->footprint};

    if (s->epoch != epoch || s->batch != batch || s->footprint != content_footprint(epoch, batch, t->ring.lap_bytes))
        body_fail(t->body->sh,
                  "ticket %" PRIu64 " is epoch %" PRIu64 " batch %" PRIu64 " (%" PRIu64 " bytes), not %" PRIu64
                  " %" PRIu64,
                  t->next, s->epoch, s->batch, s->footprint, epoch, batch);
    else
        check_bytes(t, &h, "when taken");
    t->held[t->n_held++] = h;
}

/* Asks the parent for a new generation and goes to its beginning. */
static void reset(struct trainer *t)
{
    struct body_shared *sh = t->body->sh;
    uint64_t mine = atomic_fetch_add(&sh->asked, 1) + 1;
    uint64_t deadline = rfi_now_ns() + WAIT_NS;

    while (atomic_load(&sh->answered) < mine) {
        if (atomic_load(&sh->stop))
            return;
        if (rfi_now_ns() > deadline) {
            body_fail(sh, "the parent did not answer a reset");
            return;
        }
        sched_yield();
    }
    t->n_held = 0; /* dropped */
    t->next = atomic_load(&sh->answer_cut);
    atomic_store(&t->ring.tr->taken, t->next);
    rfi_ring_release(&t->ring, t->next);
    atomic_fetch_add(&sh->resets, 1);
}

static void take(struct trainer *t, enum rfi_take what)
{
    struct body_shared *sh = t->body->sh;
    uint64_t epoch, batch, end;

    if (!expected(t, t->next, &epoch, &batch, &end))
        return;
    if ((what == RFI_TAKE_END) != (t->next >= end)) {
        body_fail(sh, "ticket %" PRIu64 ": END %s", t->next, what == RFI_TAKE_END ? "too early" : "missing");
        return;
    }
    if (what == RFI_TAKE_END) {
        atomic_fetch_add(&sh->ends, 1);
        reset(t);
        return;
    }
    if ((what == RFI_TAKE_ERROR) != (content_error(epoch, batch) != 0)) {
        body_fail(sh, "ticket %" PRIu64 ": ERROR %s", t->next, what == RFI_TAKE_ERROR ? "unexpected" : "missing");
        return;
    }
    if (what == RFI_TAKE_READY)
        hold(t, epoch, batch);
    else
        atomic_fetch_add(&sh->errors, 1);
    atomic_store(&t->ring.tr->taken, ++t->next);
    atomic_fetch_add(&sh->taken, 1);
}

/* One sleep; false: time to go. A batch that is ready when a whole sleep is over came without a wake-up. */
static bool sleep_once(struct trainer *t)
{
    uint64_t start = rfi_now_ns();

    rfi_ring_wait(&t->ring, t->next, SLEEP_NS);
    if (atomic_load(&t->body->sh->stop))
        return false;
    if (rfi_ring_look(&t->ring, t->next) == RFI_TAKE_NOT_YET)
        return true;
    if (rfi_now_ns() - start >= SLEEP_NS)
        body_fail(t->body->sh, "ticket %" PRIu64 " became ready and nobody woke the trainer", t->next);
    return false;
}

/* Everything is given back first: a trainer that holds batches may be the one who is waited for. */
static void wait_for_next(struct trainer *t)
{
    uint64_t start = rfi_now_ns();

    release_all(t);
    while (sleep_once(t))
        if (rfi_now_ns() - start >= WAIT_NS) {
            body_fail(t->body->sh, "the trainer waited 10 s for ticket %" PRIu64, t->next);
            return;
        }
}

void body_trainer_run(const struct body *b, uint64_t seed)
{
    struct trainer t = {.body = b, .ring = b->world.ring, .random = ring_mix(seed)};

    t.next = atomic_load(&t.ring.tr->released); /* goes on after the last release that counted */
    atomic_store(&t.ring.tr->taken, t.next);
    while (!atomic_load(&b->sh->stop)) {
        enum rfi_take what = rfi_ring_look(&t.ring, t.next);
        if (what == RFI_TAKE_NOT_YET) {
            wait_for_next(&t);
            continue;
        }
        take(&t, what);
        if (t.n_held == BODY_HELD || ring_random(&t.random) % 3 == 0)
            release_all(&t);
        if (ring_random(&t.random) % 128 == 0)
            reset(&t);
    }
}
