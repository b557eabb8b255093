/* Decimal numbers in texts that users write: digits only, no sign, no overflow. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Reads digits at *text and moves it behind them; false when there are none or they do not fit. */
static inline bool rfi_read_u64(const char **text, uint64_t *ret)
{
    const char *p = *text;
    uint64_t value = 0;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, 10u, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    }
    *text = p;
    *ret = value;
    return true;
}

/* "A:B" and nothing behind it; false for anything else. */
static inline bool rfi_read_pair(const char *text, uint64_t *ret_a, uint64_t *ret_b)
{
    return rfi_read_u64(&text, ret_a) && *text++ == ':' && rfi_read_u64(&text, ret_b) && *text == '\0';
}
