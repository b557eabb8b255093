/* What the bytes of a batch look like in the arena: footprint, place of every sample, and the reads
 * that fill it. Pure functions of the dataset table and A (lib/README.md, "Places"): they do not
 * depend on the engine, on O_DIRECT, or on which worker asks.
 *
 * Layout rules, in order of the batch's samples:
 *  - dataset of fixed-size samples: one dense tensor, sample i at i * fixed_bytes.
 *  - variable: neighbours in the batch that are neighbours in the same file (the next begins at or
 *    after the end of the one before, at most RFI_JOIN_GAP bytes later) form a *run*, read by one read.
 *    A run whose extent has at least 16*A bytes takes its extent rounded outwards to A, at an
 *    A-aligned place, so that sample bytes sit at place + (file offset mod A) and O_DIRECT can read in
 *    place. A smaller run is packed behind the one before at 64-byte alignment ("packed"): O_DIRECT
 *    reads it through staging.
 *  - no two footprints share an A-block: the total is rounded up to A and is at least A. */
#pragma once

#include "dataset/dataset.h"

#include <stdint.h>

enum { RFI_JOIN_GAP = 4096, RFI_PACK_ALIGN = 64, RFI_MIN_ALIGN = 512 };

struct rfi_run {
    uint32_t file;
    uint32_t first; /* of the batch's samples; its last one comes before the next run's first */
    uint64_t offset, bytes; /* exact extent in the file: first sample's start to last sample's end */
    uint64_t place; /* of the byte at `offset`, from the start of the batch's region */
    bool in_place; /* the region holds the extent rounded outwards to A around it */
};

struct rfi_batch_plan {
    uint64_t footprint; /* bytes of arena, a multiple of A, >= A */
    uint32_t n_samples, n_runs;
    struct rfi_run *runs; /* [n_runs], storage for `cap` runs */
    uint64_t *offsets; /* [n_samples] of the sample's first byte from the region's start */
    uint64_t *lengths; /* [n_samples] extents' bytes */
    struct rfi_run *other_runs; /* as many, for rfi_plan_omit */
    uint32_t cap;
};

/* Storage for batches of up to `cap` samples. */
int rfi_plan_init(struct rfi_batch_plan *p, uint32_t cap, struct rfi_error *err);
void rfi_plan_fini(struct rfi_batch_plan *p);

/* Takes the reads of the marked samples out: runs become what is left of them. Places stay. `fixed`: the dataset's
 * samples are of one size. */
void rfi_plan_omit(struct rfi_batch_plan *p, uint64_t align, bool fixed, const uint8_t *omit);

/* Lays out the batch of `n` samples. `align` is A. -EBADMSG for a damaged table. */
int rfi_plan_batch(const struct rfi_dataset *d, uint64_t align, const uint64_t *ids, uint32_t n,
                   struct rfi_batch_plan *p, struct rfi_error *err);

/* Only the footprint (the place chain needs no more). Same result as rfi_plan_batch. */
int rfi_plan_footprint(const struct rfi_dataset *d, uint64_t align, const uint64_t *ids, uint32_t n, uint64_t *ret,
                       struct rfi_error *err);

/* An upper bound of every possible batch's footprint when no sample comes twice in a batch: the `batch`
 * largest samples at worst-case alignment. Scans the table once for variable datasets. Under tail `pad`
 * a rank with fewer samples than a batch repeats them: rfi_plan_largest_of() in plan/arena.h counts
 * that too and is what a server wants. */
int rfi_plan_largest(const struct rfi_dataset *d, uint64_t align, uint64_t batch, uint64_t *ret, struct rfi_error *err);

/* The same when one sample may come up to `repeats` (at least 1) times in a batch. */
int rfi_plan_largest_repeated(const struct rfi_dataset *d, uint64_t align, uint64_t batch, uint64_t repeats,
                              uint64_t *ret, struct rfi_error *err);

/* A of the dataset: the largest DIO alignment (memory or offset) over a sample of its files (all of
 * them up to 64, then spread evenly), at least RFI_MIN_ALIGN. Files that cannot be opened are left
 * for the reader to report. `*ret_direct`: whether every file looked at takes O_DIRECT. */
int rfi_plan_align(const struct rfi_dataset *d, uint64_t *ret_align, bool *ret_direct, struct rfi_error *err);
