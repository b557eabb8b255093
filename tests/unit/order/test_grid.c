/* Every strategy x shuffle x tail over a grid of N, W and B: the seekable order against the reference
 * lists, batches against the tail rule, locate against both, exactly once by counting. */
#include "reference.h"

#include "order/order.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t sizes[] = {0, 1, 2, 3, 5, 7, 8, 9, 16, 31, 64, 100, 333, 1000};
static const uint32_t worlds[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 64};
static const uint64_t batches[] = {1, 2, 3, 7, 32};
static const uint64_t blocks[][2] = {{1, 1}, {3, 2}, {7, 16}, {2000, 1}, {5, 1}};

enum { MOST = 1000 };

static _Bool source_label(void *ctx, uint64_t i, int64_t *ret)
{
    *ret = test_label(i);
    return 1;
}

static const char *source_key(void *ctx, uint64_t i, size_t *ret_bytes)
{
    *ret_bytes = (size_t)(i % 3);
    return "abc";
}

static struct rfi_order_source source_of(uint64_t n)
{
    return (struct rfi_order_source){.samples = n, .mean_bytes = 100, .label = source_label, .key = source_key};
}

/* Ranges of uneven sizes that cover [0, n) in rank order, some of them empty. */
static char *make_ranges(uint64_t n, uint32_t w)
{
    char *text = calloc(w, 64);
    size_t used = 0;
    uint64_t lo = 0;
    for (uint32_t r = 0; r < w; r++) {
        uint64_t hi = r + 1 == w ? n : lo + (n - lo) * (r * 5 % 4) / 6;
        used += (size_t)snprintf(text + used, 64, "%s%llu:%llu", r ? "," : "", (unsigned long long)lo,
                                 (unsigned long long)hi);
        lo = hi;
    }
    return text;
}

static void describe(const rf_order_options *o, uint64_t n, char *text, size_t bytes)
{
    snprintf(text, bytes, "strategy %d shuffle %d tail %d N %llu W %u B %llu K %llu M %llu", o->strategy, o->shuffle,
             o->tail, (unsigned long long)n, o->world_size, (unsigned long long)o->batch,
             (unsigned long long)o->block_samples, (unsigned long long)o->window_blocks);
}

/* Sequences: whole, in pieces, and back through locate. */
static void check_sequences(const struct rfi_order *order, struct rfi_view *v, const struct reference *ref,
                            uint64_t epoch, const char *what)
{
    uint64_t ids[MOST], piece[MOST], total = 0;
    uint8_t seen[MOST] = {0};
    for (uint32_t r = 0; r < ref->world_size; r++) {
        uint64_t n = ref->n[r], from = n / 3, count = n / 2;
        cr_assert_eq(rfi_order_rank_samples(order, r), n, "%s rank %u", what, r);
        rfi_view_seek(v, epoch, r);
        cr_assert_eq(rfi_view_fill(v, 0, MOST, ids), n, "%s rank %u", what, r);
        cr_assert_eq(memcmp(ids, ref->ids[r], n * sizeof *ids), 0, "%s rank %u", what, r);
        cr_assert_eq(rfi_view_fill(v, from, count, piece), count, "%s", what);
        cr_assert_eq(memcmp(piece, ids + from, count * sizeof *ids), 0, "%s rank %u in pieces", what, r);
        cr_assert_eq(rfi_view_fill(v, n, 1, piece), 0);
        for (uint64_t j = 0; j < n; j++)
            seen[ids[j]]++;
        total += n;
    }
    cr_assert_eq(total, rfi_order_samples(order), "%s", what);
    for (uint64_t i = 0; i < total; i++)
        cr_assert_eq(seen[i], 1, "%s: sample %llu comes %u times", what, (unsigned long long)i, seen[i]);
}

static void check_locate(struct rfi_view *v, const struct reference *ref, uint64_t samples, uint64_t epoch,
                         const char *what)
{
    uint32_t rank;
    uint64_t position;
    for (uint32_t r = 0; r < ref->world_size; r++)
        for (uint64_t j = 0; j < ref->n[r]; j++) {
            cr_assert_eq(rfi_view_locate(v, epoch, ref->ids[r][j], &rank, &position), 0, "%s", what);
            cr_assert(rank == r && position == j, "%s: sample %llu is at %u,%llu not %u,%llu", what,
                      (unsigned long long)ref->ids[r][j], r, (unsigned long long)j, rank, (unsigned long long)position);
        }
    cr_assert_eq(rfi_view_locate(v, epoch, samples, &rank, &position), -ENOENT, "%s", what);
}

static void check_batches(const struct rfi_order *order, struct rfi_view *v, const struct reference *ref,
                          const rf_order_options *o, uint64_t epoch, const char *what)
{
    uint64_t ids[64], want[64];
    uint8_t flags[64], want_flags[64];
    for (uint32_t r = 0; r < ref->world_size; r++) {
        uint64_t len = reference_len(ref, o, r);
        cr_assert_eq(rfi_order_len(order, r), len, "%s rank %u", what, r);
        if (o->tail != RF_TAIL_UNEVEN)
            cr_assert_eq(len, rfi_order_len(order, 0), "%s: ranks differ in len", what);
        rfi_view_seek(v, epoch, r);
        for (uint64_t b = 0; b <= len; b++) {
            uint64_t n = reference_batch(ref, o, r, b, want, want_flags);
            cr_assert_eq(rfi_view_batch(v, b, ids, flags), n, "%s rank %u batch %llu", what, r, (unsigned long long)b);
            cr_assert(memcmp(ids, want, n * sizeof *ids) == 0 && memcmp(flags, want_flags, n) == 0,
                      "%s rank %u batch %llu", what, r, (unsigned long long)b);
        }
    }
}

static void check_one(const rf_order_options *o, uint64_t n, uint64_t epoch)
{
    struct rfi_order_source source = source_of(n);
    struct rfi_error err = {0};
    struct rfi_order *order;
    struct rfi_view *v;
    struct reference ref;
    char what[200];
    describe(o, n, what, sizeof what);
    cr_assert_eq(rfi_order_create(o, &source, NULL, &order, &err), 0, "%s: %s", what, err.text);
    cr_assert_eq(rfi_view_create(order, &v, &err), 0);
    reference_make(&ref, o, n, epoch);
    if (o->tail == RF_TAIL_UNEVEN) { /* the tail rule does not touch the sequences */
        check_sequences(order, v, &ref, epoch, what);
        check_locate(v, &ref, n, epoch, what);
    }
    check_batches(order, v, &ref, o, epoch, what);
    reference_free(&ref);
    rfi_view_destroy(v);
    rfi_order_destroy(order);
}

static void check_strategy(rf_strategy strategy)
{
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
            char *ranges = make_ranges(sizes[n], worlds[w]);
            for (unsigned k = 0; k < 45; k++) {
                rf_order_options o = {.size = sizeof o, .world_size = worlds[w], .strategy = strategy};
                o.shuffle = (rf_shuffle)(k % 3);
                o.tail = (rf_tail)(k / 3 % 3);
                o.batch = batches[k / 9];
                o.seed = 40 + n;
                o.hash_partitions = 64;
                o.block_samples = blocks[(k + n + w) % 5][0];
                o.window_blocks = blocks[(k + n + w) % 5][1];
                o.ranges = strategy == RF_RANGE ? ranges : NULL;
                check_one(&o, sizes[n], k % 4);
            }
            free(ranges);
        }
}

Test(order_grid, round_robin, .timeout = 120)
{
    check_strategy(RF_ROUND_ROBIN);
}

Test(order_grid, contiguous, .timeout = 120)
{
    check_strategy(RF_CONTIGUOUS);
}

Test(order_grid, hash, .timeout = 120)
{
    check_strategy(RF_HASH);
}

Test(order_grid, range, .timeout = 120)
{
    check_strategy(RF_RANGE);
}

Test(order_grid, stratified, .timeout = 120)
{
    check_strategy(RF_STRATIFIED);
}

/* Above the table limit: the network for the whole, for the block order, and for windows. */
Test(order_grid, large, .timeout = 120)
{
    static const uint64_t shapes[][2] = {{1, 70000}, {70000, 2}, {36, 16}};
    const uint64_t n = 200003;
    struct rfi_order_source source = source_of(n);
    for (int strategy = RF_ROUND_ROBIN; strategy <= RF_CONTIGUOUS; strategy++)
        for (unsigned k = 0; k < 4; k++) {
            rf_order_options o = {.size = sizeof o, .world_size = 2, .batch = 1, .seed = 9};
            o.strategy = (rf_strategy)strategy;
            o.shuffle = k == 3 ? RF_SHUFFLE_FULL : RF_SHUFFLE_BLOCK;
            o.block_samples = shapes[k % 3][0];
            o.window_blocks = shapes[k % 3][1];
            struct rfi_order *order;
            struct rfi_view *v;
            struct reference ref;
            uint64_t *ids = malloc(n * sizeof *ids);
            cr_assert_eq(rfi_order_create(&o, &source, NULL, &order, NULL), 0);
            cr_assert_eq(rfi_view_create(order, &v, NULL), 0);
            reference_make(&ref, &o, n, 1);
            for (uint32_t r = 0; r < 2; r++) {
                rfi_view_seek(v, 1, r);
                cr_assert_eq(rfi_view_fill(v, 0, n, ids), ref.n[r]);
                cr_assert_eq(memcmp(ids, ref.ids[r], ref.n[r] * sizeof *ids), 0, "strategy %d shape %u", strategy, k);
            }
            check_locate(v, &ref, n, 1, "large");
            reference_free(&ref);
            rfi_view_destroy(v);
            rfi_order_destroy(order);
            free(ids);
        }
}

/* One view that goes to and fro between epochs, ranks and windows gives what a fresh one gives. */
Test(order_grid, view_moves_freely, .timeout = 60)
{
    const uint64_t n = 3000;
    struct rfi_order_source source = source_of(n);
    for (unsigned k = 0; k < 6; k++) {
        rf_order_options o = {.size = sizeof o, .world_size = 5, .batch = 4, .block_samples = 5, .window_blocks = 3};
        struct rfi_order *order;
        struct rfi_view *moving, *fresh;
        uint64_t got[16], want[16], state = k;
        o.shuffle = k % 2 ? RF_SHUFFLE_FULL : RF_SHUFFLE_BLOCK;
        o.strategy = (rf_strategy)(k / 2);
        cr_assert_eq(rfi_order_create(&o, &source, NULL, &order, NULL), 0);
        cr_assert_eq(rfi_view_create(order, &moving, NULL), 0);
        for (unsigned step = 0; step < 2000; step++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            uint64_t epoch = state >> 60 & 3, from = (state >> 20) % 600;
            uint32_t rank = (uint32_t)(state >> 40) % 5, at_rank;
            uint64_t at;
            rfi_view_seek(moving, epoch, rank);
            uint64_t count = rfi_view_fill(moving, from, 16, got);
            cr_assert_eq(rfi_view_create(order, &fresh, NULL), 0);
            rfi_view_seek(fresh, epoch, rank);
            cr_assert_eq(rfi_view_fill(fresh, from, 16, want), count);
            cr_assert_eq(memcmp(got, want, count * sizeof *got), 0, "case %u step %u", k, step);
            if (count)
                cr_assert_eq(rfi_view_locate(moving, epoch, got[0], &at_rank, &at), 0);
            cr_assert(count == 0 || (at_rank == rank && at == from));
            rfi_view_destroy(fresh);
        }
        rfi_view_destroy(moving);
        rfi_order_destroy(order);
    }
}
