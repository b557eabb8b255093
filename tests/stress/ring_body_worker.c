#include "ring_content.h"

#include "base/clock.h"

#include <sched.h>

/* Longer than anything on the way to more work: a sleep that lasts is a lost wake-up. */
#define SLEEP_NS UINT64_C(10000000000)

void body_worker_init(struct body_worker *w, const struct body *b, unsigned number, uint64_t seed)
{
    *w = (struct body_worker){.body = b, .ring = b->world.ring, .number = number, .random = ring_mix(seed)};
}

/* Called before a claim too, with records that may be half old and half new: must take anything. */
static int footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    const struct rfi_ring *r = ctx;
    *ret = content_footprint(g->epoch, g->batch + (ticket - g->first_ticket), r->lap_bytes);
    return 0;
}

static bool dies(struct body_worker *w)
{
    if (ring_random(&w->random) % 16 == 0)
        sched_yield();
    return w->dies && w->dies(w);
}

static uint64_t batch_of(const struct rfi_claim *c)
{
    return c->generation.batch + (c->ticket - c->generation.first_ticket);
}

/* False: died half way. */
static bool fill(struct body_worker *w, const struct rfi_claim *c)
{
    uint64_t base = content_base(c->generation.epoch, batch_of(c), c->ticket);
    uint64_t *to = (uint64_t *)(void *)(w->body->world.arena + c->data_offset);
    uint64_t n = c->footprint / 8;
    uint64_t half = ring_random(&w->random) % n;

    for (uint64_t i = 0; i < n; i++) {
        if (i == half && dies(w))
            return false;
        to[i] = content_word(base, i);
    }
    return true;
}

static void describe(struct body_worker *w, const struct rfi_claim *c)
{
    struct rfi_slot_shared *s = &w->ring.slots[c->slot];
    s->epoch = c->generation.epoch;
    s->batch = batch_of(c);
    s->n_samples = 1;
    s->payload_bytes = c->footprint;
    s->remote = 0;
}

/* One claim from beginning to end; false: died. */
static bool work(struct body_worker *w, const struct rfi_claim *c)
{
    unsigned code = content_error(c->generation.epoch, batch_of(c));

    if (dies(w))
        return false;
    if (c->end) {
        rfi_ring_publish_end(&w->ring, w->number, c);
    } else if (code != 0) {
        describe(w, c);
        rfi_ring_publish_error(&w->ring, w->number, c, code);
    } else {
        rfi_ring_writers_begin(&w->ring, c->slot, w->number);
        if (!fill(w, c) || dies(w))
            return false;
        rfi_ring_writers_end(&w->ring, c->slot, w->number);
        describe(w, c);
        if (dies(w))
            return false;
        rfi_ring_publish(&w->ring, w->number, c);
    }
    atomic_fetch_add(&w->body->sh->published, 1);
    return true;
}

/* Takes up to a few tickets; some are given back unread. */
static bool gather(struct body_worker *w)
{
    unsigned most = 1 + (unsigned)(ring_random(&w->random) % BODY_CLAIMS);

    while (w->n_claims < most) {
        struct rfi_claim *c = &w->claims[w->n_claims];
        int rc = rfi_ring_claim(&w->ring, w->number, footprint, &w->ring, c);
        if (rc < 0)
            body_fail(w->body->sh, "worker %u: claim failed: %d", w->number, rc);
        if (rc != 1)
            break;
        w->n_claims++;
        if (dies(w))
            return false;
        if (ring_random(&w->random) % 32 == 0) {
            rfi_ring_unclaim(&w->ring, w->number, c);
            w->n_claims--;
        }
    }
    return true;
}

/* Finishes what was gathered, in any order. */
static bool finish(struct body_worker *w)
{
    while (w->n_claims > 0) {
        unsigned i = (unsigned)(ring_random(&w->random) % w->n_claims);
        if (!work(w, &w->claims[i]))
            return false;
        w->claims[i] = w->claims[--w->n_claims];
    }
    return true;
}

static void sleep_on_the_bell(struct body_worker *w)
{
    struct rfi_bell_shared *bell = w->ring.bell;
    uint32_t value = rfi_bell_prepare(bell);

    if (rfi_ring_claimable(&w->ring) == 0 && !atomic_load(&w->body->sh->stop)) {
        uint64_t start = rfi_now_ns();
        rfi_bell_wait(bell, value, SLEEP_NS);
        if (rfi_now_ns() - start >= SLEEP_NS && rfi_ring_ready(&w->ring) == 0)
            body_fail(w->body->sh, "worker %u: nobody rang for 10 s while nothing was ready", w->number);
    }
}

bool body_worker_run(struct body_worker *w)
{
    while (!atomic_load(&w->body->sh->stop)) {
        if (!gather(w))
            return false;
        if (w->n_claims == 0)
            sleep_on_the_bell(w);
        else if (!finish(w))
            return false;
    }
    return true;
}

void body_worker_late_writes(struct body_worker *w)
{
    for (unsigned k = 0; k < w->n_claims; k++) {
        const struct rfi_claim *c = &w->claims[k];
        uint64_t *to = (uint64_t *)(void *)(w->body->world.arena + c->data_offset);
        uint64_t n = c->end ? 0 : c->footprint / 8;
        for (uint64_t i = 0; i < n; i += 1 + ring_random(&w->random) % 16)
            to[i] = ~UINT64_C(0);
        sched_yield();
    }
}
