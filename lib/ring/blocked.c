/* Telling a trainer that waits for room only it can make. A worker that finds a batch too large for what is
 * free leaves the batch's end in the slot; the trainer, who knows what it holds, compares. */
#include "ring/ring_words.h"

void rfi_blocked_note(struct rfi_ring *r, uint64_t ticket, uint64_t end)
{
    /* Relaxed: the value carries its own lap, and is checked against the place words by the reader. */
    atomic_store_explicit(&rfi_slot(r, ticket)->blocked, end | (ticket / r->depth & RFI_PLACE_TAG),
                          memory_order_relaxed);
}

bool rfi_ring_blocked_by(const struct rfi_ring *r, uint64_t ticket, uint64_t held)
{
    uint64_t note = atomic_load_explicit(&rfi_slot(r, ticket)->blocked, memory_order_relaxed);
    uint64_t end = note & ~(uint64_t)RFI_PLACE_TAG, at, held_at;
    if ((note & RFI_PLACE_TAG) != (ticket / r->depth & RFI_PLACE_TAG) || !rfi_place_get(r, ticket, &at) ||
        !rfi_place_get(r, held, &held_at))
        return false;
    /* A note from before a cut lies below the new place. */
    return end > at && end - at <= r->arena_bytes && end > held_at + r->arena_bytes;
}
