/* The ranges that a user gives, one a rank: "0:250,250:500", half open. */
#pragma once

#include "base/error.h"

#include <stdint.h>

struct rfi_range {
    uint64_t lo, hi;
};

/* Parses exactly `n` ranges into a new array. -EINVAL: syntax, count, hi < lo; the range is named. */
int rfi_ranges_parse(const char *text, uint32_t n, struct rfi_range **ret, struct rfi_error *err);

/* Refuses overlaps unless allowed. */
int rfi_ranges_check_overlap(const struct rfi_range *ranges, uint32_t n, int allow_overlap, struct rfi_error *err);

/* Refuses ranges that end behind `samples`, and samples in no range unless gaps are allowed. */
int rfi_ranges_check_cover(const struct rfi_range *ranges, uint32_t n, uint64_t samples, int allow_gaps,
                           struct rfi_error *err);
