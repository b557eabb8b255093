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

/* A list without batches. */
static const struct rfi_list nothing;

int rfi_view_create(const struct rfi_order *o, struct rfi_view **ret, struct rfi_error *err)
{
    struct rfi_view *v = calloc(1, sizeof *v);
    if (!v)
        return rfi_fail(err, ENOMEM, "order: no memory for a view");
    v->order = o;
    int rc = rfi_cache_init(&v->cache, largest_table(o), err);
    if (rc == 0 && o->past)
        rc = rfi_view_create(o->past->before, &v->before, err);
    if (rc < 0) {
        rfi_view_destroy(v);
        return rc;
    }
    v->lists_moves = 0; /* no entry in effect: no lists, in any epoch */
    *ret = v;
    return 0;
}

void rfi_view_destroy(struct rfi_view *v)
{
    if (!v)
        return;
    rfi_view_destroy(v->before);
    rfi_lists_fini(&v->lists);
    rfi_cache_fini(&v->cache);
    free(v);
}

/* Where the view and those of earlier stages stand; their own moves are in the spans of what they left. */
static void stand(struct rfi_view *v, uint64_t epoch, uint32_t rank)
{
    v->epoch = epoch;
    v->rank = rank;
    v->rest = rfi_order_rest(v->order, epoch);
    v->list = NULL;
    if (v->rest)
        stand(v->before, epoch, 0);
}

int rfi_view_seek_moved(struct rfi_view *v, uint64_t epoch, uint32_t rank, uint64_t n_moves, struct rfi_error *err)
{
    stand(v, epoch, rank);
    if (n_moves == 0)
        return 0;
    if (v->lists_moves != n_moves || v->lists_epoch != epoch) {
        rfi_lists_fini(&v->lists);
        v->lists_moves = 0;
        int rc = rfi_lists_replay(&v->lists, v->order, epoch, v->order->moves, n_moves, err);
        if (rc < 0)
            return rc;
        v->lists_moves = n_moves;
        v->lists_epoch = epoch;
    }
    v->list = rfi_lists_find(&v->lists, rank);
    return 0;
}

void rfi_view_seek(struct rfi_view *v, uint64_t epoch, uint32_t rank)
{
    struct rfi_error ignored;
    if (rfi_view_seek_moved(v, epoch, rank, v->order->n_moves, &ignored) < 0)
        v->list = &nothing; /* checked when the log was set: only memory can be short */
}

uint64_t rfi_view_len(const struct rfi_view *v)
{
    return v->list ? v->list->batches : rfi_order_len_in(v->order, v->epoch, v->rank);
}

uint64_t rfi_view_window_left(const struct rfi_view *v, uint64_t batch)
{
    const struct rfi_order *o = v->order;
    uint64_t len = rfi_view_len(v), left = batch < len ? len - batch : 1;
    if (o->shuffle != RF_SHUFFLE_BLOCK || v->rest || v->list)
        return left;
    uint64_t inside = o->window - batch * o->batch % o->window;
    return rfi_min(left, rfi_div_up(inside, o->batch));
}

bool rfi_view_is_own(const struct rfi_view *v)
{
    return !v->list;
}

uint64_t rfi_view_fill(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids)
{
    uint64_t n = rfi_order_rank_samples_in(v->order, v->epoch, v->rank);
    if (from >= n)
        return 0;
    count = rfi_min(count, n - from);
    rfi_view_sequence(v, v->rank, from, count, ids);
    return count;
}

/* The rank that element g < total of the sequences laid end to end belongs to, and its position. */
static uint32_t rank_at(const struct rfi_view *v, uint64_t g, uint64_t *ret_position)
{
    const struct rfi_order *o = v->order;
    if (v->rest || !o->starts) {
        uint64_t samples = v->rest ? v->rest->samples : o->samples;
        uint32_t rank = rfi_even_part(samples, o->world_size, g);
        *ret_position = g - rfi_even_start(samples, o->world_size, rank);
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
static void wrap_own(struct rfi_view *v, uint32_t rank, uint64_t n, uint64_t from, uint64_t count, uint64_t *ids)
{
    while (count) {
        uint64_t at = from % n, take = rfi_min(count, n - at);
        rfi_view_sequence(v, rank, at, take, ids);
        from += take;
        ids += take;
        count -= take;
    }
}

/* Fillers of a rank without samples: the sequences of all ranks, end to end, from the start. */
static void wrap_all(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids)
{
    const struct rfi_order *o = v->order;
    uint64_t total = v->rest ? v->rest->samples : o->total;
    while (count) {
        uint64_t position, g = from % total;
        uint32_t rank = rank_at(v, g, &position);
        uint64_t take = rfi_min(count, rfi_order_rank_samples_in(o, v->epoch, rank) - position);
        rfi_view_sequence(v, rank, position, take, ids);
        from += take;
        ids += take;
        count -= take;
    }
}

/* Positions that the tail rule leaves or makes. May exceed 64 bits only in theory: saturates. */
static uint64_t tail_samples(const struct rfi_view *v, uint32_t rank)
{
    const struct rfi_order *o = v->order;
    uint64_t n;
    if (o->tail == RF_TAIL_UNEVEN)
        return rfi_order_rank_samples_in(o, v->epoch, rank);
    return rfi_mul_over(rfi_order_len_in(o, v->epoch, rank), o->batch, &n) ? UINT64_MAX : n;
}

/* How many of the positions [from, from + count) of `rank`'s own epoch there are under the tail rule. */
static uint64_t there(const struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count)
{
    uint64_t end = tail_samples(v, rank);
    return from < end ? rfi_min(count, end - from) : 0;
}

/* They themselves; returns how many there are. */
static uint64_t fill_own(struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count, uint64_t *ids,
                         uint8_t *flags)
{
    uint64_t n = rfi_order_rank_samples_in(v->order, v->epoch, rank);
    count = there(v, rank, from, count);
    uint64_t own = from < n ? rfi_min(count, n - from) : 0;
    if (count)
        rfi_view_sequence(v, rank, from, own, ids);
    if (own < count && n)
        wrap_own(v, rank, n, from + own, count - own, ids + own);
    else if (own < count)
        wrap_all(v, from + own, count - own, ids + own);
    if (flags) {
        memset(flags, 0, own);
        memset(flags + own, RF_FLAG_PADDING, count - own);
    }
    return count;
}

uint64_t rfi_view_fill_tail(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids, uint8_t *flags)
{
    return fill_own(v, v->rank, from, count, ids, flags);
}

/* Whose batch stands at `batch` of a list, and its number there. */
static bool find_piece(const struct rfi_list *list, uint64_t batch, uint32_t *ret_rank, uint64_t *ret_batch)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (batch < list->pieces[i].n) {
            *ret_rank = list->pieces[i].rank;
            *ret_batch = list->pieces[i].first + batch;
            return true;
        }
        batch -= list->pieces[i].n;
    }
    return false;
}

/* Whose batch `*batch` of the view is, and its number in that rank's own epoch. */
static bool find_batch(const struct rfi_view *v, uint32_t *ret_rank, uint64_t *batch)
{
    *ret_rank = v->rank;
    return v->list ? find_piece(v->list, *batch, ret_rank, batch)
                   : *batch < rfi_order_len_in(v->order, v->epoch, v->rank);
}

uint64_t rfi_view_batch_part(struct rfi_view *v, uint64_t batch, uint64_t from, uint64_t count, uint64_t *ids,
                             uint8_t *flags)
{
    uint64_t size = v->order->batch;
    uint32_t rank;
    if (!find_batch(v, &rank, &batch) || from >= size)
        return 0;
    return fill_own(v, rank, batch * size + from, rfi_min(count, size - from), ids, flags);
}

uint64_t rfi_view_batch_size(const struct rfi_view *v, uint64_t batch)
{
    uint64_t size = v->order->batch;
    uint32_t rank;
    return find_batch(v, &rank, &batch) ? there(v, rank, batch * size, size) : 0;
}

uint64_t rfi_view_batch(struct rfi_view *v, uint64_t batch, uint64_t *ids, uint8_t *flags)
{
    return rfi_view_batch_part(v, batch, 0, v->order->batch, ids, flags);
}
