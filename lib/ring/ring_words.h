/* Where the words of one ticket lie, and how a generation record is read. Private to the ring layer. */
#pragma once

#include "base/bytes.h"
#include "ring/ring.h"

static inline uint32_t rfi_slot_of(const struct rfi_ring *r, uint64_t ticket)
{
    return (uint32_t)(ticket % r->depth);
}

static inline struct rfi_slot_shared *rfi_slot(const struct rfi_ring *r, uint64_t ticket)
{
    return &r->slots[rfi_slot_of(r, ticket)];
}

static inline uint64_t rfi_free_word(uint64_t ticket)
{
    return rfi_word(ticket, RFI_FREE, RFI_WORKER_NONE);
}

/* Where the place of a ticket is: one division for all that is asked of it. */
struct rfi_place_at {
    struct rfi_slot_shared *slot;
    _Atomic uint64_t *word;
    uint64_t tag;
};

static inline struct rfi_place_at rfi_place_at(const struct rfi_ring *r, uint64_t ticket)
{
    uint64_t lap = ticket / r->depth;
    struct rfi_slot_shared *slot = &r->slots[ticket - lap * r->depth];
    return (struct rfi_place_at){.slot = slot, .word = &slot->place[lap & 1], .tag = lap & RFI_PLACE_TAG};
}

/* True for the states that the trainer can give back. */
static inline bool rfi_published(uint64_t word)
{
    enum rfi_slot_state s = rfi_word_state(word);
    return s == RFI_READY || s == RFI_ERROR || s == RFI_ENDED;
}

/* The newest record. */
void rfi_generation_newest(const struct rfi_ring *r, struct rfi_generation *ret);
void rfi_generation_store(struct rfi_generation *to, const struct rfi_generation *g);

/* Where footprints come from. */
struct rfi_sizes {
    rfi_footprint_fn fn;
    void *ctx;
};

/* A record as it was looked up: *g is good until the next look, and `moves` is what sh->moves stood at, or odd when the
 * record may be half of one and half of another. */
struct rfi_record {
    const struct rfi_generation *g;
    uint64_t moves;
};

void rfi_record_load(struct rfi_ring *r, uint64_t ticket, struct rfi_generation *space, struct rfi_record *ret);

/* The record of ticket t, as rfi_ring_generation: the load of `moves` stands for those of the record's words, because
 * whoever sees a change of a record sees `moves` changed (P9). Copied to *space when it is not the newest. */
static inline void rfi_record_look(struct rfi_ring *r, uint64_t ticket, struct rfi_generation *space,
                                   struct rfi_record *ret)
{
    uint64_t moves = atomic_load_explicit(&r->sh->moves, memory_order_acquire); /* P9 */

    if (moves + 1 == r->record.moves_1 && ticket >= r->record.newest.first_ticket)
        *ret = (struct rfi_record){.g = &r->record.newest, .moves = moves};
    else
        rfi_record_load(r, ticket, space, ret);
}

static inline struct rfi_footprint_memo *rfi_footprint_memo(struct rfi_ring *r, uint64_t ticket)
{
    return &r->memo[ticket % (sizeof(r->memo) / sizeof(r->memo[0]))];
}

int rfi_footprint_ask(struct rfi_ring *r, const struct rfi_record *record, uint64_t ticket,
                      const struct rfi_sizes *sizes, uint64_t *ret);

/* Footprint of ticket t of the record, END included; 0, or a negative errno. */
static inline int rfi_footprint(struct rfi_ring *r, const struct rfi_record *record, uint64_t ticket,
                                const struct rfi_sizes *sizes, uint64_t *ret)
{
    const struct rfi_footprint_memo *m = rfi_footprint_memo(r, ticket);

    if (m->ticket != ticket || m->moves != record->moves || m->footprint == 0)
        return rfi_footprint_ask(r, record, ticket, sizes, ret);
    *ret = m->footprint;
    return 0;
}

/* Positive results of this layer. */
enum { RFI_RING_AGAIN = 2 }; /* what was looked at has moved on or is being cut */

static inline bool rfi_place_is_set(uint64_t word, uint64_t tag)
{
    return (word & (RFI_PLACE_WIPED | RFI_PLACE_TAG)) == tag;
}

/* True when the place of `ticket` is set; its virtual offset. */
static inline bool rfi_place_get(const struct rfi_ring *r, uint64_t ticket, uint64_t *ret)
{
    struct rfi_place_at at = rfi_place_at(r, ticket);
    uint64_t word = atomic_load_explicit(at.word, memory_order_acquire); /* P5 */
    *ret = word & ~(uint64_t)RFI_PLACE_TAG;
    return rfi_place_is_set(word, at.tag);
}

/* The number of cuts before record and place are looked up. */
struct rfi_cuts {
    uint64_t n;
    bool calm; /* none was under way: all places that those wipe were wiped */
};

static inline struct rfi_cuts rfi_cuts_look(const struct rfi_ring *r)
{
    struct rfi_cuts c = {.n = atomic_load_explicit(&r->sh->cuts, memory_order_acquire)}; /* P5 */
    /* After the count: who sees a cut counted sees it frozen here, or over and everything wiped. */
    c.calm = !(atomic_load_explicit(&r->sh->freed, memory_order_acquire) & RFI_FREED_FROZEN); /* P5 */
    return c;
}

/* Sets the place of `ticket` if it is unset, and all unset ones below it down to the nearest set one. `low`
 * is a value of freed: no place below low - 1 is asked for. 0, RFI_RING_AGAIN or a negative errno. */
int rfi_place_find(struct rfi_ring *r, const struct rfi_cuts *cuts, uint64_t low, uint64_t ticket,
                   const struct rfi_sizes *sizes, uint64_t *ret);

static inline int rfi_place_ensure(struct rfi_ring *r, const struct rfi_cuts *cuts, uint64_t low, uint64_t ticket,
                                   const struct rfi_sizes *sizes, uint64_t *ret)
{
    return rfi_place_get(r, ticket, ret) ? 0 : rfi_place_find(r, cuts, low, ticket, sizes, ret);
}

/* Where a batch of `footprint` bytes begins whose predecessor ends at `end`, in laps of `lap` bytes that are arena_bytes
 * apart. */
uint64_t rfi_place_after(uint64_t end, uint64_t footprint, uint64_t lap, uint64_t arena_bytes);

/* The parent's steps of a cut, for a move too. */
bool rfi_hold_one(struct rfi_ring *r, uint64_t ticket); /* false: claimed or published, or already recycled */
uint64_t rfi_cut_first_place(const struct rfi_ring *r, uint64_t cut);
void rfi_cut_append(struct rfi_ring *r, uint64_t cut, struct rfi_generation *g); /* arena and grown as they are in *g */
void rfi_cut_wipe(struct rfi_ring *r, uint64_t cut);
void rfi_cut_let_go(struct rfi_ring *r);

/* Turns what the trainer gave back into FREE slots, at most a whole lap. True: the place of `freed` has to be
 * computed before it can go on. */
bool rfi_ring_recycle(struct rfi_ring *r);

/* A claimant found no room for `ticket`, whose footprint ends at virtual offset `end`; `cuts` as it was
 * before the ticket's record and place were looked up. */
void rfi_blocked_note(struct rfi_ring *r, uint64_t ticket, uint64_t end, uint64_t cuts);
