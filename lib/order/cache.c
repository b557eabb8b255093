/* Least recently used out of a few: searched in a line. */
#include "order/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

int rfi_cache_init(struct rfi_cache *c, uint64_t largest_table, struct rfi_error *err)
{
    *c = (struct rfi_cache){.room = rfi_permutation_storage(largest_table)};
    if (c->room == 0)
        return 0;
    c->storage = malloc(RFI_CACHE_ENTRIES * c->room * sizeof *c->storage);
    if (!c->storage)
        return rfi_fail(err, ENOMEM, "order: no memory for shuffle tables of %" PRIu64 " samples", largest_table);
    return 0;
}

void rfi_cache_fini(struct rfi_cache *c)
{
    free(c->storage);
    c->storage = NULL;
}

static bool is_it(const struct rfi_cache_entry *e, uint64_t n, uint64_t epoch, enum rfi_purpose purpose, uint64_t rank,
                  uint64_t part)
{
    return e->used && e->part == part && e->rank == rank && e->epoch == epoch && e->purpose == purpose && e->n == n;
}

struct rfi_permutation *rfi_cache_get(struct rfi_cache *c, uint64_t n, uint64_t seed, uint64_t epoch,
                                      enum rfi_purpose purpose, uint64_t rank, uint64_t part)
{
    struct rfi_cache_entry *oldest = &c->entries[0];
    c->clock++;
    for (unsigned i = 0; i < RFI_CACHE_ENTRIES; i++) {
        struct rfi_cache_entry *e = &c->entries[i];
        if (is_it(e, n, epoch, purpose, rank, part)) {
            e->used = c->clock;
            return &e->permutation;
        }
        if (e->used < oldest->used)
            oldest = e;
    }
    uint16_t *storage = c->storage ? c->storage + (size_t)(oldest - c->entries) * c->room : NULL;
    rfi_permutation_init(&oldest->permutation, n, rfi_key_make(seed, epoch, purpose, rank, part), storage);
    oldest->n = n;
    oldest->epoch = epoch;
    oldest->purpose = purpose;
    oldest->rank = rank;
    oldest->part = part;
    oldest->used = c->clock;
    return &oldest->permutation;
}
