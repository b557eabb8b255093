/* How large a rank's arena is and how many batches its ring has: one rule for `plan`, which announces
 * it, and the server, which allocates it. */
#pragma once

#include "base/error.h"
#include "dataset/dataset.h"
#include "order/order.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    RFI_PREFETCH_DEFAULT = 4,
    RFI_PREFETCH_MIN = 2, /* one batch with the trainer, one being filled */
    RFI_PREFETCH_MAX = 4096,
    RFI_ARENA_HUGE = 2 << 20, /* arenas from here on are whole huge pages */
};

/* rfi_plan_largest for the batches of this order: counts that tail `pad` repeats the samples of a rank
 * that has fewer than a batch, and that a sequence may repeat any. */
int rfi_plan_largest_of(const struct rfi_dataset *d, const struct rfi_order *order, rf_tail tail, uint64_t align,
                        uint64_t *ret, struct rfi_error *err);

/* `largest`: the bound of a batch's footprint. The arena holds the two largest batches, one with the
 * trainer and one being filled, whatever came before: a batch never wraps, so a lap may lose almost one
 * more, unless all footprints are alike (`fixed`: fixed-size samples). So least = 3 * largest, or 2.
 * `prefetch` 0: the default, 4 batches or 64 MiB, whichever is less; 1 counts as 2. `ring_bytes` 0: prefetch *
 * largest, at least `least`.
 * Rounded up to huge pages, or to 4096 below one. -EINVAL when prefetch is too much, or when ring_bytes is
 * below least. */
int rfi_plan_arena(uint64_t largest, bool fixed, uint64_t prefetch, uint64_t ring_bytes, uint64_t *ret_depth,
                   uint64_t *ret_arena, struct rfi_error *err);
