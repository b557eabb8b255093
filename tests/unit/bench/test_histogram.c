/* Quantiles against the sorted values themselves, at every scale, within the promised error; and silence where there
 * are too few values. */
#include "bench/histogram.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t state = 88172645463325252u;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* The true quantile lies at most 1/64 below what the histogram says, and never above it. */
static void check(const struct bench_histogram *h, const uint64_t *sorted, size_t n, double q)
{
    uint64_t said, truth = sorted[(size_t)ceil(q * (double)n - 1e-6) - 1];
    cr_assert(bench_histogram_quantile(h, q, &said), "q %g of %zu", q, n);
    cr_assert(said >= truth && (double)(said - truth) <= (double)truth / 64, "q %g: %lu for %lu", q, said, truth);
}

Test(histogram, quantiles_are_within_a_sixty_fourth)
{
    enum { N = 60000 };
    static struct bench_histogram h;
    uint64_t *values = malloc(N * sizeof *values);
    for (size_t i = 0; i < N; i++) {
        values[i] = next_random() >> (next_random() % 64); /* every magnitude, 0 too */
        bench_histogram_add(&h, values[i]);
    }
    qsort(values, N, sizeof *values, by_size);
    const double wanted[] = {0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        check(&h, values, N, wanted[i]);
    cr_assert_eq(h.max, values[N - 1]);
    free(values);
}

Test(histogram, small_and_extreme_values_are_exact)
{
    const uint64_t edges[] = {0, 1, 63, 64, 65, 127, 128, UINT64_MAX};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        struct bench_histogram *h = calloc(1, sizeof *h);
        uint64_t said = 1;
        for (int k = 0; k < 10; k++)
            bench_histogram_add(h, edges[i]);
        cr_assert(bench_histogram_quantile(h, 0.5, &said));
        cr_assert_eq(said, edges[i]);
        free(h);
    }
}

Test(histogram, too_few_values_give_no_quantile)
{
    static struct bench_histogram h;
    const double wanted[] = {0.5, 0.99, 0.999};
    uint64_t said;
    for (size_t i = 0; i < 3; i++) {
        uint64_t needs = bench_histogram_needs(wanted[i]);
        cr_assert_eq(needs, (uint64_t)llround(BENCH_BEYOND_LEAST / (1 - wanted[i])));
        while (h.n + 1 < needs)
            bench_histogram_add(&h, 5);
        cr_assert(!bench_histogram_quantile(&h, wanted[i], &said));
        bench_histogram_add(&h, 5);
        cr_assert(bench_histogram_quantile(&h, wanted[i], &said));
    }
}

Test(histogram, merging_is_adding)
{
    static struct bench_histogram one, two, both;
    for (int i = 0; i < 5000; i++) {
        uint64_t v = next_random() % 1000000;
        bench_histogram_add(i % 3 ? &one : &two, v);
        bench_histogram_add(&both, v);
    }
    bench_histogram_merge(&one, &two);
    cr_assert_eq(one.n, both.n);
    cr_assert_eq(one.max, both.max);
    cr_assert_arr_eq(one.counts, both.counts, sizeof one.counts);
}
