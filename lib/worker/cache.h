/* The resident cache at work: what a claimed batch finds there is copied and not read, what it has read is kept for the
 * epochs to come. See plan/cache.h for what is kept, run/cache.h for how that is known. */
#pragma once

#include "plan/cache.h"
#include "run/cache.h"

struct rfi_jobs;
struct rfi_job;

struct rfi_resident {
    bool on;
    bool refers; /* batches of kept samples may be references: nothing is ever written in their places */
    struct rfi_resident_map map;
    struct rfi_resident_region region;
    unsigned char *base;
};

int rfi_resident_open(struct rfi_resident *c, struct rfi_run_view *run, const struct rfi_dataset *d,
                      struct rfi_error *err);

/* The functions below are for a cache that is on.
 *
 * After the batch was planned: marks the samples that are kept and takes their reads out of the plan. */
int rfi_resident_look(struct rfi_jobs *j, struct rfi_job *job);

/* Copies the marked samples to their places. */
void rfi_resident_copy(struct rfi_jobs *j, struct rfi_job *job);

/* The batch is read and repaired: keeps its sound samples that belong to the cache. */
void rfi_resident_keep(struct rfi_jobs *j, struct rfi_job *job);
