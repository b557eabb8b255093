/* Table or network: the choice, and the table. */
#include "order/permutation.h"

/* Fisher–Yates, inside out: every permutation is equally likely as far as the random words are. */
static void shuffle(uint16_t *values, uint64_t n, struct rfi_key key)
{
    struct rfi_random random;
    rfi_random_init(&random, key);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t j = rfi_random_below(&random, i + 1);
        values[i] = values[j];
        values[j] = (uint16_t)i;
    }
}

void rfi_permutation_init(struct rfi_permutation *p, uint64_t n, struct rfi_key key, uint16_t *storage)
{
    p->n = n;
    p->table = n <= RFI_TABLE_MAX;
    p->inverse_ready = false;
    p->values = p->inverse = NULL;
    if (!p->table) {
        rfi_feistel_init(&p->feistel, n, key);
    } else if (n) {
        p->values = storage;
        p->inverse = storage + n;
        shuffle(p->values, n, key);
    }
}

uint64_t rfi_permutation_at(const struct rfi_permutation *p, uint64_t i)
{
    return p->table ? p->values[i] : rfi_feistel_at(&p->feistel, i);
}

uint64_t rfi_permutation_inverse(struct rfi_permutation *p, uint64_t value)
{
    if (!p->table)
        return rfi_feistel_inverse(&p->feistel, value);
    if (!p->inverse_ready) {
        for (uint64_t i = 0; i < p->n; i++)
            p->inverse[p->values[i]] = (uint16_t)i;
        p->inverse_ready = true;
    }
    return p->inverse[value];
}

void rfi_permutation_fill(const struct rfi_permutation *p, uint64_t start, uint64_t stride, uint64_t count,
                          uint64_t *out)
{
    if (!p->table) {
        rfi_feistel_fill(&p->feistel, start, stride, count, out);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        out[i] = p->values[start + i * stride];
}
