/* One rank's ring: the protocol of lib/README.md on the words of ring_shared.h. A `struct rfi_ring`
 * is a process-local handle made from a checked layout; several processes have one on the same words.
 *
 * The ring knows tickets, places and footprints; what a batch contains is asked through a callback.
 * It must not know: datasets, readers, processes, who is alive.
 *
 * Ordering pairs (labels stand at both ends in the sources). No bare fences: where a store must be
 * seen before a later load, all four accesses are seq_cst (ThreadSanitizer understands those).
 *   P1 publish    word := READY (release) -> trainer's load of word (acquire): descriptor, arrays and
 *                 sample bytes are visible.
 *   P2 release    released := k+1 -> recycler's load: the trainer's reads of batch k are over before
 *                 anyone writes there again.
 *   P3 recycle    word := FREE(k+depth), freed := k+1 (release) -> claimant's loads (acquire): the edge.
 *   P4 records    words of a generation record and n_generations (release) -> lookups (acquire).
 *   P5 cut        record, place words wiped, then word := FREE, freed unfrozen (release) -> loads of a
 *                 place word, a slot word or freed (acquire): whoever sees any of them sees the record.
 *   P6 sleep      waiting := slot+1, load word | word := READY, load waiting: all seq_cst, so one of the
 *                 two sees the other (no lost wake-up).
 *   P7 bell       sleepers := 1, load released | released := k+1, load sleepers: all seq_cst, likewise;
 *                 a ring clears sleepers before it moves the word.
 *   P9 rewritten  moves odd, records, moves even (release each) -> moves, records, moves (acquire): a reader that
 *                 saw the same even number twice saw whole records.
 *   P8 quiet      writers bit cleared (release) -> claimant's and recycler's load (acquire): the bytes of
 *                 whoever read into the region before have landed. */
#pragma once

#include "ring/ring_shared.h"

#include <stdbool.h>

/* Private copies of what is a function of the records alone. They hold as long as sh->moves stands at the even number
 * that it had before and after the records were read (P9): every change of a record moves it. */
struct rfi_record_memo {
    struct rfi_generation newest;
    uint64_t moves_1; /* moves + 1; 0: empty */
};

struct rfi_footprint_memo {
    uint64_t ticket, footprint; /* footprint 0: empty */
    uint64_t moves;
};

/* One handle is for one thread. Zero it, then fill in the pointers and the copies. */
struct rfi_ring {
    struct rfi_ring_shared *sh;
    struct rfi_slot_shared *slots; /* [depth] */
    struct rfi_generation *generations; /* [generations_cap] */
    struct rfi_trainer_shared *tr;
    struct rfi_bell_shared *bell; /* of the ring's node */
    /* Private copies of what the layout check read once. */
    uint32_t rank, depth, generations_cap;
    uint64_t arena_bytes, align;
    uint64_t lap_bytes; /* part of the arena that places use at first; each growth doubles it */
    uint32_t ahead; /* of sh->ahead at birth; 0: depth */
    bool moving; /* parent: what is free is held for a move that has to wait */
    /* Footprints asked for lately: the chain of places needs each of them more than once. */
    struct rfi_footprint_memo memo[8];
    struct rfi_record_memo record;
};

/* Footprint in bytes (multiple of align, >= align) of ticket t of generation g, t < g->end_ticket; END
 * has footprint `align`. A pure function of (g, ticket): results are kept. Called before the claim too,
 * and then *g may be half of one record and half of another: any values must be safe to pass; what is
 * returned for such a mix, an error included, is thrown away. Returns 0, or a negative errno which ends
 * the claim. */
typedef int (*rfi_footprint_fn)(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret);

/* Parent, at birth: memory is zero; writes the head (from the private copies), FREE words, places, the
 * first generation and, when first->first_ticket is not 0, the trainer's counters. first_place: 0. */
void rfi_ring_init(struct rfi_ring *r, const struct rfi_generation *first);

/* ---- workers ---- */

struct rfi_claim {
    uint64_t ticket;
    uint32_t slot;
    struct rfi_generation generation; /* looked up after the claim */
    uint64_t data_offset; /* physical place in the arena of the generation */
    uint64_t footprint;
    bool end; /* ticket >= generation.end_ticket: publish_end, nothing to read */
};

/* Recycles what the trainer gave back, then claims the oldest claimable ticket whose whole footprint is
 * below the free edge (END needs no room). The slot's data_offset and footprint are filled in too.
 * 1: *ret filled; 0: nothing to claim now; negative: from the callback; -EINVAL: a footprint that is no
 * positive multiple of align; -E2BIG: larger than the arena; -EOVERFLOW: tickets or places used up. */
int rfi_ring_claim(struct rfi_ring *r, unsigned worker, rfi_footprint_fn fn, void *ctx, struct rfi_claim *ret);

/* Gives a claim back unread: CLAIMED(k,w) -> FREE(k). */
void rfi_ring_unclaim(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c);

/* Bit `queue` (below 64) of the slot's writers mask; begin before the first submission, end after the last reap. */
static inline void rfi_ring_writers_begin(struct rfi_ring *r, uint32_t slot, unsigned queue)
{
    atomic_fetch_or_explicit(&r->slots[slot].writers, UINT64_C(1) << queue, memory_order_acq_rel);
}

static inline void rfi_ring_writers_end(struct rfi_ring *r, uint32_t slot, unsigned queue)
{
    atomic_fetch_and_explicit(&r->slots[slot].writers, ~(UINT64_C(1) << queue), memory_order_release); /* P8 */
}

/* Publishes a filled batch / a failed one / the end. The descriptor was written by the caller (`worker`
 * is filled in here). The writers mask must be empty for a filled batch; an error may be published while
 * other reads of the batch are under way (the slot is recycled only after their writers_end). Wakes the trainer if
 * it waits for this slot, then counts samples (or, before, the error) in the ring's head. `code` has 12 bits. */
void rfi_ring_publish(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c);
void rfi_ring_publish_error(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c, unsigned code);
void rfi_ring_publish_end(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c);

/* Batches published and not yet taken (ERROR and END count) / tickets that could be claimed if there were
 * room, after recycling (a look, not a promise). */
uint32_t rfi_ring_ready(const struct rfi_ring *r);
uint32_t rfi_ring_claimable(const struct rfi_ring *r);
/* The same, the first of them (when there is one), and whether others are behind it that are claimed or published
 * already: a dead worker left it. */
uint32_t rfi_ring_claimable_from(const struct rfi_ring *r, uint64_t *ret_ticket, bool *ret_left);

/* ---- trainer ---- */

enum rfi_take { RFI_TAKE_READY, RFI_TAKE_ERROR, RFI_TAKE_END, RFI_TAKE_NOT_YET };

/* Looks at ticket t without waiting. */
enum rfi_take rfi_ring_look(const struct rfi_ring *r, uint64_t ticket);

/* Sleeps until ticket t may have changed, at most timeout_ns (brief spin first, P6). */
void rfi_ring_wait(struct rfi_ring *r, uint64_t ticket, uint64_t timeout_ns);

/* True when ticket t cannot be filled before ticket `held` (not released) is: a worker has found that its
 * footprint does not fit below the edge that `held` holds back. A hint that is never wrong when true. */
bool rfi_ring_blocked_by(const struct rfi_ring *r, uint64_t ticket, uint64_t held);

/* Effective release: every ticket below `released` has been given back. Rings the bell when a worker
 * sleeps (P7) and ready batches are fewer than half the depth, than two, or than `want` asks for. */
void rfi_ring_release(struct rfi_ring *r, uint64_t released);

/* ---- the doorbell ---- */

/* Unconditional doorbell. */
void rfi_bell_ring(struct rfi_bell_shared *b);

/* A worker's sleep (P7): v = prepare(); look at every ring; if there is nothing to do wait(v), which returns on
 * a ring, a time-out or a signal. A worker that dies in between has left the flag set: the next release
 * rings once for nobody. */
uint32_t rfi_bell_prepare(struct rfi_bell_shared *b);
void rfi_bell_wait(struct rfi_bell_shared *b, uint32_t value, uint64_t timeout_ns);

/* ---- parent ---- */

/* The parent's cut. hold() freezes `freed`, takes every FREE slot (CAS to HELD) and returns the cut: the
 * ticket after the last one that could not be taken, and never below an earlier cut (a trainer told of
 * that one has already released everything below it). The caller then fills *g (epoch, batch,
 * end_ticket) and calls append(), which
 *   1. sets arena (the newest record's), first_ticket and first_place: the lap after the place of cut-1 (a batch never wraps, so cut-1
 *      ends before it), or the newest record's when nothing was claimed since that was appended;
 *   2. stores the record (in place of the newest one when that has the same first_ticket, so that
 *      resets without a claim in between cannot push out records that live tickets need);
 *   3. wipes the place word of every held ticket at or above the cut;
 *   4. frees what was held, unfreezes, rings the bell.
 * A helper loads the place word before the record, and looks at the slot again before its CAS: whatever
 * it computed from an old or half-written record is wiped by step 3 or fails its CAS after it.
 * cancel() only does step 4. Between hold and append/cancel no other parent operation. */
uint64_t rfi_ring_hold(struct rfi_ring *r);
void rfi_ring_append(struct rfi_ring *r, uint64_t cut, struct rfi_generation *g);
void rfi_ring_cancel(struct rfi_ring *r);

/* After worker w was reaped and its queue drained: bit `queue` cleared in every slot, then CLAIMED(k,w) ->
 * FREE(k) and the bell rung. Returns how many claims were freed. */
unsigned rfi_ring_reclaim(struct rfi_ring *r, unsigned worker, unsigned queue);

/* The parent's move: a dead worker's reads into this ring's arena do not end (a hung device), so everything not
 * published yet gets a place in another arena, with the same content. One step, which never waits; called again
 * until it says so:
 *   1. `freed` is frozen and every FREE slot held, as for a cut;
 *   2. while somebody who is not in `gone` (a bit a worker) has a claim here, nothing more: 0. A claimant that looks
 *      up record and place has to find both of one arena, and nobody may write into the old arena afterwards;
 *   3. the lowest unpublished ticket k0 becomes the first one in the new arena. Nothing from k0 on was taken: a
 *      trainer takes strictly in order. Claims of the gone are HELD; the records from k0 on are rewritten with the
 *      same content, the new arena and places from the next lap on (`moves` is odd meanwhile); their place words are
 *      wiped; the bits `queues` are cleared in every writers mask: what they still write is in the old arena; then
 *      everything held is freed.
 * Tickets published above k0 keep slot and bytes where they are: a batch is found by its slot, not by its record.
 * 1: done; *ret_until: when `freed` has come there, no batch lies in the old arena any more.
 * hold, append and cancel may come between two steps: they let go, and the next step holds again. */
int rfi_ring_move(struct rfi_ring *r, uint64_t gone, uint64_t queues, uint32_t arena, uint64_t *ret_until);

/* The parent does not want the move any more. */
void rfi_ring_move_cancel(struct rfi_ring *r);

/* The parent's growth: a cut behind which the content is the same, the lap twice as long (at most the arena), and up to
 * `ahead` tickets (at most the depth) are claimed. Memory behind the old lap must be there. False: not now, the
 * newest generation's end or stop lies before what is claimed. */
bool rfi_ring_grow(struct rfi_ring *r, uint32_t ahead);

/* How much of the arena a generation's places use. A record that is half of another may say anything. */
static inline uint64_t rfi_ring_lap_bytes(const struct rfi_ring *r, const struct rfi_generation *g)
{
    uint64_t lap = r->lap_bytes << (g->grown & RFI_GROWN_MOST);
    return lap < r->arena_bytes ? lap : r->arena_bytes;
}

/* How far claims go beyond `freed`. */
static inline uint32_t rfi_ring_ahead(const struct rfi_ring *r)
{
    uint32_t ahead = atomic_load_explicit(&r->sh->ahead, memory_order_relaxed); /* a wish: any value does */
    return ahead < r->depth ? ahead : r->depth;
}

/* `freed` without the frozen bit. */
uint64_t rfi_ring_freed(const struct rfi_ring *r);

/* The generation of ticket t (newest record with first_ticket <= t). Stable for a ticket that is claimed or
 * published. For any other a later cut may change it (sh->cuts counts them; n_generations need not rise), and
 * while that cut is made the record may be half old and half new. */
void rfi_ring_generation(const struct rfi_ring *r, uint64_t ticket, struct rfi_generation *ret);

/* The same for who has no claim: never half of a record that a cut or a move rewrites. False: the parent died in
 * it (or is stopped there), and *ret may be half old and half new. */
bool rfi_ring_generation_settled(const struct rfi_ring *r, uint64_t ticket, struct rfi_generation *ret);

/* Wait histogram buckets (in the trainer's words). */
unsigned rfi_wait_bucket(uint64_t ns);
uint64_t rfi_wait_bucket_ns(unsigned bucket); /* its upper bound */
