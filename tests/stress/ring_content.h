/* What batch (epoch, batch) at a ticket is made of in the stress: formulae shared by the one who writes it
 * and the one who checks it, and by nobody in the ring. */
#pragma once

#include "ring_body.h"

static inline uint64_t content_base(uint64_t epoch, uint64_t batch, uint64_t ticket)
{
    return ring_mix(ring_mix(epoch * 1000003 + batch) ^ ring_mix(ticket));
}

/* Mostly small, at times as large as the shortest lap. */
static inline uint64_t content_footprint(uint64_t epoch, uint64_t batch, uint64_t lap_bytes)
{
    uint64_t x = ring_mix(epoch << 32 ^ batch ^ 77);
    uint64_t blocks = lap_bytes / 512;
    uint64_t most = x % 64 == 0 ? blocks : x % 4 == 0 ? blocks / 2 : blocks / 8;
    return 512 * (1 + (x >> 8) % most);
}

/* 0: a good batch; else the code of its ERROR. */
static inline unsigned content_error(uint64_t epoch, uint64_t batch)
{
    uint64_t x = ring_mix(epoch * 31 + batch * 7 + 5);
    return x % 50 == 0 ? 1 + (unsigned)(x >> 8) % 4000 : 0;
}

static inline uint64_t content_word(uint64_t base, uint64_t index)
{
    return base + index * UINT64_C(0x2545f4914f6cdd1d);
}
