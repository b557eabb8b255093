/* The parent's side: birth, cuts and the claims of the dead.
 *
 * Why no old content gets past a cut: while freed is frozen, claims can only be made in the window
 * [f, f + depth). hold() tries every ticket in it. What it took is HELD; what it could not take is below
 * the cut, and what is given back or recycled later stays below it, or beyond the window until freed moves
 * again, which happens after the record stands (P5). */
#include "base/failpoint.h"
#include "base/futex.h"
#include "ring/ring_words.h"

#include <assert.h>

void rfi_ring_init(struct rfi_ring *r, const struct rfi_generation *first)
{
    struct rfi_ring_shared *sh = r->sh;
    struct rfi_generation g = *first;

    assert(r->depth > 0 && r->generations_cap >= r->depth + 2);
    assert((r->generations_cap & (r->generations_cap - 1)) == 0);
    assert(r->align > RFI_PLACE_TAG && r->arena_bytes > 0 && r->arena_bytes % r->align == 0);
    sh->rank = r->rank;
    sh->depth = r->depth;
    sh->arena_bytes = r->arena_bytes;
    r->lap_bytes = r->lap_bytes ? r->lap_bytes : r->arena_bytes;
    assert(r->lap_bytes <= r->arena_bytes && r->lap_bytes % r->align == 0);
    sh->lap_bytes = r->lap_bytes;
    atomic_store_explicit(&sh->ahead, r->ahead ? r->ahead : r->depth, memory_order_relaxed);
    sh->align = r->align;
    sh->generations_cap = r->generations_cap;
    g.first_place = 0;
    for (uint64_t t = g.first_ticket; t < g.first_ticket + r->depth; t++) {
        struct rfi_slot_shared *s = rfi_slot(r, t);
        atomic_store_explicit(&s->place[0], RFI_PLACE_WIPED, memory_order_relaxed);
        atomic_store_explicit(&s->place[1], RFI_PLACE_WIPED, memory_order_relaxed);
        atomic_store_explicit(&s->word, rfi_free_word(t), memory_order_relaxed);
    }
    if (g.first_ticket != 0) {
        atomic_store_explicit(&r->tr->released, g.first_ticket, memory_order_relaxed);
        atomic_store_explicit(&r->tr->taken, g.first_ticket, memory_order_relaxed);
    }
    rfi_generation_store(&r->generations[0], &g);
    atomic_store_explicit(&sh->n_generations, 1, memory_order_release); /* P4 */
    atomic_store_explicit(&sh->freed, g.first_ticket, memory_order_release); /* P3 */
}

bool rfi_hold_one(struct rfi_ring *r, uint64_t ticket)
{
    uint64_t word = rfi_free_word(ticket), held = rfi_word(ticket, RFI_HELD, RFI_WORKER_NONE);
    return atomic_compare_exchange_strong_explicit(&rfi_slot(r, ticket)->word, &word, held, memory_order_acq_rel,
                                                   memory_order_relaxed) ||
           word == held; /* by a move that waits */
}

uint64_t rfi_ring_hold(struct rfi_ring *r)
{
    uint64_t freed = atomic_fetch_or_explicit(&r->sh->freed, RFI_FREED_FROZEN, memory_order_acq_rel); /* P3 */
    struct rfi_generation newest;
    uint64_t cut;

    assert(r->moving || !(freed & RFI_FREED_FROZEN));
    freed &= ~RFI_FREED_FROZEN;
    rfi_generation_newest(r, &newest);
    cut = newest.first_ticket > freed ? newest.first_ticket : freed;
    for (uint64_t t = freed; t < freed + r->depth; t++)
        if (!rfi_hold_one(r, t) && t >= cut)
            cut = t + 1;
    return cut;
}

/* The lap after the batch before the cut. That batch may have no place yet: its claimant died, or is about
 * to look, after an earlier cut wiped it. Each unset ticket reaches at most one lap further than the one
 * below it, which bounds where it will be. */
uint64_t rfi_cut_first_place(const struct rfi_ring *r, uint64_t cut)
{
    uint64_t laps = 1;

    for (uint64_t t = cut - 1;; t--, laps++) {
        struct rfi_generation g;
        uint64_t place;

        rfi_ring_generation(r, t, &g);
        if (!rfi_place_get(r, t, &place)) {
            if (g.first_ticket != t)
                continue;
            place = g.first_place;
        }
        return (place / r->arena_bytes + laps) * r->arena_bytes;
    }
}

/* Only here does a place become unset: what helpers computed from the old record must go. */
void rfi_cut_wipe(struct rfi_ring *r, uint64_t cut)
{
    uint64_t number = atomic_fetch_add_explicit(&r->sh->cuts, 1, memory_order_release) + 1; /* P5 */
    uint64_t freed = rfi_ring_freed(r);

    for (uint64_t t = cut; t < freed + r->depth; t++) {
        atomic_exchange_explicit(rfi_place_at(r, t).word, RFI_PLACE_WIPED | number << 9, memory_order_acq_rel); /* P5 */
        atomic_store_explicit(&rfi_slot(r, t)->blocked, 0, memory_order_relaxed); /* of no use now */
    }
}

void rfi_cut_let_go(struct rfi_ring *r)
{
    uint64_t freed = rfi_ring_freed(r);

    for (uint64_t t = freed; t < freed + r->depth; t++) {
        uint64_t held = rfi_word(t, RFI_HELD, RFI_WORKER_NONE);
        atomic_compare_exchange_strong_explicit(&rfi_slot(r, t)->word, &held, rfi_free_word(t), memory_order_acq_rel,
                                                memory_order_relaxed); /* P5 */
    }
    atomic_fetch_and_explicit(&r->sh->freed, ~RFI_FREED_FROZEN, memory_order_acq_rel); /* P5 */
    r->moving = false;
    rfi_bell_ring(r->bell);
}

void rfi_cut_append(struct rfi_ring *r, uint64_t cut, struct rfi_generation *g)
{
    uint64_t n = atomic_load_explicit(&r->sh->n_generations, memory_order_relaxed); /* parent's own */
    struct rfi_generation newest;
    bool replaces;

    RFI_FAIL_POINT("cut");
    rfi_generation_newest(r, &newest);
    replaces = newest.first_ticket == cut;
    g->first_ticket = cut;
    g->first_place = replaces ? newest.first_place : rfi_cut_first_place(r, cut);
    if (replaces)
        n--;
    atomic_fetch_add_explicit(&r->sh->moves, 1, memory_order_release); /* P9: odd */
    rfi_generation_store(&r->generations[n & (r->generations_cap - 1)], g);
    atomic_store_explicit(&r->sh->n_generations, n + 1, memory_order_release); /* P4 */
    atomic_fetch_add_explicit(&r->sh->moves, 1, memory_order_release); /* P9 */
    rfi_cut_wipe(r, cut);
    rfi_cut_let_go(r);
}

void rfi_ring_append(struct rfi_ring *r, uint64_t cut, struct rfi_generation *g)
{
    struct rfi_generation newest;

    rfi_generation_newest(r, &newest);
    g->arena = newest.arena;
    g->grown = newest.grown;
    rfi_cut_append(r, cut, g);
}

bool rfi_ring_grow(struct rfi_ring *r, uint32_t ahead)
{
    struct rfi_generation g;
    uint64_t cut = rfi_ring_hold(r);

    rfi_generation_newest(r, &g);
    if (cut >= g.end_ticket || (g.stop_ticket && cut >= g.stop_ticket)) {
        rfi_ring_cancel(r);
        return false;
    }
    g.batch += cut - g.first_ticket;
    g.grown = (uint32_t)rfi_min(g.grown + 1, RFI_GROWN_MOST);
    atomic_store_explicit(&r->sh->ahead, ahead, memory_order_relaxed);
    rfi_cut_append(r, cut, &g);
    return true;
}

void rfi_ring_cancel(struct rfi_ring *r)
{
    rfi_cut_let_go(r);
}

/* A worker may have died between publishing and waking. Garbage from a trainer wakes nobody. */
static void wake_trainer(struct rfi_ring *r)
{
    uint32_t slot = atomic_load_explicit(&r->tr->waiting, memory_order_seq_cst) - 1; /* P6 */
    if (slot < r->depth)
        rfi_futex_wake_all(&r->slots[slot].word);
}

unsigned rfi_ring_reclaim(struct rfi_ring *r, unsigned worker, unsigned queue)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < r->depth; i++) /* the masks first: a FREE slot must be quiet */
        rfi_ring_writers_end(r, i, queue);
    for (uint32_t i = 0; i < r->depth; i++) {
        struct rfi_slot_shared *s = &r->slots[i];
        uint64_t word = atomic_load_explicit(&s->word, memory_order_acquire);

        if (rfi_word_state(word) != RFI_CLAIMED || rfi_word_worker(word) != (worker & RFI_WORKER_NONE))
            continue;
        atomic_store_explicit(&s->word, rfi_free_word(rfi_word_ticket(word)), memory_order_release); /* P8 */
        n++;
    }
    rfi_bell_ring(r->bell);
    wake_trainer(r);
    return n;
}
