/* Comparing delivered bytes with the dataset's files, by plain pread: shares nothing with the readers. */
#pragma once

#include "dataset/dataset.h"

#include <ringfeed/ringfeed.h>
#include <stdint.h>

struct check {
    const struct rfi_dataset *dataset;
    uint64_t samples, errors;
    unsigned char *buffer;
    size_t buffer_bytes;
    struct {
        uint32_t file;
        int fd; /* -1: empty */
    } open[64];
};

void check_init(struct check *c, const struct rfi_dataset *d);
void check_fini(struct check *c);

/* Every sample of the batch; the first few differences are said. */
void check_batch(struct check *c, const rf_batch *b);
