/* A keyed permutation of [0, n) with no memory: position to value and back in constant time, for n
 * up to 2^63. An alternating Feistel network of 8 rounds on b = ceil(log2 n) bits, the right half
 * floor(b/2) of them wide. The left half counts only to n / 2^floor(b/2), rounded up, and is added to
 * modulo that instead of being xored: the network's domain exceeds n by less than one part in 128
 * (n > 65,536), so that "cycle walking" (sending a value outside [0, n) through again until it is
 * inside, which keeps the map a bijection) is rare and costs the same for every n. On a full b bits
 * half of the values would walk just above a power of two, and an index would cost twice as much.
 *
 * Good for large n. At a few hundred values exact tests still see it, and there a table is smaller
 * than the argument (permutation.h chooses). Statistical quality, not secrecy, is the aim. */
#pragma once

#include "order/key.h"

#include <stdint.h>

enum { RFI_FEISTEL_ROUNDS = 8 };

struct rfi_feistel {
    uint64_t n;
    uint64_t n_left; /* values of the left half: n / 2^right_bits, rounded up */
    uint64_t right_mask;
    unsigned right_bits; /* floor(b / 2) */
    uint64_t add[RFI_FEISTEL_ROUNDS], mul[RFI_FEISTEL_ROUNDS];
};

/* 1 <= n <= 2^63. */
void rfi_feistel_init(struct rfi_feistel *f, uint64_t n, struct rfi_key key);

/* p < n. */
uint64_t rfi_feistel_at(const struct rfi_feistel *f, uint64_t p);
uint64_t rfi_feistel_inverse(const struct rfi_feistel *f, uint64_t value);

/* out[i] = at(start + i * stride); all positions < n. Much faster than one at a time: passes overlap
 * in the CPU because no branch waits for a result. */
void rfi_feistel_fill(const struct rfi_feistel *f, uint64_t start, uint64_t stride, uint64_t count, uint64_t *out);
