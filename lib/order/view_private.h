/* A view, and the sequences behind it. Functions here take the rank instead of the view's own, because
 * padding borrows from other ranks. */
#pragma once

#include "order/blocks.h"
#include "order/cache.h"
#include "order/order_private.h"
#include "order/past_private.h"

struct rfi_view {
    const struct rfi_order *order;
    uint64_t epoch;
    uint32_t rank;
    struct rfi_cache cache;
    const struct rfi_rest *rest; /* of the epoch, or NULL: plain */
    struct rfi_view *before; /* of the order before, when there is a past */
    /* Moved batches: the lists of lists_epoch after the first lists_moves entries of the log. */
    struct rfi_lists lists;
    uint64_t lists_epoch, lists_moves;
    const struct rfi_list *list; /* of the rank; NULL: its own batches and no others */
};

/* Block shuffle of `rank`: `slice` is where its positions begin in the concatenation of blocks. */
struct rfi_block_view {
    struct rfi_blocks blocks;
    uint64_t slice;
};

static inline uint64_t rfi_key_rank(const struct rfi_order *o, uint32_t rank)
{
    return o->strategy == RF_ROUND_ROBIN ? RFI_KEY_GLOBAL : rank;
}

/* The epoch whose keys are used. */
static inline uint64_t rfi_view_key_epoch(const struct rfi_view *v)
{
    return v->order->repeat_order ? 0 : v->epoch;
}

static inline struct rfi_permutation *rfi_view_full(struct rfi_view *v, uint32_t rank)
{
    return rfi_cache_get(&v->cache, rfi_order_base_samples(v->order, rank), v->order->seed, rfi_view_key_epoch(v),
                         RFI_KEY_FULL, rfi_key_rank(v->order, rank), 0);
}

struct rfi_block_view rfi_view_blocks(struct rfi_view *v, uint32_t rank);

/* Permutation of the positions in window `w` of a rank's n positions. */
struct rfi_permutation *rfi_view_window(struct rfi_view *v, uint32_t rank, uint64_t n, uint64_t w);

/* Ids of positions [from, from + count) of `rank`, all below its n_r. */
void rfi_view_sequence(struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count, uint64_t *ids);
