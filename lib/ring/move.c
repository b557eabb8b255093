/* A ring's way out of an arena into which a read may land that nobody can end. ring.h has the steps; here is what
 * each of them may rely on: nobody but the parent changes a HELD slot, and with `freed` frozen nothing outside the
 * window [freed, freed + depth) can be claimed. */
#include "ring/ring_words.h"

#include <assert.h>

/* What the window looks like once everything free is held. */
struct window {
    uint64_t freed, end;
    uint64_t first; /* lowest ticket not published; `end`: there is none */
    uint64_t until; /* above the highest published one that lies in the arena to be left; `freed`: there is none */
    bool busy; /* the living have claims, or gave one back just now */
};

static uint64_t word_of(const struct rfi_ring *r, uint64_t ticket)
{
    return atomic_load_explicit(&rfi_slot(r, ticket)->word, memory_order_acquire);
}

static bool is_gone(uint64_t gone, uint64_t word)
{
    unsigned w = rfi_word_worker(word);
    return w < 64 && (gone >> w & 1);
}

static void look(struct rfi_ring *r, uint64_t gone, struct window *ret)
{
    struct rfi_generation newest;

    rfi_generation_newest(r, &newest);
    *ret = (struct window){.freed = rfi_ring_freed(r)};
    ret->until = ret->freed;
    ret->first = ret->end = ret->freed + r->depth;
    for (uint64_t t = ret->freed; t < ret->end; t++) {
        uint64_t word;
        rfi_hold_one(r, t);
        word = word_of(r, t);
        if (rfi_word_ticket(word) != t) /* recycled half-way: it was published, and is given back */
            continue;
        if (rfi_published(word)) {
            if (rfi_slot(r, t)->arena == rfi_arena_number(&newest))
                ret->until = t + 1;
            continue;
        }
        if (ret->first == ret->end)
            ret->first = t;
        ret->busy |= rfi_word_state(word) == RFI_CLAIMED ? !is_gone(gone, word) : rfi_word_state(word) != RFI_HELD;
    }
}

static void take_over(struct rfi_ring *r, const struct window *w)
{
    for (uint64_t t = w->first; t < w->end; t++) {
        uint64_t word = word_of(r, t);
        if (rfi_word_ticket(word) == t && rfi_word_state(word) == RFI_CLAIMED)
            atomic_store_explicit(&rfi_slot(r, t)->word, rfi_word(t, RFI_HELD, RFI_WORKER_NONE), memory_order_release);
    }
}

/* The record at `index`, counted from the first of all. */
static struct rfi_generation *record(struct rfi_ring *r, uint64_t index)
{
    return &r->generations[index & (r->generations_cap - 1)];
}

/* The records of tickets from k0 on, in place: first tickets go on rising and stay inside the window, so that there
 * is room for them as before. Each of those above k0 begins as many laps further as tickets lie in between: more
 * than these can take. */
static void rewrite(struct rfi_ring *r, uint64_t k0, uint32_t arena)
{
    uint64_t n = atomic_load_explicit(&r->sh->n_generations, memory_order_relaxed), at = n; /* parent's own */
    struct rfi_generation g;
    uint64_t place;

    rfi_ring_generation(r, k0, &g);
    place = g.first_ticket == k0 ? g.first_place : rfi_cut_first_place(r, k0);
    g.batch += k0 - g.first_ticket;
    g.first_ticket = k0;
    while (at > 0 && n - at < r->generations_cap && record(r, at - 1)->first_ticket >= k0)
        at--;
    if (at == n || record(r, at)->first_ticket != k0) /* k0 had none of its own: the others make room */
        for (uint64_t i = n++; i > at; i--)
            rfi_generation_store(record(r, i), record(r, i - 1));
    for (uint64_t i = at; i < n; i++) {
        if (i > at)
            g = *record(r, i);
        g.first_place = place + (g.first_ticket - k0) * r->arena_bytes;
        g.arena = rfi_arena_word(arena, k0);
        rfi_generation_store(record(r, i), &g);
    }
    atomic_store_explicit(&r->sh->n_generations, n, memory_order_release); /* P4 */
}

static void forget_writers(struct rfi_ring *r, uint64_t queues)
{
    for (uint32_t i = 0; i < r->depth; i++)
        atomic_fetch_and_explicit(&r->slots[i].writers, ~queues, memory_order_release);
}

int rfi_ring_move(struct rfi_ring *r, uint64_t gone, uint64_t queues, uint32_t arena, uint64_t *ret_until)
{
    struct window w;

    atomic_fetch_or_explicit(&r->sh->freed, RFI_FREED_FROZEN, memory_order_acq_rel); /* P3 */
    r->moving = true;
    look(r, gone, &w);
    if (w.busy)
        return 0;
    take_over(r, &w);
    atomic_fetch_add_explicit(&r->sh->moves, 1, memory_order_release); /* P9: odd */
    rewrite(r, w.first, arena);
    atomic_fetch_add_explicit(&r->sh->moves, 1, memory_order_release); /* P9 */
    forget_writers(r, queues);
    rfi_cut_wipe(r, w.first);
    rfi_cut_let_go(r);
    *ret_until = w.until;
    return 1;
}

void rfi_ring_move_cancel(struct rfi_ring *r)
{
    if (r->moving)
        rfi_cut_let_go(r);
}
