/* See latency.h. */
#include "worker/latency.h"

#include "base/bytes.h"

void rfi_latency_note(struct rfi_latency *l, uint64_t ns)
{
    uint64_t step = l->median_ns / 16 + 1;
    if (!l->median_ns)
        l->median_ns = ns;
    else if (ns > l->median_ns)
        l->median_ns += rfi_min(step, ns - l->median_ns);
    else
        l->median_ns -= rfi_min(step, l->median_ns - ns);
    l->lowest_ns = l->lowest_ns ? rfi_min(ns, l->lowest_ns + l->lowest_ns / 1024) : ns;
}

uint32_t rfi_latency_depth(double reads_per_s, uint64_t ns)
{
    double depth = reads_per_s * (double)ns * 1e-9 * 1.5;
    uint32_t whole = depth >= UINT32_MAX ? UINT32_MAX : (uint32_t)depth;
    return whole + (whole < UINT32_MAX && (double)whole < depth);
}
