/* Generation records: which content a ticket has. Written by the parent alone, read by everyone.
 *
 * Why a lookup for a claimed ticket t is stable: a cut cannot fall at or below a claimed ticket, so the
 * record of t is never replaced while t lives; and as first tickets rise and lie inside the window of
 * live tickets, at most depth + 1 records are newer, fewer than there is room for. */
#include "ring/ring_words.h"

#include <errno.h>

/* P4: word by word, because the parent may be storing a newer record in this place. */
static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void copy_record(const struct rfi_generation *from, struct rfi_generation *to)
{
    to->first_ticket = load(&from->first_ticket);
    to->epoch = load(&from->epoch);
    to->batch = load(&from->batch);
    to->end_ticket = load(&from->end_ticket);
    to->first_place = load(&from->first_place);
    to->log_length = __atomic_load_n(&from->log_length, __ATOMIC_ACQUIRE);
    to->grown = __atomic_load_n(&from->grown, __ATOMIC_ACQUIRE);
    to->stop_ticket = load(&from->stop_ticket);
    to->arena = load(&from->arena);
}

void rfi_generation_store(struct rfi_generation *to, const struct rfi_generation *g)
{
    __atomic_store_n(&to->first_ticket, g->first_ticket, __ATOMIC_RELEASE); /* P4, and the same below */
    __atomic_store_n(&to->epoch, g->epoch, __ATOMIC_RELEASE);
    __atomic_store_n(&to->batch, g->batch, __ATOMIC_RELEASE);
    __atomic_store_n(&to->end_ticket, g->end_ticket, __ATOMIC_RELEASE);
    __atomic_store_n(&to->first_place, g->first_place, __ATOMIC_RELEASE);
    __atomic_store_n(&to->log_length, g->log_length, __ATOMIC_RELEASE);
    __atomic_store_n(&to->grown, g->grown, __ATOMIC_RELEASE);
    __atomic_store_n(&to->stop_ticket, g->stop_ticket, __ATOMIC_RELEASE);
    __atomic_store_n(&to->arena, g->arena, __ATOMIC_RELEASE);
}

static const struct rfi_generation *record(const struct rfi_ring *r, uint64_t index)
{
    return &r->generations[index & (r->generations_cap - 1)];
}

void rfi_ring_generation(const struct rfi_ring *r, uint64_t ticket, struct rfi_generation *ret)
{
    uint64_t n = atomic_load_explicit(&r->sh->n_generations, memory_order_acquire); /* P4 */
    uint64_t left = n < r->generations_cap ? n : r->generations_cap;
    const struct rfi_generation *g = record(r, n - 1);

    /* Newest first. A ticket older than all records has been recycled: any answer will do. */
    for (; left > 1 && load(&g->first_ticket) > ticket; left--)
        g = record(r, --n - 1);
    copy_record(g, ret);
}

bool rfi_ring_generation_settled(const struct rfi_ring *r, uint64_t ticket, struct rfi_generation *ret)
{
    for (int tries = 0; tries < 10000; tries++) { /* a few stores long, unless the parent died among them */
        uint64_t before = atomic_load_explicit(&r->sh->moves, memory_order_acquire); /* P9 */
        rfi_ring_generation(r, ticket, ret);
        /* The record's words were loaded with acquire: this load comes after them. */
        if (!(before & 1) && atomic_load_explicit(&r->sh->moves, memory_order_relaxed) == before)
            return true;
    }
    return false;
}

void rfi_generation_newest(const struct rfi_ring *r, struct rfi_generation *ret)
{
    uint64_t n = atomic_load_explicit(&r->sh->n_generations, memory_order_acquire); /* P4 */
    copy_record(record(r, n - 1), ret);
}

void rfi_record_load(struct rfi_ring *r, uint64_t ticket, struct rfi_generation *space, struct rfi_record *ret)
{
    uint64_t before = atomic_load_explicit(&r->sh->moves, memory_order_acquire); /* P9 */
    bool settled;

    rfi_ring_generation(r, ticket, space);
    rfi_generation_newest(r, &r->record.newest);
    /* The records' words were loaded with acquire: this load comes after them. */
    settled = !(before & 1) && atomic_load_explicit(&r->sh->moves, memory_order_relaxed) == before;
    r->record.moves_1 = settled ? before + 1 : 0;
    *ret = (struct rfi_record){.g = space, .moves = settled ? before : 1};
}

int rfi_footprint_ask(struct rfi_ring *r, const struct rfi_record *record, uint64_t ticket,
                      const struct rfi_sizes *sizes, uint64_t *ret)
{
    int rc;

    *ret = r->align;
    if (ticket >= record->g->end_ticket)
        return 0;
    rc = sizes->fn(sizes->ctx, record->g, ticket, ret);
    if (rc < 0)
        return rc;
    if (*ret == 0 || *ret % r->align != 0)
        return -EINVAL;
    if (*ret > r->arena_bytes)
        return -E2BIG;
    if (!(record->moves & 1))
        *rfi_footprint_memo(r, ticket) =
            (struct rfi_footprint_memo){.ticket = ticket, .footprint = *ret, .moves = record->moves};
    return 0;
}
