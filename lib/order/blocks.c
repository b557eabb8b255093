/* Arithmetic of shuffled blocks. Places behind the short block are moved up by what it lacks: adding
 * that back gives a grid of whole blocks. */
#include "order/blocks.h"

void rfi_blocks_init(struct rfi_blocks *b, uint64_t n, uint64_t block, struct rfi_permutation *order)
{
    b->n = n;
    b->block = block;
    b->n_blocks = rfi_blocks_count(n, block);
    b->magic = UINT64_MAX / block;
    b->order = order;
    b->short_missing = n % block ? block - n % block : 0;
    b->short_end = n;
    if (b->short_missing) {
        uint64_t at = rfi_permutation_inverse(order, b->n_blocks - 1);
        b->short_end = at * block + n % block; /* at < n_blocks: at most n */
    }
}

/* u / block: multiplied by the rounded-down reciprocal, the quotient is at most one too small. */
static inline uint64_t divide(const struct rfi_blocks *b, uint64_t u)
{
    uint64_t q = (uint64_t)((unsigned __int128)u * b->magic >> 64);
    return q + (u - q * b->block >= b->block);
}

void rfi_blocks_map(const struct rfi_blocks *b, uint64_t *u, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t grid = u[i] + (u[i] >= b->short_end ? b->short_missing : 0);
        uint64_t q = divide(b, grid);
        u[i] = rfi_permutation_at(b->order, q) * b->block + (grid - q * b->block);
    }
}

uint64_t rfi_blocks_place(const struct rfi_blocks *b, uint64_t x)
{
    uint64_t q = divide(b, x);
    uint64_t grid = rfi_permutation_inverse(b->order, q) * b->block + (x - q * b->block);
    return grid >= b->short_end ? grid - b->short_missing : grid;
}
