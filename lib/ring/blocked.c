/* Telling a trainer that waits for room only it can make. A worker that finds a batch too large for what is
 * free leaves the batch's end in the slot; the trainer, who knows what it holds, compares. */
#include "ring/ring_words.h"

/* A note is for one ticket and one number of cuts: after a cut the ticket may have another footprint. Lap
 * and cuts only grow, so their sum tells one note of a slot from the others. */
static uint64_t tag(const struct rfi_ring *r, uint64_t ticket, uint64_t cuts)
{
    return (ticket / r->depth + cuts) & RFI_PLACE_TAG;
}

void rfi_blocked_note(struct rfi_ring *r, uint64_t ticket, uint64_t end, uint64_t cuts)
{
    /* Relaxed: all that is said is in the word. */
    atomic_store_explicit(&rfi_slot(r, ticket)->blocked, end | tag(r, ticket, cuts), memory_order_relaxed);
}

bool rfi_ring_blocked_by(const struct rfi_ring *r, uint64_t ticket, uint64_t held)
{
    uint64_t note = atomic_load_explicit(&rfi_slot(r, ticket)->blocked, memory_order_relaxed);
    uint64_t cuts = atomic_load_explicit(&r->sh->cuts, memory_order_relaxed);
    uint64_t end = note & ~(uint64_t)RFI_PLACE_TAG, at, held_at;

    if ((note & RFI_PLACE_TAG) != tag(r, ticket, cuts) || !rfi_place_get(r, ticket, &at) ||
        !rfi_place_get(r, held, &held_at))
        return false;
    return end > at && end - at <= r->arena_bytes && end > held_at + r->arena_bytes;
}
