/* What the ends of reads tell: their latency, and whether it is the queue's depth that limits them. */
#pragma once

#include <stdint.h>

struct rfi_latency {
    uint64_t median_ns; /* followed in steps of a sixteenth; 0: none was measured */
    uint64_t lowest_ns; /* of late: it is forgotten by a thousandth a measurement */
};

void rfi_latency_note(struct rfi_latency *l, uint64_t ns);

/* Reads in flight by Little's law, and half as many again: so many keep a device busy that answers in `ns` when nothing
 * is queued in it. */
uint32_t rfi_latency_depth(double reads_per_s, uint64_t ns);
