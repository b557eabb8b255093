/* One line of delivered ids, "epoch rank batch slot index flag": written by `order` and `attach --ids`,
 * read by `verify`. Millions a second either way, so no stdio formatting. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RFI_ID_LINE_MAX = 5 * 21 + 2 + 1 };

struct rfi_id_line {
    uint64_t epoch, batch, slot, index;
    uint32_t rank;
    char flag; /* '-', 'p' padding, 's' substituted */
};

/* Decimal digits of value at `at`; returns the end. At most 20 bytes. */
static inline char *rfi_put_u64(char *at, uint64_t value)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434"
        "44546474849505152535455565758596061626364656667686970717273747576777879808182838485868788"
        "8990919293949596979899";
    char digits[20];
    unsigned first = 20;
    while (value >= 100) {
        first -= 2;
        memcpy(digits + first, pairs + value % 100 * 2, 2);
        value /= 100;
    }
    if (value >= 10) {
        first -= 2;
        memcpy(digits + first, pairs + value * 2, 2);
    } else {
        digits[--first] = (char)('0' + value);
    }
    memcpy(at, digits + first, 20 - first);
    return at + (20 - first);
}

/* Reads one line of `bytes` bytes without its newline; false when it is not exactly such a line. */
bool rfi_id_line_parse(const char *text, size_t bytes, struct rfi_id_line *ret);
