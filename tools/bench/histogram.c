#include "bench/histogram.h"

#include "base/bytes.h"

#include <math.h>

static unsigned bucket_of(uint64_t ns)
{
    if (ns < BENCH_SUB)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - BENCH_SUB_BITS;
    return (shift + 1) * BENCH_SUB + (unsigned)(ns >> shift & (BENCH_SUB - 1));
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_most(unsigned bucket)
{
    if (bucket < BENCH_SUB)
        return bucket;
    unsigned shift = bucket / BENCH_SUB - 1;
    uint64_t first = (uint64_t)(BENCH_SUB + bucket % BENCH_SUB) << shift;
    return first + ((UINT64_C(1) << shift) - 1);
}

void bench_histogram_add(struct bench_histogram *h, uint64_t ns)
{
    h->counts[bucket_of(ns)]++;
    h->n++;
    h->max = rfi_max(h->max, ns);
}

void bench_histogram_merge(struct bench_histogram *h, const struct bench_histogram *from)
{
    for (unsigned i = 0; i < BENCH_BUCKETS; i++)
        h->counts[i] += from->counts[i];
    h->n += from->n;
    h->max = rfi_max(h->max, from->max);
}

uint64_t bench_histogram_needs(double q)
{
    return (uint64_t)ceil(BENCH_BEYOND_LEAST / (1 - q) - 1e-6);
}

bool bench_histogram_quantile(const struct bench_histogram *h, double q, uint64_t *ret_ns)
{
    uint64_t seen = 0, rank = (uint64_t)ceil(q * (double)h->n - 1e-6);
    if (h->n < bench_histogram_needs(q))
        return false;
    for (unsigned i = 0; i < BENCH_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= rank) {
            *ret_ns = rfi_min(bucket_most(i), h->max);
            return true;
        }
    }
    return false;
}
