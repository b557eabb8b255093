/* Permutations in use by one view, most recently used ones kept: making a table of 65,536 entries
 * costs a fraction of a millisecond, and a worker goes to and fro between ranks and windows. */
#pragma once

#include "base/error.h"
#include "order/permutation.h"

#include <stdint.h>

enum { RFI_CACHE_ENTRIES = 16 };

struct rfi_cache {
    struct rfi_cache_entry {
        uint64_t n, epoch, rank, part;
        enum rfi_purpose purpose;
        uint64_t used; /* 0: never */
        struct rfi_permutation permutation;
    } entries[RFI_CACHE_ENTRIES];
    uint64_t clock;
    uint64_t room; /* uint16_t entries of storage for each */
    uint16_t *storage;
};

/* Room for permutations of up to `largest_table` values by table (0: none). */
int rfi_cache_init(struct rfi_cache *c, uint64_t largest_table, struct rfi_error *err);
void rfi_cache_fini(struct rfi_cache *c);

/* The permutation of n values of this key; valid until RFI_CACHE_ENTRIES - 1 further ones were asked
 * for. */
struct rfi_permutation *rfi_cache_get(struct rfi_cache *c, uint64_t n, uint64_t seed, uint64_t epoch,
                                      enum rfi_purpose purpose, uint64_t rank, uint64_t part);
