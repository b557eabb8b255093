/* Random datasets for tests, and what they must look like: a plain table beside the image that the
 * builder makes from the same calls. */
#pragma once

#include "dataset/build.h"

#include <stdlib.h>
#include <string.h>

struct made_sample {
    uint32_t file;
    uint64_t offset, bytes;
    uint32_t n_parts;
    char parts[8][12]; /* names */
    uint64_t part_offsets[8], part_bytes[8]; /* from the extent's start */
    bool has_label;
    int64_t label;
    char key[32];
};

struct made {
    struct rfi_dataset *d;
    struct made_sample *samples;
    uint64_t n;
};

enum { MADE_LABELS = 1, MADE_UNLABELED = 2, MADE_KEYS = 4, MADE_FIELDS = 8, MADE_RUNS = 16 };

/* `span`: labels lie in [base, base + span]. */
struct made made_dataset(uint64_t n, int what, int64_t base, uint64_t span, uint64_t seed);
void made_free(struct made *m);

/* Number of differences between what d says and the plain table; 0 is right. */
uint64_t made_differences(const struct made *m, struct rfi_dataset *d);

/* Calls every accessor on everything, whatever the image holds. Returns a sum, so that nothing is
 * optimised away. Must not crash. */
uint64_t made_touch(struct rfi_dataset *d);
