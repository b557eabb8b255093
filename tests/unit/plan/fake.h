/* A dataset table that a test fills as it likes, hostile entries included: stands in for lib/dataset, of
 * which the plan uses nothing but these few functions. */
#pragma once

#include "dataset/dataset.h"

struct rfi_dataset {
    uint64_t samples, fixed;
    struct rfi_extent *extents; /* [samples] */
    uint64_t damaged; /* this sample answers -EBADMSG; UINT64_MAX: none */
    uint32_t n_files;
    const char *const *paths; /* [n_files] */
};
