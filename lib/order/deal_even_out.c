/* Evening out a deal by swaps. Every swap brings the fullest and the emptiest rank closer, so it ends;
 * a bound on the number of swaps keeps it short. */
#include "order/membership.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct deal {
    const uint64_t *counts;
    uint64_t *members; /* partitions grouped by rank, larger first */
    uint64_t *starts; /* [world + 1] */
    uint64_t *loads; /* [world] */
    uint32_t world;
};

struct swap {
    uint64_t from, to; /* places in members */
    uint64_t left; /* how far apart the two ranks would be */
};

/* Larger first, ties by number: a total order, so that every machine swaps the same. */
static int before(const struct deal *d, uint64_t p, uint64_t q)
{
    return d->counts[p] != d->counts[q] ? d->counts[p] > d->counts[q] : p < q;
}

/* Restores the order of a rank's list after its entry at `at` was replaced. */
static void settle(struct deal *d, uint64_t begin, uint64_t end, uint64_t at)
{
    uint64_t p = d->members[at];
    for (; at > begin && before(d, p, d->members[at - 1]); at--)
        d->members[at] = d->members[at - 1];
    for (; at + 1 < end && before(d, d->members[at + 1], p); at++)
        d->members[at] = d->members[at + 1];
    d->members[at] = p;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

/* The swap after which the two ranks are closest; both lists are descending, so one pass does. */
static struct swap best_swap(const struct deal *d, uint32_t full, uint32_t empty)
{
    uint64_t gap = d->loads[full] - d->loads[empty], end = d->starts[empty + 1], j = d->starts[empty];
    struct swap best = {.left = gap};
    for (uint64_t i = d->starts[full]; i < d->starts[full + 1]; i++) {
        uint64_t count = d->counts[d->members[i]];
        for (; j < end; j++) { /* stop at the first that makes the step large enough */
            uint64_t other = d->counts[d->members[j]];
            if (other >= count)
                continue;
            uint64_t left = distance(gap, 2 * (count - other));
            if (left < best.left)
                best = (struct swap){.from = i, .to = j, .left = left};
            if (2 * (count - other) >= gap)
                break;
        }
        if (j > d->starts[empty])
            j--; /* the next, smaller one may go better with the one before */
    }
    return best;
}

static void apply(struct deal *d, uint32_t full, uint32_t empty, const struct swap *s)
{
    uint64_t p = d->members[s->from], q = d->members[s->to], step = d->counts[p] - d->counts[q];
    d->members[s->from] = q;
    d->members[s->to] = p;
    d->loads[full] -= step;
    d->loads[empty] += step;
    settle(d, d->starts[full], d->starts[full + 1], s->from);
    settle(d, d->starts[empty], d->starts[empty + 1], s->to);
}

static void even_out(struct deal *d)
{
    for (uint64_t turn = 0; turn < 64 + 16 * (uint64_t)d->world; turn++) {
        uint32_t full = 0, empty = 0;
        for (uint32_t r = 1; r < d->world; r++) {
            full = d->loads[r] > d->loads[full] ? r : full;
            empty = d->loads[r] < d->loads[empty] ? r : empty;
        }
        struct swap s = best_swap(d, full, empty);
        if (s.left >= d->loads[full] - d->loads[empty])
            return;
        apply(d, full, empty, &s);
    }
}

struct ranked {
    uint32_t rank;
    uint64_t count, partition;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return (x->partition > y->partition) - (x->partition < y->partition);
}

static void group(struct deal *d, struct ranked *list, uint64_t n, const uint32_t *rank_of)
{
    for (uint64_t p = 0; p < n; p++) {
        list[p] = (struct ranked){rank_of[p], d->counts[p], p};
        d->loads[rank_of[p]] += d->counts[p];
        d->starts[rank_of[p] + 1]++;
    }
    for (uint32_t r = 0; r < d->world; r++)
        d->starts[r + 1] += d->starts[r];
    qsort(list, n, sizeof *list, by_rank);
    for (uint64_t i = 0; i < n; i++)
        d->members[i] = list[i].partition;
}

int rfi_deal_even_out(const uint64_t *counts, uint64_t n, uint32_t world_size, uint32_t *rank_of, struct rfi_error *err)
{
    if (world_size < 2 || world_size > RFI_EVEN_OUT_WORLD || n == 0)
        return 0;
    struct deal d = {.counts = counts, .world = world_size};
    struct ranked *list = malloc(n * sizeof *list);
    int rc = 0;
    d.members = malloc(n * sizeof *d.members);
    d.starts = calloc((size_t)world_size + 1, sizeof *d.starts);
    d.loads = calloc(world_size, sizeof *d.loads);
    if (list && d.members && d.starts && d.loads) {
        group(&d, list, n, rank_of);
        even_out(&d);
        for (uint32_t r = 0; r < world_size; r++)
            for (uint64_t i = d.starts[r]; i < d.starts[r + 1]; i++)
                rank_of[d.members[i]] = r;
    } else {
        rc =
            rfi_fail(err, ENOMEM, "hash: no memory to deal %" PRIu64 " partitions to %" PRIu32 " ranks", n, world_size);
    }
    free(list);
    free(d.members);
    free(d.starts);
    free(d.loads);
    return rc;
}
