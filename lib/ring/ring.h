/* One rank's ring: the protocol of DESIGN section 5 on the words of ring_shared.h. A `struct rfi_ring`
 * is a process-local handle made from a checked layout; several processes have one on the same words.
 *
 * The ring knows tickets, places and footprints; what a batch contains is asked through a callback.
 * It must not know: datasets, readers, processes, who is alive.
 *
 * Ordering pairs (labels stand at both ends in ring.c):
 *   P1 publish    word := READY (release)          -> trainer's load of word (acquire): descriptor
 *                 arrays and sample bytes are visible.
 *   P2 release    released := k+1 (release)        -> recycler's load (acquire): the trainer's reads of
 *                 batch k are over before anyone writes there again.
 *   P3 recycle    word := FREE(k+depth), freed := k+1 (release) -> claimant's loads (acquire): the edge.
 *   P4 generation record stored, n_generations (release) -> load after the claim (acquire).
 *   P5 unhold     word := FREE (release)           -> claim (acquire): sees the cut's generation.
 *   P6 trainer sleep: waiting := 1, seq_cst fence, load word | publisher: word := READY, seq_cst fence,
 *                 load waiting: one of the two sees the other (no lost wake-up).
 *   P7 bell: sleepers++, seq_cst, look at rings | trainer: released, seq_cst, load sleepers. */
#pragma once

#include "ring/ring_shared.h"

#include <stdbool.h>

struct rfi_ring {
    struct rfi_ring_shared *sh;
    struct rfi_slot_shared *slots; /* [depth] */
    struct rfi_generation *generations; /* [generations_cap] */
    struct rfi_trainer_shared *tr;
    struct rfi_bell_shared *bell; /* of the ring's node */
    /* Private copies of what the layout check read once. */
    uint32_t rank, depth, generations_cap;
    uint64_t arena_bytes, align;
};

/* Footprint in bytes (multiple of align, >= align) of ticket t of generation g, t < g->end_ticket; END
 * has footprint `align`. Returns 0, or a negative errno which ends the claim. */
typedef int (*rfi_footprint_fn)(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret);

/* Parent, at birth: memory is zero; writes heads, FREE(0..depth-1), places, the first generation. */
void rfi_ring_init(struct rfi_ring *r, const struct rfi_generation *first);

/* ---- workers ---- */

struct rfi_claim {
    uint64_t ticket;
    uint32_t slot;
    struct rfi_generation generation; /* looked up after the claim */
    uint64_t data_offset; /* physical place in the arena */
    uint64_t footprint;
    bool end; /* ticket == generation.end_ticket */
};

/* Recycles what the trainer gave back, then claims the oldest claimable ticket whose whole footprint is
 * below the free edge. 1: *ret filled; 0: nothing to claim now; negative: from the callback. */
int rfi_ring_claim(struct rfi_ring *r, unsigned worker, rfi_footprint_fn fn, void *ctx, struct rfi_claim *ret);

/* Gives a claim back unread: CLAIMED(k,w) -> FREE(k). */
void rfi_ring_unclaim(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c);

/* Bit `queue` of the slot's writers mask; begin before the first submission, end after the last reap. */
void rfi_ring_writers_begin(struct rfi_ring *r, uint32_t slot, unsigned queue);
void rfi_ring_writers_end(struct rfi_ring *r, uint32_t slot, unsigned queue);

/* Publishes a filled batch / a failed one / the end. The descriptor was written by the caller and the
 * slot's writers mask must not have the caller's bit. Wakes the trainer if it waits for it. */
void rfi_ring_publish(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c);
void rfi_ring_publish_error(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c, unsigned code);
void rfi_ring_publish_end(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c);

/* Batches published and not yet taken / tickets that could be claimed if there were room (a look, not
 * a promise). */
uint32_t rfi_ring_ready(const struct rfi_ring *r);
uint32_t rfi_ring_claimable(const struct rfi_ring *r);

/* ---- trainer ---- */

enum rfi_take { RFI_TAKE_READY, RFI_TAKE_ERROR, RFI_TAKE_END, RFI_TAKE_NOT_YET };

/* Looks at ticket t without waiting. */
enum rfi_take rfi_ring_look(const struct rfi_ring *r, uint64_t ticket);

/* Sleeps until ticket t may have changed, at most timeout_ns (brief spin first, P6). */
void rfi_ring_wait(struct rfi_ring *r, uint64_t ticket, uint64_t timeout_ns);

/* Effective release: every ticket below `released` has been given back. Rings the bell when ready
 * batches fall below half the depth (or below `want`) and a worker sleeps (P7). */
void rfi_ring_release(struct rfi_ring *r, uint64_t released);

/* Unconditional doorbell. */
void rfi_bell_ring(struct rfi_bell_shared *b);

/* ---- parent ---- */

/* The parent's cut. hold() takes every FREE slot (CAS to HELD) and returns the cut: the ticket after
 * the last one that could not be taken. The caller then fills *g (first_ticket = cut; epoch, batch,
 * end_ticket) and calls append(), which
 *   1. sets first_place: the lap after the place of cut-1 (a batch never wraps, so cut-1 ends before it);
 *   2. stores the record (in place of the newest one when that has the same first_ticket, so that
 *      resets without a claim in between cannot push out records that live tickets need);
 *   3. moves the place word of every held ticket at or above the cut to a value never used before,
 *      tagged one lap behind ("not set"): above every place word of the ring;
 *   4. frees what was held.
 * A helper loads the place word before the record: then whatever it computed from an old or half-written
 * record fails its CAS after step 3, or is wiped by step 3.
 * cancel() only frees. Between hold and append/cancel no other parent operation. */
uint64_t rfi_ring_hold(struct rfi_ring *r);
void rfi_ring_append(struct rfi_ring *r, uint64_t cut, struct rfi_generation *g);
void rfi_ring_cancel(struct rfi_ring *r);

/* After worker w was reaped and its queue drained: CLAIMED(k,w) -> FREE(k), bit `queue` cleared in every
 * slot. Returns how many claims were freed. */
unsigned rfi_ring_reclaim(struct rfi_ring *r, unsigned worker, unsigned queue);

/* The generation of ticket t (newest record with first_ticket <= t). */
void rfi_ring_generation(const struct rfi_ring *r, uint64_t ticket, struct rfi_generation *ret);

/* Wait histogram buckets (in the trainer's words). */
unsigned rfi_wait_bucket(uint64_t ns);
uint64_t rfi_wait_bucket_ns(unsigned bucket); /* its upper bound */
