/* Structs of one rank's ring as they lie in the control object. Fixed sizes, offsets instead of
 * pointers, no bit-fields. Three kinds of memory, on pages of their own:
 *   - worker words (ring_shared, slots, generations, descriptors): written by workers and parent,
 *     mapped read-only by trainers;
 *   - trainer words (trainer_shared): written by the rank's trainer only;
 *   - the bell (bell_shared): written by every trainer and by the parent.
 *
 * Slot word: ticket 48 bits << 16 | state 4 bits << 12 | worker 12 bits (the code for ERROR).
 *
 *   FREE(k) --claim: worker--> CLAIMED(k,w) --publish: w--> READY(k) | ERROR(k,code) | END(k)
 *      ^  \--hold: parent--> HELD(k) --unhold: parent--> FREE(k)
 *      |                      CLAIMED(k,w) --worker found no room after a cut: w--> FREE(k)
 *      |                      CLAIMED(k,w) --w is dead and its reads are drained: parent--> FREE(k)
 *      |                      CLAIMED(k,w) --w is dead, its reads do not end, the ring moves: parent--> HELD(k)
 *      \--recycle: any worker or parent, k == freed < released and writers == 0-- READY|ERROR|END(k)
 *         becomes FREE(k + depth), then freed becomes k + 1 (a crash in between: the next one helps)
 *
 * freed: every ticket below has been recycled; only tickets in [freed, freed + depth) can be claimed.
 * Bit 63 is set by the parent for the length of a cut (hold to append or cancel): nobody can move
 * `freed` then, so no slot that is recycled behind the parent's back becomes claimable before the new
 * generation stands. Only the parent sets and clears the bit; a cut is short, and a dead parent takes
 * the segment with it.
 *
 * Place words: a slot has two, for its even and its odd laps (lap = ticket / depth), so that setting or
 * wiping the place of ticket t never destroys the place of t - depth: that is the neighbour below of
 * t - depth + 1, which may be unset still. A word is either
 *   set:    virtual arena offset (a multiple of A >= 512, below 2^63) | low 9 bits: lap mod 512
 *   wiped:  bit 63 | number of the cut << 9: no place for anyone, and a value never used before.
 * It is unset for ticket t while it is wiped or has another lap's tag, and is set only by CAS from the
 * value seen while unset: whoever dies, the next one computes the same value. Within a generation
 * offsets rise with the ticket, and true places rise for ever, so no value comes twice. Physical offset
 * = virtual mod arena_bytes; a batch never wraps, nor does it reach beyond the lap, which may be a part of the arena:
 * what lies behind is skipped. At birth: wiped, number 0.
 *
 * Writers mask: bit i while io_uring i may have a read into this slot's region. Set by the claimant
 * before its first submission, cleared by it when its last completion was reaped, or by the parent
 * after the drain. */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

enum rfi_slot_state {
    RFI_FREE = 0,
    RFI_CLAIMED = 1,
    RFI_READY = 2,
    RFI_ERROR = 3,
    RFI_ENDED = 4,
    RFI_HELD = 5,
};

enum { RFI_GROWN_MOST = 15 }; /* a mask */

#define RFI_WORKER_NONE 0xfffu /* in FREE, HELD and END words */
#define RFI_PLACE_TAG 511u
#define RFI_PLACE_WIPED (UINT64_C(1) << 63)
#define RFI_FREED_FROZEN (UINT64_C(1) << 63)
/* Tickets at or above are never claimed: ticket + depth has to fit 48 bits. 8 years at a million
 * batches a second. */
#define RFI_TICKET_LIMIT ((UINT64_C(1) << 48) - (UINT64_C(1) << 32))

static inline uint64_t rfi_word(uint64_t ticket, enum rfi_slot_state state, unsigned worker)
{
    return ticket << 16 | (uint64_t)state << 12 | (worker & 0xfffu);
}

static inline uint64_t rfi_word_ticket(uint64_t word)
{
    return word >> 16;
}

static inline enum rfi_slot_state rfi_word_state(uint64_t word)
{
    return (enum rfi_slot_state)(word >> 12 & 15u);
}

static inline unsigned rfi_word_worker(uint64_t word)
{
    return (unsigned)(word & 0xfffu);
}

/* Maps tickets to content: ticket t >= first_ticket is batch (batch + t - first_ticket) counted on
 * through the epochs, until end_ticket, which is END. Written by the parent only. */
struct rfi_generation { /* in the segment its words are copied one by one, atomically (P4) */
    uint64_t first_ticket;
    uint64_t epoch, batch; /* of first_ticket */
    uint64_t end_ticket; /* END, and so is every later ticket of this generation; UINT64_MAX: never */
    uint64_t first_place; /* virtual offset of first_ticket, a multiple of arena_bytes */
    uint32_t log_length; /* how many entries of the rebalance log count for it */
    uint32_t grown; /* how often the lap of its places was doubled, RFI_GROWN_MOST at most */
    uint64_t stop_ticket; /* this ticket and later ones wait for the next generation; 0: none does */
    uint64_t arena; /* where its places lie: number of the arena | first ticket of the ring in it << 16 */
};
_Static_assert(sizeof(struct rfi_generation) == 64, "generation record");

static inline uint64_t rfi_arena_word(uint64_t number, uint64_t from_ticket)
{
    return from_ticket << 16 | (number & 0xffffu);
}

static inline uint32_t rfi_arena_number(const struct rfi_generation *g)
{
    return (uint32_t)(g->arena & 0xffffu);
}

/* Since this ticket the ring has been in that arena: older batches take no room there. */
static inline uint64_t rfi_arena_from(const struct rfi_generation *g)
{
    return g->arena >> 16;
}

/* 256 bytes a slot: protocol words on the first line pair, the descriptor behind. */
struct rfi_slot_shared {
    alignas(128) _Atomic uint64_t word;
    _Atomic uint64_t place[2]; /* by the parity of the lap */
    _Atomic uint64_t writers;
    _Atomic uint64_t blocked; /* hint: end of a footprint that found no room | (lap + cuts) mod 512 */
    uint64_t pad0[11];
    /* Descriptor: written by the claimant between claim and publish, read by the trainer after. */
    uint64_t epoch, batch;
    uint64_t data_offset; /* physical, in the arena */
    uint64_t footprint;
    uint32_t n_samples;
    uint32_t last; /* of its epoch */
    uint64_t payload_bytes; /* sum of lengths */
    uint64_t claimed_ns, published_ns;
    uint32_t worker, remote; /* who published; remote: from another node than the ring's */
    /* ERROR only: what could not be read. */
    int32_t error; /* positive errno */
    uint32_t error_file;
    uint64_t error_offset, error_sample;
    uint64_t arena; /* number of the arena that data_offset counts in */
    uint32_t skipped; /* samples left out of the batch by the error policy */
    uint32_t resident; /* offsets lead into the resident cache: the region holds nothing */
    uint64_t pad1[2];
};
_Static_assert(sizeof(struct rfi_slot_shared) == 256, "slot");

struct rfi_ring_shared {
    /* Read-mostly, fixed at birth. */
    alignas(128) uint32_t rank; /* global */
    uint32_t depth; /* slots */
    uint64_t arena_bytes;
    uint64_t align; /* A */
    uint32_t node; /* index of the NUMA node of its arena */
    uint32_t generations_cap; /* power of two >= depth + 2 */
    uint64_t lap_bytes; /* of the arena, used at first */
    uint64_t pad0[11];
    /* Worker words. */
    alignas(128) _Atomic uint64_t freed; /* see above: ticket | RFI_FREED_FROZEN */
    _Atomic uint64_t n_generations; /* appended so far; record i is at i mod generations_cap */
    _Atomic uint64_t local_samples, remote_samples; /* published */
    _Atomic uint64_t errors;
    _Atomic uint64_t cuts; /* made so far; written by the parent only */
    _Atomic uint64_t moves; /* cuts and moves to a fresh arena: 2 for each, odd while the parent writes records */
    _Atomic uint32_t ahead; /* tickets beyond `freed` that are claimed at most: a wish, never above depth */
    uint32_t pad1;
    uint64_t pad2[8];
};
_Static_assert(sizeof(struct rfi_ring_shared) == 256, "ring head");

enum { RFI_WAIT_BUCKETS = 256 };

/* One page or more a rank. */
struct rfi_trainer_shared {
    alignas(128) _Atomic uint64_t released; /* every ticket below has been given back */
    _Atomic uint64_t taken; /* next ticket that `next` will take */
    _Atomic uint32_t waiting; /* slot + 1 on whose word the trainer sleeps, or is about to; 0: none */
    uint32_t pad0;
    _Atomic uint64_t want; /* prefetch hint: tickets below are wanted now */
    uint64_t pad1[12];
    alignas(128) _Atomic uint64_t batches, samples, bytes; /* released */
    _Atomic uint64_t hits, misses; /* samples taken that were / were not ready when asked for */
    _Atomic uint64_t wait_ns, wait_max_ns;
    _Atomic uint64_t heartbeat_ns; /* last next/release */
    _Atomic uint64_t started_ns; /* first next */
    _Atomic uint64_t errors;
    _Atomic uint64_t reported_rate, reported_ns; /* the trainer's own throughput: samples/s, double bits; when */
    uint64_t pad2[4];
    _Atomic uint64_t wait_histogram[RFI_WAIT_BUCKETS]; /* log-linear: 8 buckets a power of two of ns */
};
_Static_assert(sizeof(struct rfi_trainer_shared) <= 4096, "trainer page");

/* Doorbell of one NUMA node's workers. */
struct rfi_bell_shared {
    alignas(128) _Atomic uint32_t value; /* futex word: incremented by whoever rings */
    _Atomic uint32_t sleepers; /* 1: some worker sleeps or is about to; 0 again when rung */
    uint64_t pad[15];
};
_Static_assert(sizeof(struct rfi_bell_shared) == 128, "bell");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics in shared memory must be lock-free");
