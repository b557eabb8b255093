/* The resident cache: which samples it keeps, and where in its memory. Pure functions of the dataset table and of
 * its size, so that no process has to ask another.
 *
 * Kept are the first `n` of a keyed permutation of the samples: whatever order an epoch has, kept ones are spread
 * evenly over it. Nothing is ever thrown out: each sample comes once an epoch, so that with a random order no policy
 * can hit more often than by the part that it keeps. */
#pragma once

#include "base/error.h"
#include "dataset/dataset.h"
#include "order/permutation.h"

#include <stdbool.h>
#include <stdint.h>

enum { RFI_RESIDENT_ALIGN = 64 };
#define RFI_RESIDENT_NONE UINT64_MAX

/* Sizes, decided at birth. */
struct rfi_resident_size {
    uint64_t n; /* samples kept */
    uint64_t bytes; /* that they take, <= what was asked for */
    uint64_t unit; /* variable sizes: places count in this; 0: sample k at k * fixed_bytes */
};

/* What `room` bytes can keep. Looks at the table of as many samples as that is. */
int rfi_resident_size(const struct rfi_dataset *d, uint64_t room, struct rfi_resident_size *ret, struct rfi_error *err);

struct rfi_resident_map {
    uint64_t n, samples, fixed, unit;
    const uint32_t *places; /* [n], borrowed; NULL with fixed sizes */
    struct rfi_permutation members; /* not used when all are kept */
    uint16_t *storage;
};

/* `places` need not be filled yet. */
int rfi_resident_map_init(struct rfi_resident_map *m, const struct rfi_dataset *d, const struct rfi_resident_size *size,
                          const uint32_t *places, struct rfi_error *err);
void rfi_resident_map_fini(struct rfi_resident_map *m);

/* Computes the places of variable sizes. */
int rfi_resident_map_fill(const struct rfi_resident_map *m, const struct rfi_dataset *d, uint32_t *places,
                          struct rfi_error *err);

/* Number of sample `id` among the kept ones, or RFI_RESIDENT_NONE. */
static inline uint64_t rfi_resident_find(struct rfi_resident_map *m, uint64_t id)
{
    uint64_t k = m->n == m->samples ? id : rfi_permutation_inverse(&m->members, id);
    return k < m->n ? k : RFI_RESIDENT_NONE;
}

/* Where the k-th kept sample begins; k < n. */
static inline uint64_t rfi_resident_place(const struct rfi_resident_map *m, uint64_t k)
{
    return m->places ? m->places[k] * m->unit : k * m->fixed;
}
