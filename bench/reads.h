/* The list of reads that a reference program makes: from stdin, or what ringfeed would read for a dataset
 * and an order (runs of the batch plan, cut into pieces). */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct read {
    uint64_t offset; /* of the file */
    uint32_t bytes;
    uint32_t file;
};

struct reads {
    struct read *items;
    size_t n, cap;
    char **files;
    size_t n_files, files_cap;
    uint64_t samples, bytes; /* what the reads are for: samples, and their bytes without gaps between them */
    uint64_t align; /* A: what O_DIRECT wants; 512 when nothing is known */
    uint32_t piece; /* no read is larger (before rounding to A); a multiple of A */
    bool direct; /* will be read with O_DIRECT */
};

int reads_file(struct reads *r, const char *path, uint32_t *ret, struct rfi_error *err);
/* One extent, cut into pieces. */
int reads_extent(struct reads *r, uint32_t file, uint64_t offset, uint64_t bytes, struct rfi_error *err);

/* Lines "file TAB offset TAB bytes". */
int reads_from_stdin(struct reads *r, struct rfi_error *err);

/* What of an order is read: epochs [epoch, epoch + epochs) of the ranks [first_rank, first_rank + ranks), a batch of
 * each rank in turn, of which this list gets every `parts`th, beginning with the `part`th; no more than `most` reads. */
struct reads_part {
    uint64_t epoch, epochs;
    uint32_t first_rank, ranks;
    uint32_t part, parts;
    uint64_t batch;
    size_t most; /* 0: any number */
};
int reads_from_order(struct reads *r, rf_dataset *d, rf_order *order, const struct reads_part *p,
                     struct rfi_error *err);

struct reads_order {
    const char *const *paths;
    size_t n_paths;
    const char *format;
    uint64_t record_bytes, header_bytes;
    uint64_t batch, seed, epochs;
    uint32_t world_size, rank;
    int shuffle; /* rf_shuffle */
};

/* Every read of one rank in the order in which ringfeed would issue them with one worker. */
int reads_from_paths(struct reads *r, const struct reads_order *o, struct rfi_error *err);

void reads_free(struct reads *r);
