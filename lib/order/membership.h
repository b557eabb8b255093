/* Strategies whose members cannot be computed: the table of dataset indices grouped by rank, ascending
 * inside each rank. */
#pragma once

#include "order/order.h"
#include "order/subset.h"

#include <stdint.h>

/* Both fill table[subset->n] and starts[world_size + 1]. -EINVAL names a sample that lacks the label or
 * key. `subset` has its table when it is listed. */
int rfi_membership_hash(const rf_order_options *o, const struct rfi_order_source *src, const struct rfi_subset *subset,
                        uint32_t *table, uint64_t *starts, struct rfi_error *err);
int rfi_membership_stratified(const rf_order_options *o, const struct rfi_order_source *src,
                              const struct rfi_subset *subset, uint32_t *table, uint64_t *starts,
                              struct rfi_error *err);

/* Virtual partition of a sample: [0, partitions). */
uint64_t rfi_hash_partition(uint64_t hash_seed, const void *bytes, uint64_t n_bytes, uint64_t partitions);

/* Deals partitions of counts[n] samples to `world_size` ranks as evenly as can be; no two ranks are
 * further apart than the largest partition. */
int rfi_deal_partitions(const uint64_t *counts, uint64_t n, uint32_t world_size, uint32_t *ret_rank,
                        struct rfi_error *err);

/* The second step of it: swaps partitions between the fullest and the emptiest rank while that helps.
 * Worlds of more than RFI_EVEN_OUT_WORLD ranks are left as they are. */
enum { RFI_EVEN_OUT_WORLD = 4096 };
int rfi_deal_even_out(const uint64_t *counts, uint64_t n, uint32_t world_size, uint32_t *rank_of,
                      struct rfi_error *err);

static inline uint64_t rfi_subset_member(const struct rfi_subset *s, uint64_t x)
{
    return s->listed ? s->table[x] : s->offset + x;
}
