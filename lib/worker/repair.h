/* What happens to a batch between its last read and its publication: samples whose read failed, came short
 * or does not match its checksum are read from the other copies; what no copy gives is decided by the error
 * policy (or was decided before: the error log). Every decision is in the log before the batch is published,
 * and once it is there it holds, whoever reads the batch again. Nothing touches a batch after its publication.
 *
 * A sample is judged by itself, never by the read it shared with its neighbours: so what is decided depends on
 * the data and not on how reads were joined. */
#pragma once

#include "worker/job.h"

#include <string.h>

/* A read of the batch (of this run of the plan) failed at [from, to) of a file. False: the job cannot live with it (policy raise and
 * no other copy), it has failed as a whole. */
bool rfi_repair_failed_read(struct rfi_jobs *j, struct rfi_job *job, uint32_t run, uint32_t file, uint64_t from,
                            uint64_t to, int error, uint64_t offset);

/* All reads of the job have landed. True: another read is to be issued (repair.run from repair.copy); false:
 * the batch is as it will be published, or has failed. */
bool rfi_repair_go(struct rfi_jobs *j, struct rfi_job *job);

static inline bool rfi_repair_step(struct rfi_jobs *j, struct rfi_job *job)
{
    return (j->judges || j->cache.on || job->repair.any) && rfi_repair_go(j, job);
}

/* Forgets the suspects of the last batch. */
static inline void rfi_repair_reset(struct rfi_repair *r)
{
    if (r->any)
        memset(r->suspects, 0, r->cap * sizeof *r->suspects);
}
