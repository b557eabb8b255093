/* Named splits, "train:0.9,val:0.1": a keyed permutation of the samples that does not depend on seed
 * or epoch, cut at the rounded cumulative fractions. Fractions are exact decimals and add up to 1, so
 * the splits are disjoint and together everything, on every machine. */
#pragma once

#include "base/error.h"

#include <stdint.h>

struct rfi_split {
    uint64_t begin, end; /* cumulative fractions in units of RFI_SPLIT_ONE */
};

#define RFI_SPLIT_ONE UINT64_C(1000000000000000000)

/* Parses `text` and finds the split named `use`. -EINVAL with the part named. */
int rfi_split_parse(const char *text, const char *use, struct rfi_split *ret, struct rfi_error *err);

/* Samples of the split among n <= 2^32. */
uint64_t rfi_split_count(const struct rfi_split *s, uint64_t n);

/* Writes its members among [0, n), ascending, into members[rfi_split_count()]. */
int rfi_split_members(const struct rfi_split *s, uint64_t n, uint32_t *members, struct rfi_error *err);
