/* Data sets in a workload's shape: FOLDER/NAME/data holds the files, FOLDER/NAME/workload.json says what they are. */
#pragma once

#include "base/error.h"
#include "bench/shapes.h"

#include <limits.h>
#include <signal.h>

struct bench_data {
    const struct bench_shape *shape;
    double scale; /* of a sample's bytes; 1: as published */
    uint64_t seed, samples;
    bool complete;
    char folder[PATH_MAX]; /* FOLDER/NAME */
    char files[PATH_MAX]; /* FOLDER/NAME/data */
};

uint64_t bench_data_files(const struct bench_data *d);
uint64_t bench_data_bytes(const struct bench_data *d);

/* Fills the paths. */
int bench_data_place(struct bench_data *d, const char *folder, struct rfi_error *err);
/* What is in the place: 1 and the rest of *d, 0: nothing. -EBADMSG: something else. */
int bench_data_find(struct bench_data *d, struct rfi_error *err);
/* Writes what is missing; a file that is there has its name only since it was whole. `progress` is called with the
 * bytes done. -EINTR when *interrupted: the next call goes on. */
int bench_data_make(struct bench_data *d, void (*progress)(void *ctx, uint64_t bytes), void *ctx,
                    const volatile sig_atomic_t *interrupted, struct rfi_error *err);
