/* The concatenation of shuffled blocks: a sequence of n samples is cut into blocks of K, of which only
 * the last may be short, and the blocks are laid end to end in the order of a permutation. Place u of
 * that concatenation to element x of the sequence and back, in constant time. */
#pragma once

#include "order/permutation.h"

#include <stdint.h>

struct rfi_blocks {
    uint64_t n, block; /* block >= 1 */
    uint64_t n_blocks;
    uint64_t magic; /* reciprocal of block */
    uint64_t short_missing; /* elements that the last block lacks */
    uint64_t short_end; /* place behind the last block of the sequence */
    struct rfi_permutation *order; /* of n_blocks */
};

static inline uint64_t rfi_blocks_count(uint64_t n, uint64_t block)
{
    return n / block + (n % block != 0);
}

/* `order` permutes rfi_blocks_count(n, block) values and must outlive b. */
void rfi_blocks_init(struct rfi_blocks *b, uint64_t n, uint64_t block, struct rfi_permutation *order);

/* Replaces each place u < n in u[count] by the element there. */
void rfi_blocks_map(const struct rfi_blocks *b, uint64_t *u, uint64_t count);

/* The place of element x < n. */
uint64_t rfi_blocks_place(const struct rfi_blocks *b, uint64_t x);
