/* Places: the virtual arena offset of every ticket, computed by whoever needs it first. Each place follows
 * from the one before and two footprints, so helpers that race compute the same value; the CAS keeps one
 * that slept through a lap or a cut from writing at all. */
#include "ring/ring_words.h"

#include <errno.h>

/* Beyond: bit 63 would be touched. At 10 GB/s a rank, 14 years; 1 in laps of a 16th of the arena. */
#define OFFSET_LIMIT (UINT64_C(1) << 62)

uint64_t rfi_place_after(uint64_t end, uint64_t footprint, uint64_t lap, uint64_t arena_bytes)
{
    uint64_t in_lap = end % arena_bytes;
    return in_lap + footprint > lap ? end - in_lap + arena_bytes : end;
}

/* The place of `ticket`, given that of the ticket before (unused for a generation's first). */
static int compute(struct rfi_ring *r, uint64_t ticket, uint64_t before, const struct rfi_sizes *sizes, uint64_t *ret)
{
    struct rfi_generation space;
    struct rfi_record record;
    uint64_t gone, own;
    int rc;

    rfi_record_look(r, ticket, &space, &record);
    if (record.g->first_ticket == ticket) {
        *ret = record.g->first_place;
        return 0;
    }
    rc = rfi_footprint(r, &record, ticket - 1, sizes, &gone);
    if (rc == 0)
        rc = rfi_footprint(r, &record, ticket, sizes, &own);
    if (rc < 0)
        return rc;
    *ret = rfi_place_after(before + gone, own, rfi_ring_lap_bytes(r, record.g), r->arena_bytes);
    return *ret >= OFFSET_LIMIT ? -EOVERFLOW : 0;
}

/* True while `ticket` is alive and not being cut, its place word is still `seen`, and no cut was made since the
 * chain was begun: the place before it may be from another generation by now. (A cut from here on wipes the
 * word, so the CAS fails.) The slot word is loaded first: FREE after a cut shows that cut's wipe (P5). */
static bool undisturbed(const struct rfi_ring *r, const struct rfi_place_at *at, uint64_t ticket, uint64_t seen,
                        uint64_t cuts)
{
    uint64_t word = atomic_load_explicit(&at->slot->word, memory_order_acquire); /* P5 */
    return rfi_word_ticket(word) == ticket && rfi_word_state(word) != RFI_HELD &&
           atomic_load_explicit(&r->sh->cuts, memory_order_acquire) == cuts && /* P5 */
           atomic_load_explicit(at->word, memory_order_acquire) == seen;
}

static int set_place(struct rfi_ring *r, uint64_t ticket, uint64_t before, uint64_t cuts, const struct rfi_sizes *sizes,
                     uint64_t *ret)
{
    const struct rfi_place_at at = rfi_place_at(r, ticket);
    uint64_t seen = atomic_load_explicit(at.word, memory_order_acquire); /* P5: before the record */
    uint64_t place = 0;
    int rc;

    if (rfi_place_is_set(seen, at.tag)) {
        *ret = seen & ~(uint64_t)RFI_PLACE_TAG;
        return 0;
    }
    rc = compute(r, ticket, before, sizes, &place);
    if (!undisturbed(r, &at, ticket, seen, cuts)) /* what was computed, even an error, may come from half a record */
        return RFI_RING_AGAIN;
    if (rc < 0)
        return rc;
    *ret = place;
    if (atomic_compare_exchange_strong_explicit(at.word, &seen, place | at.tag, memory_order_acq_rel,
                                                memory_order_acquire))
        return 0;
    return rfi_place_is_set(seen, at.tag) && (seen & ~(uint64_t)RFI_PLACE_TAG) == place ? 0 : RFI_RING_AGAIN;
}

/* The nearest ticket at or below `ticket` from which the chain can be computed: one that is set, or the
 * first of its generation. */
static bool find_base(struct rfi_ring *r, uint64_t low, uint64_t ticket, uint64_t *ret)
{
    for (uint64_t t = ticket;; t--) {
        struct rfi_generation space;
        struct rfi_record record;
        uint64_t place;

        *ret = t;
        if (rfi_place_get(r, t, &place))
            return true;
        if (t < low) /* recycled, and nobody needed its place any more: `low` is out of date */
            return false;
        rfi_record_look(r, t, &space, &record);
        if (record.g->first_ticket == t)
            return true;
        if (t == 0)
            return false;
    }
}

int rfi_place_find(struct rfi_ring *r, const struct rfi_cuts *cuts, uint64_t low, uint64_t ticket,
                   const struct rfi_sizes *sizes, uint64_t *ret)
{
    uint64_t t;

    /* In the middle of a cut the count says nothing: some words are wiped already and some are not. */
    if (!cuts->calm)
        return RFI_RING_AGAIN;
    if (ticket > 0 && rfi_place_get(r, ticket - 1, ret)) /* nearly always */
        return set_place(r, ticket, *ret, cuts->n, sizes, ret);
    if (!find_base(r, low, ticket, &t))
        return RFI_RING_AGAIN;
    for (;; t++) {
        int rc = t < low ? (rfi_place_get(r, t, ret) ? 0 : RFI_RING_AGAIN) : set_place(r, t, *ret, cuts->n, sizes, ret);
        if (rc != 0 || t == ticket)
            return rc;
    }
}
