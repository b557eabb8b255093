/* The page cache before a run: brought to a known state, and looked at. */
#pragma once

#include "dataset/dataset.h"

#include <signal.h>

enum bench_cache { BENCH_CACHE_WARM, BENCH_CACHE_COLD, BENCH_CACHE_AS_IS, BENCH_CACHE_BOTH };

enum bench_drop { BENCH_DROP_NONE, BENCH_DROP_ALL, BENCH_DROP_BY_FILE };

struct bench_cached {
    bool known;
    double part; /* of the dataset's bytes, 0 to 1: looked at in up to 256 files */
    enum bench_drop dropped; /* how it was made cold */
};

/* Whether the memory that is available now holds all of it. */
bool bench_cache_fits(const struct rfi_dataset *d);

/* WARM: what is not cached is read once. COLD: root drops the machine's caches, others advise file by file.
 * -EINTR when *interrupted. */
int bench_cache_prepare(const struct rfi_dataset *d, enum bench_cache to, const volatile sig_atomic_t *interrupted,
                        struct bench_cached *ret, struct rfi_error *err);
