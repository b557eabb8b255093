/* The dataset of a point, as an index file of our own: a server then opens it at once, without scanning files whose
 * pages were just dropped. */
#pragma once

#include "dataset/dataset.h"

#include <limits.h>

struct bench_source {
    char folder[PATH_MAX]; /* "" : none was made */
    char index[PATH_MAX];
    const char *paths[1];
    rf_dataset_options where; /* what a server is given */
    rf_dataset *dataset;
};

/* `block` 0: the dataset as it is. Else its files as records of `block` bytes: what fio calls the block size; what is
 * behind the last whole record of a file is left out. */
int bench_source_open(rf_dataset *d, uint64_t block, struct bench_source *ret, struct rfi_error *err);
void bench_source_close(struct bench_source *s);

/* A fresh folder for temporary files. */
int bench_temporary(char *buf, size_t cap, struct rfi_error *err);
