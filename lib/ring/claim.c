/* The worker's way in: recycle what the trainer gave back, then claim the oldest ticket that fits below the
 * free edge. Checks made before the claim only save a useless CAS; the ones made after it count, because a
 * cut may have come in between. Where none has, one load after the claim says so. */
#include "ring/ring_words.h"

#include <errno.h>
#include <stddef.h>

uint64_t rfi_ring_freed(const struct rfi_ring *r)
{
    return atomic_load_explicit(&r->sh->freed, memory_order_acquire) & ~RFI_FREED_FROZEN; /* P3, P5 */
}

enum recycled { NOTHING, ONE, PLACE_FIRST };

/* One ticket. `released` comes from the trainer and may be anything: only a published slot is recycled, in order.
 * The chain of places leads over the ticket below `freed`. A published one has a place, unless a move wiped it
 * since: then somebody has to compute it first, or nobody ever could again. */
static enum recycled recycle_one(struct rfi_ring *r)
{
    uint64_t t = atomic_load_explicit(&r->sh->freed, memory_order_acquire); /* P3 */
    struct rfi_slot_shared *s;
    uint64_t word, place;

    if (t & RFI_FREED_FROZEN || t >= atomic_load_explicit(&r->tr->released, memory_order_seq_cst)) /* P2, P7 */
        return NOTHING;
    s = rfi_slot(r, t);
    word = atomic_load_explicit(&s->word, memory_order_acquire);
    if (rfi_word_ticket(word) == t) {
        if (!rfi_published(word) || atomic_load_explicit(&s->writers, memory_order_acquire) != 0) /* P8 */
            return NOTHING;
        if (!rfi_place_get(r, t, &place))
            return PLACE_FIRST;
        atomic_compare_exchange_strong_explicit(&s->word, &word, rfi_free_word(t + r->depth), memory_order_acq_rel,
                                                memory_order_relaxed); /* P3; failed: someone else's is the same */
    }
    /* The slot has left ticket t. Whoever did that may be dead: move the edge for it. Fails when frozen. */
    atomic_compare_exchange_strong_explicit(&r->sh->freed, &t, t + 1, memory_order_acq_rel,
                                            memory_order_relaxed); /* P3 */
    return ONE;
}

bool rfi_ring_recycle(struct rfi_ring *r)
{
    enum recycled got = ONE;

    for (uint32_t i = 0; i < r->depth && got == ONE; i++)
        got = recycle_one(r);
    return got == PLACE_FIRST;
}

/* What a claimant has seen: the cuts before it looked at anything else, and the free edge. */
struct view {
    struct rfi_cuts cuts;
    uint64_t freed, edge;
};

/* The first virtual offset that may not be written, and the `freed` it belongs to. */
static int free_edge(struct rfi_ring *r, const struct rfi_sizes *sizes, struct view *v)
{
    struct rfi_generation space;
    struct rfi_record newest;
    uint64_t place, from;
    int rc;

    v->freed = rfi_ring_freed(r);
    if (v->freed + r->depth > RFI_TICKET_LIMIT)
        return -EOVERFLOW;
    /* What can be claimed lies in the newest record's arena, where batches from before the move take no room. A
     * move after this look only makes the edge too low: places in a new arena are laps further. */
    rfi_record_look(r, RFI_TICKET_LIMIT, &space, &newest);
    from = rfi_arena_from(newest.g);
    rc = rfi_place_ensure(r, &v->cuts, v->freed, v->freed, sizes, &place);
    if (rc == 0 && from > v->freed)
        rc = rfi_place_ensure(r, &v->cuts, v->freed, from, sizes, &place);
    if (rc != 0)
        return rc;
    v->edge = place + r->arena_bytes;
    /* The place was `freed`'s only if freed stood still (tags repeat after 512 laps). */
    return rfi_ring_freed(r) == v->freed ? 0 : RFI_RING_AGAIN;
}

/* A generation ends with END; what a cut left behind it, below the next generation, is END too: a claim
 * that saw an older record and was being given back when the cut was made can put the cut there. */
static bool past_the_end(const struct rfi_ring *r, const struct rfi_generation *g, uint64_t ticket)
{
    struct rfi_generation newest;

    if (ticket <= g->end_ticket)
        return false;
    rfi_generation_newest(r, &newest);
    return newest.first_ticket <= ticket;
}

/* The ring is stopped there until the next generation. A claim that saw an older record may pass the stop for an
 * instant and is given back; whoever cuts then finds the cut behind the stop, and tries again. */
static bool stopped(const struct rfi_generation *g, uint64_t ticket)
{
    return g->stop_ticket && ticket >= g->stop_ticket;
}

/* After the claim of a ticket that fitted: record and place are what they were. A cut that changed them held the
 * ticket, and was counted before it let go, which the claim has seen (P5). It began after a calm look, so the count
 * has risen since. (Modelled: MUT_SHORT_IN_CUT, MUT_SHORT_ALWAYS.) */
static bool unchanged(const struct rfi_ring *r, const struct view *v)
{
    return v->cuts.calm && atomic_load_explicit(&r->sh->cuts, memory_order_acquire) == v->cuts.n; /* P5 */
}

/* 1: fits, *c filled in; 0: not now; RFI_RING_AGAIN; or a negative errno. */
static int fits(struct rfi_ring *r, const struct view *v, uint64_t ticket, const struct rfi_sizes *sizes,
                struct rfi_claim *c)
{
    struct rfi_record record;
    uint64_t place;
    int rc;

    c->ticket = ticket;
    c->slot = rfi_slot_of(r, ticket);
    rfi_record_look(r, ticket, &c->generation, &record);
    if (record.g != &c->generation)
        c->generation = *record.g;
    if (stopped(&c->generation, ticket) || past_the_end(r, &c->generation, ticket))
        return 0;
    c->end = ticket >= c->generation.end_ticket;
    record.g = &c->generation; /* the place's search looks too */
    rc = rfi_place_ensure(r, &v->cuts, v->freed, ticket, sizes, &place);
    if (rc == 0)
        rc = rfi_footprint(r, &record, ticket, sizes, &c->footprint);
    if (rc != 0)
        return rc;
    c->data_offset = place % r->arena_bytes;
    if (c->end || place + c->footprint <= v->edge)
        return 1;
    rfi_blocked_note(r, ticket, place + c->footprint, v->cuts.n);
    return 0;
}

static int fits_again(struct rfi_ring *r, uint64_t freed, uint64_t edge, const struct rfi_sizes *sizes,
                      struct rfi_claim *c)
{
    struct view v = {.cuts = rfi_cuts_look(r), .freed = freed, .edge = edge};
    return fits(r, &v, c->ticket, sizes, c);
}

/* The claim itself, and everything once more for a ticket that now cannot change. */
static int take(struct rfi_ring *r, unsigned worker, const struct view *v, const struct rfi_sizes *sizes,
                struct rfi_claim *c)
{
    struct rfi_slot_shared *s = &r->slots[c->slot];
    uint64_t word = rfi_free_word(c->ticket);
    int rc;

    if (!atomic_compare_exchange_strong_explicit(&s->word, &word, rfi_word(c->ticket, RFI_CLAIMED, worker),
                                                 memory_order_acq_rel, memory_order_relaxed)) /* P5 */
        return 0;
    /* The mask too: since the look at it, a worker may have claimed, submitted and died. (Modelled.) */
    rc = 0;
    if (atomic_load_explicit(&s->writers, memory_order_acquire) == 0) /* P8 */
        rc = unchanged(r, v) ? 1 : fits_again(r, v->freed, v->edge, sizes, c);
    if (rc != 1) {
        rfi_ring_unclaim(r, worker, c);
        return rc == 0 ? RFI_RING_AGAIN : rc;
    }
    s->data_offset = c->data_offset;
    s->arena = rfi_arena_number(&c->generation);
    s->footprint = c->footprint;
    return 1;
}

static int claim_once(struct rfi_ring *r, unsigned worker, const struct rfi_sizes *sizes, struct rfi_claim *c)
{
    struct view v = {.cuts = rfi_cuts_look(r)};
    int rc = free_edge(r, sizes, &v);

    if (rc != 0)
        return rc;
    const uint64_t end = v.freed + rfi_ring_ahead(r);
    for (uint64_t t = v.freed, slot = rfi_slot_of(r, t); rc == 0 && t < end; t++) {
        struct rfi_slot_shared *s = &r->slots[slot];

        slot = slot + 1 < r->depth ? slot + 1 : 0;
        if (atomic_load_explicit(&s->word, memory_order_acquire) != rfi_free_word(t) || /* P3, P5 */
            atomic_load_explicit(&s->writers, memory_order_acquire) != 0) /* P8 */
            continue;
        rc = fits(r, &v, t, sizes, c);
        if (rc == 0) /* places rise: no later ticket fits either */
            return 0;
        if (rc == 1)
            rc = take(r, worker, &v, sizes, c);
    }
    return rc;
}

int rfi_ring_claim(struct rfi_ring *r, unsigned worker, rfi_footprint_fn fn, void *ctx, struct rfi_claim *ret)
{
    const struct rfi_sizes sizes = {.fn = fn, .ctx = ctx};
    /* AGAIN means that another worker moved the edge or that the parent is cutting. The first is awake and
     * claims; the second rings the bell when it is done. So giving up after a few tries loses nothing. */
    uint32_t places = r->depth;
    for (int tries = 0; tries < 4;) {
        bool place_first = rfi_ring_recycle(r);
        int rc = claim_once(r, worker, &sizes, ret);

        if (rc == 0 && place_first && places-- > 0) /* the place is there now */
            continue;
        if (rc != RFI_RING_AGAIN)
            return rc;
        tries++;
    }
    return 0;
}

void rfi_ring_unclaim(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c)
{
    uint64_t word = rfi_word(c->ticket, RFI_CLAIMED, worker);
    atomic_compare_exchange_strong_explicit(&r->slots[c->slot].word, &word, rfi_free_word(c->ticket),
                                            memory_order_acq_rel, memory_order_relaxed); /* P5: as a FREE word */
}

/* `freed` as recycling would leave it. */
static uint64_t freed_soon(const struct rfi_ring *r)
{
    uint64_t released = atomic_load_explicit(&r->tr->released, memory_order_seq_cst); /* P7 */
    uint64_t t = rfi_ring_freed(r);

    for (uint32_t i = 0; i < r->depth && t < released; i++, t++) {
        struct rfi_slot_shared *s = rfi_slot(r, t);
        uint64_t word = atomic_load_explicit(&s->word, memory_order_acquire);
        if (rfi_word_ticket(word) == t &&
            (!rfi_published(word) || atomic_load_explicit(&s->writers, memory_order_acquire) != 0))
            break;
    }
    return t;
}

/* `ret_ticket` may be NULL: then only the number counts. */
static inline uint32_t claimable(const struct rfi_ring *r, uint64_t *ret_ticket, bool *ret_left)
{
    uint64_t freed = freed_soon(r), end = freed + rfi_ring_ahead(r);
    uint32_t n = 0;

    for (uint64_t t = freed; t < end; t++) {
        uint64_t word = atomic_load_explicit(&rfi_slot(r, t)->word, memory_order_acquire);
        struct rfi_generation g;

        if (rfi_word_ticket(word) == t && rfi_word_state(word) != RFI_FREE) {
            if (ret_ticket && n > 0)
                *ret_left = true;
            continue;
        }
        rfi_ring_generation(r, t, &g);
        if (stopped(&g, t) || past_the_end(r, &g, t))
            continue;
        if (ret_ticket && n == 0)
            *ret_ticket = t;
        n++;
    }
    return n;
}

uint32_t rfi_ring_claimable(const struct rfi_ring *r)
{
    return claimable(r, NULL, NULL);
}

uint32_t rfi_ring_claimable_from(const struct rfi_ring *r, uint64_t *ret_ticket, bool *ret_left)
{
    *ret_left = false;
    return claimable(r, ret_ticket, ret_left);
}
