/* Numbers that look random and follow from their arguments alone: the finaliser of splitmix64. */
#pragma once

#include <stdint.h>

#define BENCH_GOLDEN UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t bench_mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
