/* The inverse: which rank has a sample, and at which position of its sequence. Constant time, plus one
 * binary search a rank where membership is a table; in a sequence
 * the first place is found by looking at all. */
#include "order/view_private.h"

#include <errno.h>

/* Place of `index` in the ascending list[n], or n. */
static uint64_t search(const uint32_t *list, uint64_t n, uint64_t index)
{
    uint64_t lo = 0, hi = n;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (list[mid] < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && list[lo] == index ? lo : n;
}

static int locate_grouped(const struct rfi_order *o, uint64_t index, uint32_t *ret_rank, uint64_t *ret_x)
{
    for (uint32_t r = 0; r < o->world_size; r++) {
        uint64_t n = o->starts[r + 1] - o->starts[r];
        uint64_t x = search(o->table + o->starts[r], n, index);
        if (x < n) {
            *ret_rank = r;
            *ret_x = x;
            return 0;
        }
    }
    return -ENOENT;
}

static int locate_range(const struct rfi_order *o, uint64_t x, uint32_t *ret_rank, uint64_t *ret_x)
{
    for (uint32_t r = 0; r < o->world_size; r++)
        if (x >= o->ranges[r].lo && x < o->ranges[r].hi) {
            *ret_rank = r;
            *ret_x = x - o->ranges[r].lo;
            return 0;
        }
    return -ENOENT;
}

/* The first place of `index` in a list in any order, or n. */
static uint64_t scan(const uint32_t *list, uint64_t n, uint64_t index)
{
    uint64_t x = 0;
    while (x < n && list[x] != index)
        x++;
    return x;
}

/* Number of `index` in the subset, or -ENOENT. */
static int locate_member(const struct rfi_order *o, uint64_t index, uint64_t *ret)
{
    uint64_t x = o->samples;
    if (o->table)
        x = o->sequence ? scan(o->table, o->samples, index) : search(o->table, o->samples, index);
    else if (index >= o->offset)
        x = index - o->offset;
    *ret = x;
    return x < o->samples ? 0 : -ENOENT;
}

/* Rank (but for round-robin, where it is 0) and element of its base. */
static int locate_element(const struct rfi_order *o, uint64_t index, uint32_t *ret_rank, uint64_t *ret_x)
{
    uint64_t x;
    if (o->grouped)
        return locate_grouped(o, index, ret_rank, ret_x);
    int rc = locate_member(o, index, &x);
    if (rc < 0)
        return rc;
    if (o->strategy == RF_RANGE)
        return locate_range(o, x, ret_rank, ret_x);
    *ret_rank = 0;
    *ret_x = x;
    if (o->strategy == RF_CONTIGUOUS) {
        *ret_rank = rfi_even_part(o->samples, o->world_size, x);
        *ret_x = x - rfi_even_start(o->samples, o->world_size, *ret_rank);
    }
    return 0;
}

static void unshuffle_block(struct rfi_view *v, uint64_t x, uint32_t *rank, uint64_t *ret_position)
{
    const struct rfi_order *o = v->order;
    struct rfi_block_view b = rfi_view_blocks(v, *rank);
    uint64_t u = rfi_blocks_place(&b.blocks, x);
    if (o->strategy == RF_ROUND_ROBIN) {
        *rank = rfi_even_part(o->samples, o->world_size, u);
        u -= rfi_even_start(o->samples, o->world_size, *rank);
    }
    uint64_t w = u / o->window, begin = w * o->window;
    struct rfi_permutation *p = rfi_view_window(v, *rank, rfi_order_rank_samples(o, *rank), w);
    *ret_position = begin + rfi_permutation_inverse(p, u - begin);
}

/* In what an earlier stage left: where it was there tells which element it is here. What was released there is in
 * no sequence any more. */
static int locate_in_rest(struct rfi_view *v, uint64_t epoch, uint64_t index, uint32_t *ret_rank,
                          uint64_t *ret_position)
{
    uint32_t rank, world = v->order->world_size;
    uint64_t position;
    int rc = rfi_view_locate(v->before, epoch, index, &rank, &position);
    for (uint64_t i = 0; rc == 0 && i < v->rest->n_spans; i++) {
        const struct rfi_rest_span *s = &v->rest->spans[i];
        if (s->rank != rank || position < s->from || position - s->from >= s->n)
            continue;
        uint64_t x = s->at + (position - s->from);
        v->rank = *ret_rank = (uint32_t)(x % world);
        *ret_position = x / world;
        return 0;
    }
    return rc < 0 ? rc : -ENOENT;
}

int rfi_view_locate(struct rfi_view *v, uint64_t epoch, uint64_t index, uint32_t *ret_rank, uint64_t *ret_position)
{
    const struct rfi_order *o = v->order;
    uint32_t rank;
    uint64_t x;
    rfi_view_seek(v, epoch, 0);
    if (v->rest)
        return locate_in_rest(v, epoch, index, ret_rank, ret_position);
    int rc = locate_element(o, index, &rank, &x);
    if (rc < 0)
        return rc;
    rfi_view_seek(v, epoch, rank);
    if (o->shuffle == RF_SHUFFLE_BLOCK) {
        unshuffle_block(v, x, &rank, ret_position);
    } else {
        if (o->shuffle == RF_SHUFFLE_FULL)
            x = rfi_permutation_inverse(rfi_view_full(v, rank), x);
        *ret_position = x;
        if (o->strategy == RF_ROUND_ROBIN) {
            rank = (uint32_t)(x % o->world_size);
            *ret_position = x / o->world_size;
        }
    }
    v->rank = rank;
    *ret_rank = rank;
    return 0;
}
