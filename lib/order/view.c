/* Views: what a rank gets in an epoch, and the tail rule. */
#include "order/view_private.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The largest table that any rank, block order or window of this order needs. */
static uint64_t largest_table(const struct rfi_order *o)
{
    uint64_t n = o->strategy == RF_ROUND_ROBIN ? o->samples : o->max_rank;
    if (o->shuffle == RF_SHUFFLE_NONE)
        return 0;
    return rfi_min(n, RFI_TABLE_MAX);
}

int rfi_view_create(const struct rfi_order *o, struct rfi_view **ret, struct rfi_error *err)
{
    struct rfi_view *v = calloc(1, sizeof *v);
    if (!v)
        return rfi_fail(err, ENOMEM, "order: no memory for a view");
    v->order = o;
    int rc = rfi_cache_init(&v->cache, largest_table(o), err);
    if (rc < 0) {
        free(v);
        return rc;
    }
    *ret = v;
    return 0;
}

void rfi_view_destroy(struct rfi_view *v)
{
    if (!v)
        return;
    rfi_cache_fini(&v->cache);
    free(v);
}

void rfi_view_seek(struct rfi_view *v, uint64_t epoch, uint32_t rank)
{
    v->epoch = epoch;
    v->rank = rank;
}

uint64_t rfi_view_fill(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids)
{
    uint64_t n = rfi_order_rank_samples(v->order, v->rank);
    if (from >= n)
        return 0;
    count = rfi_min(count, n - from);
    rfi_view_sequence(v, v->rank, from, count, ids);
    return count;
}

/* The rank that element g < total of the sequences laid end to end belongs to, and its position. */
static uint32_t rank_at(const struct rfi_order *o, uint64_t g, uint64_t *ret_position)
{
    if (!o->starts) {
        uint32_t rank = rfi_even_part(o->samples, o->world_size, g);
        *ret_position = g - rfi_even_start(o->samples, o->world_size, rank);
        return rank;
    }
    uint32_t lo = 0, hi = o->world_size; /* starts[lo] <= g < starts[hi] */
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (o->starts[mid] <= g)
            lo = mid;
        else
            hi = mid;
    }
    *ret_position = g - o->starts[lo];
    return lo;
}

/* Fillers for positions from .. of a rank with samples: its own sequence again from the start. */
static void wrap_own(struct rfi_view *v, uint64_t n, uint64_t from, uint64_t count, uint64_t *ids)
{
    while (count) {
        uint64_t at = from % n, take = rfi_min(count, n - at);
        rfi_view_sequence(v, v->rank, at, take, ids);
        from += take;
        ids += take;
        count -= take;
    }
}

/* Fillers of a rank without samples: the sequences of all ranks, end to end, from the start. */
static void wrap_all(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids)
{
    const struct rfi_order *o = v->order;
    while (count) {
        uint64_t position, g = from % o->total;
        uint32_t rank = rank_at(o, g, &position);
        uint64_t take = rfi_min(count, rfi_order_rank_samples(o, rank) - position);
        rfi_view_sequence(v, rank, position, take, ids);
        from += take;
        ids += take;
        count -= take;
    }
}

/* Positions that the tail rule leaves or makes. May exceed 64 bits only in theory: saturates. */
static uint64_t tail_samples(const struct rfi_order *o, uint32_t rank)
{
    uint64_t n;
    if (o->tail == RF_TAIL_UNEVEN)
        return rfi_order_rank_samples(o, rank);
    return rfi_mul_over(rfi_order_len(o, rank), o->batch, &n) ? UINT64_MAX : n;
}

uint64_t rfi_view_fill_tail(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids, uint8_t *flags)
{
    uint64_t n = rfi_order_rank_samples(v->order, v->rank), end = tail_samples(v->order, v->rank);
    if (from >= end)
        return 0;
    count = rfi_min(count, end - from);
    uint64_t own = from < n ? rfi_min(count, n - from) : 0;
    rfi_view_sequence(v, v->rank, from, own, ids);
    if (own < count && n)
        wrap_own(v, n, from + own, count - own, ids + own);
    else if (own < count)
        wrap_all(v, from + own, count - own, ids + own);
    if (flags) {
        memset(flags, 0, own);
        memset(flags + own, RF_FLAG_PADDING, count - own);
    }
    return count;
}

uint64_t rfi_view_batch(struct rfi_view *v, uint64_t batch, uint64_t *ids, uint8_t *flags)
{
    if (batch >= rfi_order_len(v->order, v->rank))
        return 0;
    return rfi_view_fill_tail(v, batch * v->order->batch, v->order->batch, ids, flags);
}
