/* The inside of struct rfi_order, shared by the files of this layer.
 *
 * A rank's *base sequence* is what it would get unshuffled: n_r samples, element x of which is the
 * dataset index base(x) = table[start + x] or start + x. Contiguous, range, hash and stratified have
 * one base a rank; round-robin has one for all ranks together, and the rank follows from the position
 * in the epoch order. */
#pragma once

#include "order/key.h"
#include "order/order.h"
#include "order/ranges.h"

#include <stdbool.h>

struct rfi_order {
    uint64_t samples; /* of the order: of the subset */
    uint64_t dataset_samples;
    uint32_t world_size;
    uint64_t batch;
    rf_strategy strategy;
    rf_shuffle shuffle;
    rf_tail tail;
    uint64_t seed;
    bool repeat_order; /* every epoch has the keys of epoch 0 */
    uint64_t block; /* K of block shuffle, >= 1 */
    uint64_t window; /* samples of a window, >= 1 */
    uint64_t min_rank, max_rank; /* smallest and largest n_r */
    uint64_t total; /* sum of n_r: differs from samples with gaps or overlaps */

    uint64_t offset; /* of an affine subset */
    const uint32_t *table; /* members of a listed subset, or grouped by rank; NULL: none */
    uint32_t *own_table; /* the same when it is ours to free */
    bool sequence; /* table is a list as it stands: in any order, with repeats */
    bool grouped; /* table is grouped by rank, ascending inside */

    struct rfi_range *ranges; /* range: [world_size] */
    uint64_t *starts; /* grouped or range: [world_size + 1], sums of n_r */

    struct rfi_past *past; /* what earlier stages left; NULL: nothing */
    const struct rfi_move *moves; /* log of moved batches, borrowed */
    uint64_t n_moves; /* in effect for rfi_view_seek */
};

/* Position where an even cut of n into `parts` begins part `i`, the larger ones first; i <= parts. */
static inline uint64_t rfi_even_start(uint64_t n, uint32_t parts, uint32_t i)
{
    uint64_t rest = n % parts;
    return n / parts * i + (i < rest ? i : rest);
}

/* The part that position u < n lies in. */
static inline uint32_t rfi_even_part(uint64_t n, uint32_t parts, uint64_t u)
{
    uint64_t small = n / parts, rest = n % parts, head = rest * (small + 1);
    return (uint32_t)(u < head ? u / (small + 1) : rest + (u - head) / small);
}

/* Base of `rank` (ignored for round-robin): element x is (table ? table[start + x] : start + x). */
struct rfi_base {
    const uint32_t *table;
    uint64_t start;
};

static inline struct rfi_base rfi_order_base(const struct rfi_order *o, uint32_t rank)
{
    uint64_t start = 0;
    if (o->grouped)
        start = o->starts[rank];
    else if (o->strategy == RF_RANGE)
        start = o->ranges[rank].lo;
    else if (o->strategy == RF_CONTIGUOUS)
        start = rfi_even_start(o->samples, o->world_size, rank);
    return (struct rfi_base){.table = o->table, .start = start + o->offset};
}

/* Samples of the base that a rank's shuffle works in. */
static inline uint64_t rfi_order_base_samples(const struct rfi_order *o, uint32_t rank)
{
    return o->strategy == RF_ROUND_ROBIN ? o->samples : rfi_order_rank_samples(o, rank);
}

/* validate.c */
uint64_t rfi_order_partitions(const rf_order_options *o); /* P with its default */
