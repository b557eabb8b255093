/* Position of a rank's sequence -> dataset index, many at a time. Two steps: the shuffle turns
 * positions into elements of the rank's base, the base turns elements into indices. */
#include "order/view_private.h"

#include "base/bytes.h"

struct rfi_block_view rfi_view_blocks(struct rfi_view *v, uint32_t rank)
{
    const struct rfi_order *o = v->order;
    uint64_t n = rfi_order_base_samples(o, rank);
    struct rfi_permutation *order = rfi_cache_get(&v->cache, rfi_blocks_count(n, o->block), o->seed,
                                                  rfi_view_key_epoch(v), RFI_KEY_BLOCKS, rfi_key_rank(o, rank), 0);
    struct rfi_block_view ret = {0};
    rfi_blocks_init(&ret.blocks, n, o->block, order);
    /* Round-robin: the concatenation of all blocks is cut into one slice a rank, so that a rank reads
     * whole blocks. Position p of the epoch order still belongs to rank p mod W: it is defined as
     * position p / W of that rank's slice. */
    ret.slice = o->strategy == RF_ROUND_ROBIN ? rfi_even_start(n, o->world_size, rank) : 0;
    return ret;
}

struct rfi_permutation *rfi_view_window(struct rfi_view *v, uint32_t rank, uint64_t n, uint64_t w)
{
    const struct rfi_order *o = v->order;
    uint64_t size = rfi_min(o->window, n - w * o->window);
    return rfi_cache_get(&v->cache, size, o->seed, rfi_view_key_epoch(v), RFI_KEY_WINDOW, rank, w);
}

static void block_elements(struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count, uint64_t *x)
{
    uint64_t n = rfi_order_rank_samples(v->order, rank), window = v->order->window;
    while (count) {
        uint64_t w = from / window, begin = w * window;
        struct rfi_block_view b = rfi_view_blocks(v, rank);
        struct rfi_permutation *p = rfi_view_window(v, rank, n, w);
        uint64_t take = rfi_min(count, begin + p->n - from);
        rfi_permutation_fill(p, from - begin, 1, take, x);
        for (uint64_t i = 0; i < take; i++)
            x[i] += b.slice + begin;
        rfi_blocks_map(&b.blocks, x, take);
        from += take;
        x += take;
        count -= take;
    }
}

/* Elements of the base, for round-robin every W-th of the whole. */
static void elements(struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count, uint64_t *x)
{
    const struct rfi_order *o = v->order;
    uint64_t first = from, stride = 1;
    if (o->strategy == RF_ROUND_ROBIN) {
        first = from * o->world_size + rank;
        stride = o->world_size;
    }
    if (o->shuffle == RF_SHUFFLE_BLOCK) {
        block_elements(v, rank, from, count, x);
    } else if (o->shuffle == RF_SHUFFLE_FULL) {
        rfi_permutation_fill(rfi_view_full(v, rank), first, stride, count, x);
    } else {
        for (uint64_t i = 0; i < count; i++)
            x[i] = first + i * stride;
    }
}

/* The span that element x of what is left lies in. */
static const struct rfi_rest_span *span_of(const struct rfi_rest *rest, uint64_t x)
{
    uint64_t lo = 0, hi = rest->n_spans; /* spans[lo].at <= x < spans[hi].at */
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (rest->spans[mid].at <= x)
            lo = mid;
        else
            hi = mid;
    }
    return &rest->spans[lo];
}

/* Every W-th element of what the stage before left. */
static void rest_sequence(struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count, uint64_t *ids)
{
    uint64_t world = v->order->world_size;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t x = rank + world * (from + i);
        const struct rfi_rest_span *s = span_of(v->rest, x);
        rfi_view_sequence(v->before, s->rank, s->from + (x - s->at), 1, ids + i);
    }
}

void rfi_view_sequence(struct rfi_view *v, uint32_t rank, uint64_t from, uint64_t count, uint64_t *ids)
{
    struct rfi_base base = rfi_order_base(v->order, rank);
    if (count == 0)
        return;
    if (v->rest) {
        rest_sequence(v, rank, from, count, ids);
        return;
    }
    elements(v, rank, from, count, ids);
    if (base.table) {
        for (uint64_t i = 0; i < count; i++)
            ids[i] = base.table[base.start + ids[i]];
    } else if (base.start) {
        for (uint64_t i = 0; i < count; i++)
            ids[i] += base.start;
    }
}
