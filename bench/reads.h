/* The list of reads that a reference program makes: from stdin, or what ringfeed would read for a dataset
 * and an order (runs of the batch plan, cut into pieces). */
#pragma once

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
    uint64_t align; /* A: what O_DIRECT wants; 512 when nothing is known */
    uint32_t piece; /* no read is larger (before rounding to A); a multiple of A */
    bool direct; /* will be read with O_DIRECT */
};

/* Lines "file TAB offset TAB bytes". 0, or -1 after a message. */
int reads_from_stdin(struct reads *r);

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
int reads_from_dataset(struct reads *r, const struct reads_order *o);

void reads_free(struct reads *r);
