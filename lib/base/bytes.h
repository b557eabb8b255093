/* Integer helpers that every layer needs: alignment and checked arithmetic. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* `a` is a power of two. */
static inline uint64_t rfi_align_down(uint64_t x, uint64_t a)
{
    return x & ~(a - 1);
}

static inline uint64_t rfi_align_up(uint64_t x, uint64_t a)
{
    return (x + a - 1) & ~(a - 1);
}

static inline uint64_t rfi_div_up(uint64_t x, uint64_t d)
{
    return x / d + (x % d != 0);
}

static inline uint64_t rfi_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t rfi_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* True on overflow, as the builtins. */
static inline bool rfi_add_over(uint64_t a, uint64_t b, uint64_t *ret)
{
    return __builtin_add_overflow(a, b, ret);
}

static inline bool rfi_mul_over(uint64_t a, uint64_t b, uint64_t *ret)
{
    return __builtin_mul_overflow(a, b, ret);
}
