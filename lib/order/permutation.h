/* A keyed permutation of [0, n): a Fisher–Yates table up to RFI_TABLE_MAX values, a Feistel network
 * above. Both are seekable and invertible; which one is used is a function of n alone and part of the
 * order's contract. */
#pragma once

#include "order/feistel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFI_TABLE_MAX = 65536 };

struct rfi_permutation {
    uint64_t n;
    bool table;
    bool inverse_ready; /* the inverse table is made when first asked for */
    uint16_t *values, *inverse; /* [n] each, in the caller's storage */
    struct rfi_feistel feistel;
};

/* Entries of uint16_t storage that a permutation of n values needs. */
static inline size_t rfi_permutation_storage(uint64_t n)
{
    return n <= RFI_TABLE_MAX ? 2 * (size_t)n : 0;
}

/* n <= 2^63. `storage` holds rfi_permutation_storage(n) entries, must outlive p, may be NULL for none. */
void rfi_permutation_init(struct rfi_permutation *p, uint64_t n, struct rfi_key key, uint16_t *storage);

/* i < n. */
uint64_t rfi_permutation_at(const struct rfi_permutation *p, uint64_t i);
uint64_t rfi_permutation_inverse(struct rfi_permutation *p, uint64_t value);

/* out[i] = at(start + i * stride); all positions < n. */
void rfi_permutation_fill(const struct rfi_permutation *p, uint64_t start, uint64_t stride, uint64_t count,
                          uint64_t *out);
