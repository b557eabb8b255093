/* What the order costs: ns an index one at a time and batched, for every kind of shuffle, on one core.
 * Prints one line a measurement, the best of several rounds. */
#include "base/clock.h"
#include "order/order.h"
#include "order/permutation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Rounds are shorter than a time slice and many: the best one was not interrupted on a busy machine. */
enum { PIECE = 65536, ROUNDS = 150 };

static uint64_t ids[PIECE];
static volatile uint64_t sink; /* what is computed must be used */

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "order_bench: %s\n", what);
    exit(1);
}

/* One index at a time: `chained`, each position is the value before it, so that nothing overlaps. */
static double at_ns(const struct rfi_permutation *p, int chained)
{
    enum { CALLS = 30000 };
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t sum = 0, x = 0, begin = rfi_now_ns();
        if (chained) /* two loops: one with a choice in it would be chained by the choice */
            for (uint64_t i = 0; i < CALLS; i++)
                x = rfi_permutation_at(p, x);
        else
            for (uint64_t i = 0; i < CALLS; i++)
                sum += rfi_permutation_at(p, i & (PIECE - 1));
        double ns = (double)(rfi_now_ns() - begin) / CALLS;
        best = ns < best ? ns : best;
        sink += sum + x;
    }
    return best;
}

static void bench_at(uint64_t n, uint16_t *storage)
{
    struct rfi_permutation p;
    rfi_permutation_init(&p, n, rfi_key_make(1, 2, RFI_KEY_FULL, 0, 0), storage);
    printf("at      %-22s N %-20" PRIu64 " %6.1f ns an index, %6.1f ns when each waits for the one before\n",
           p.table ? "table" : "network", n, at_ns(&p, 0), at_ns(&p, 1));
}

/* An array filled with a rank's sequence, as a worker or a C program would. */
static void bench_fill(const char *name, rf_order_options o, uint64_t n)
{
    struct rfi_order_source source = {.samples = n, .mean_bytes = 110000};
    struct rfi_order *order;
    struct rfi_view *view = NULL;
    uint64_t from = 0;
    double best = 1e9;
    if (rfi_order_create(&o, &source, NULL, &order, NULL) < 0 || rfi_view_create(order, &view, NULL) < 0)
        die("no memory");
    rfi_view_seek(view, 1, o.world_size - 1);
    for (int round = 0; round < ROUNDS; round++) {
        if (from >= rfi_order_rank_samples(order, o.world_size - 1))
            from = 0;
        uint64_t begin = rfi_now_ns(), got = rfi_view_fill(view, from, PIECE, ids);
        double ns = (double)(rfi_now_ns() - begin) / (double)got;
        from += got;
        sink += ids[0];
        best = ns < best ? ns : best;
    }
    printf("fill    %-22s N %-20" PRIu64 " %6.1f ns an index, %6.1f million indices/s\n", name, n, best, 1e3 / best);
    rfi_view_destroy(view);
    rfi_order_destroy(order);
}

int main(void)
{
    static const uint64_t sizes[] = {65536, 65537, 1000000, 1048577, 10000000, 10000000000, UINT64_C(1) << 40};
    uint16_t *storage = malloc(2 * RFI_TABLE_MAX * sizeof *storage);
    if (!storage)
        die("no memory");
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        bench_at(sizes[i], storage);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        rf_order_options o = {.size = sizeof o, .world_size = 8, .batch = 32};
        bench_fill("none", o, sizes[i]);
        o.shuffle = RF_SHUFFLE_FULL;
        bench_fill("full, round-robin", o, sizes[i]);
        o.shuffle = RF_SHUFFLE_BLOCK;
        bench_fill("block, round-robin", o, sizes[i]);
        o.strategy = RF_CONTIGUOUS;
        o.shuffle = RF_SHUFFLE_FULL;
        bench_fill("full, contiguous", o, sizes[i]);
        o.strategy = RF_HASH;
        if (sizes[i] <= 10000000)
            bench_fill("full, hash", o, sizes[i]);
    }
    printf("order verb: time ringfeed order --samples 20000000 --shuffle full --ranks 8 --batch 32 >/dev/null\n");
    free(storage);
    return 0;
}
