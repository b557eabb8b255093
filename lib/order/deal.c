/* Dealing partitions to ranks as evenly as can be without cutting one. First largest-first, each to the
 * least loaded rank: that bounds the spread by one partition, also when sizes differ wildly (few
 * labels). Where the number of partitions is no multiple of the ranks, that spread is most of a
 * partition; swaps between the fullest and the emptiest rank then make use of the differences in size
 * (a rank with one more has smaller ones). A pure function of the sizes: every server deals alike. */
#include "order/membership.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct sized {
    uint64_t count;
    uint64_t partition;
};

/* Ranks in a binary heap, the least loaded on top; ties go to the rank with fewer partitions (so that
 * empty ones are dealt round too), then to the lower rank. */
struct load {
    uint64_t samples, partitions;
    uint32_t rank;
};

static int larger_first(const void *a, const void *b)
{
    const struct sized *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return (x->partition > y->partition) - (x->partition < y->partition);
}

static int before(const struct load *a, const struct load *b)
{
    if (a->samples != b->samples)
        return a->samples < b->samples;
    if (a->partitions != b->partitions)
        return a->partitions < b->partitions;
    return a->rank < b->rank;
}

static void sink_top(struct load *heap, uint32_t n)
{
    struct load top = heap[0];
    uint64_t at = 0;
    for (;;) {
        uint64_t child = 2 * at + 1;
        if (child + 1 < n && before(&heap[child + 1], &heap[child]))
            child++;
        if (child >= n || !before(&heap[child], &top))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = top;
}

int rfi_deal_partitions(const uint64_t *counts, uint64_t n, uint32_t world_size, uint32_t *ret_rank,
                        struct rfi_error *err)
{
    struct sized *sized = malloc((n ? n : 1) * sizeof *sized);
    struct load *heap = malloc(world_size * sizeof *heap);
    if (!sized || !heap) {
        free(sized);
        free(heap);
        return rfi_fail(err, ENOMEM, "hash: no memory to deal %" PRIu64 " partitions to %" PRIu32 " ranks", n,
                        world_size);
    }
    for (uint64_t i = 0; i < n; i++)
        sized[i] = (struct sized){counts[i], i};
    for (uint32_t r = 0; r < world_size; r++) /* equal loads by rank: already a heap */
        heap[r] = (struct load){.rank = r};
    qsort(sized, n, sizeof *sized, larger_first);
    for (uint64_t i = 0; i < n; i++) {
        ret_rank[sized[i].partition] = heap[0].rank;
        heap[0].samples += sized[i].count;
        heap[0].partitions++;
        sink_top(heap, world_size);
    }
    free(sized);
    free(heap);
    return rfi_deal_even_out(counts, n, world_size, ret_rank, err);
}
