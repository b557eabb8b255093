/* Log-linear buckets of waiting times: 8 a power of two, so a bucket's bounds are at most 12.5 % apart. */
#include "ring/ring.h"

unsigned rfi_wait_bucket(uint64_t ns)
{
    unsigned power, bucket;

    if (ns < 8)
        return (unsigned)ns;
    power = 63 - (unsigned)__builtin_clzll(ns);
    bucket = (power - 2) * 8 + (unsigned)(ns >> (power - 3) & 7);
    return bucket < RFI_WAIT_BUCKETS ? bucket : RFI_WAIT_BUCKETS - 1;
}

/* The last bucket (from 16 seconds on) has no bound: its nominal one stands for it. */
uint64_t rfi_wait_bucket_ns(unsigned bucket)
{
    unsigned power;

    if (bucket < 8)
        return bucket;
    if (bucket >= RFI_WAIT_BUCKETS)
        bucket = RFI_WAIT_BUCKETS - 1;
    power = bucket / 8 + 2;
    return ((UINT64_C(9) + bucket % 8) << (power - 3)) - 1;
}
