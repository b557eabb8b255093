#include "plan/arena.h"

#include "base/bytes.h"
#include "plan/plan.h"

#include <errno.h>

/* What the default of `prefetch` may take of memory. What was asked for is not capped. */
static const uint64_t default_cap = (uint64_t)64 << 20;

/* A wraps through a rank's own samples, or through the whole order where a rank has none. A sequence may name
 * one sample again and again. */
static uint64_t repeats_of(const struct rfi_order *order, rf_tail tail)
{
    uint64_t batch = rfi_order_batch_samples(order), least = UINT64_MAX;
    if (rfi_order_is_sequence(order))
        return rfi_max(1, batch);
    if (tail != RF_TAIL_PAD)
        return 1;
    for (uint32_t r = 0; r < rfi_order_world_size(order); r++) {
        uint64_t n = rfi_order_rank_samples(order, r);
        least = rfi_min(least, n ? n : rfi_order_samples(order));
    }
    return least ? rfi_max(1, rfi_div_up(batch, least)) : 1;
}

int rfi_plan_largest_of(const struct rfi_dataset *d, const struct rfi_order *order, rf_tail tail, uint64_t align,
                        uint64_t *ret, struct rfi_error *err)
{
    return rfi_plan_largest_repeated(d, align, rfi_order_batch_samples(order), repeats_of(order, tail), ret, err);
}

/* Both the page size and A (a power of two that divides `largest`) must divide the arena. */
static uint64_t unit_of(uint64_t largest, uint64_t bytes)
{
    uint64_t a = largest & (~largest + 1);
    if (bytes >= RFI_ARENA_HUGE)
        return RFI_ARENA_HUGE;
    return rfi_max(4096, rfi_min(a, 64 << 10));
}

static int check_given(uint64_t largest, uint64_t least, uint64_t ring_bytes, struct rfi_error *err)
{
    if (ring_bytes >= least)
        return 0;
    return rfi_fail(
        err, EINVAL,
        "ring: the largest batch needs %llu bytes and the ring must hold two%s, but --ring-bytes is %llu. Use at "
        "least --ring-bytes %llu, or a smaller --batch",
        (unsigned long long)largest, least > 2 * largest ? " and what a lap may lose (a third)" : "",
        (unsigned long long)ring_bytes, (unsigned long long)least);
}

int rfi_plan_arena(uint64_t largest, bool fixed, uint64_t prefetch, uint64_t ring_bytes, uint64_t *ret_depth,
                   uint64_t *ret_arena, struct rfi_error *err)
{
    uint64_t wanted, least, limit = (uint64_t)1 << 61;
    if (prefetch > RFI_PREFETCH_MAX)
        return rfi_fail(err, EINVAL, "ring: --prefetch %llu is too much. Use at most %d batches",
                        (unsigned long long)prefetch, RFI_PREFETCH_MAX);
    if (largest >= limit || ring_bytes >= limit)
        return rfi_fail(err, EINVAL,
                        "ring: %llu bytes for a batch, or --ring-bytes %llu, is beyond any memory. Use less",
                        (unsigned long long)largest, (unsigned long long)ring_bytes);
    least = (fixed ? 2 : 3) * largest;
    *ret_depth = prefetch ? rfi_max(prefetch, RFI_PREFETCH_MIN) : RFI_PREFETCH_DEFAULT;
    if (ring_bytes) {
        int rc = check_given(largest, least, ring_bytes, err);
        if (rc < 0)
            return rc;
        wanted = ring_bytes;
    } else {
        uint64_t full;
        if (rfi_mul_over(largest, *ret_depth, &full))
            full = UINT64_MAX;
        wanted = rfi_max(least, prefetch ? full : rfi_min(default_cap, full));
    }
    *ret_arena = rfi_align_up(wanted, unit_of(largest, wanted));
    return 0;
}
