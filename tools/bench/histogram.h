/* Waiting times in log-linear buckets: exact below 64 ns, 64 buckets a power of two above it, so that a bucket's
 * bound is less than 1/64 (1.6 %) above any value in it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { BENCH_SUB_BITS = 6, BENCH_SUB = 1 << BENCH_SUB_BITS, BENCH_BUCKETS = (64 - BENCH_SUB_BITS + 1) * BENCH_SUB };

/* A quantile is known only where at least so many values lie beyond it. */
enum { BENCH_BEYOND_LEAST = 5 };

struct bench_histogram {
    uint64_t n, max;
    uint64_t counts[BENCH_BUCKETS];
};

void bench_histogram_add(struct bench_histogram *h, uint64_t ns);
void bench_histogram_merge(struct bench_histogram *h, const struct bench_histogram *from);
/* The value that the share q (0 to 1) of all values does not exceed; false: too few values to say. */
bool bench_histogram_quantile(const struct bench_histogram *h, double q, uint64_t *ret_ns);
/* Values it takes until quantile q is known. */
uint64_t bench_histogram_needs(double q);
