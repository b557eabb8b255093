/* Second reads of late ones. With --hedge-ms all reads of a worker go through its staging, each to a place of
 * its own: so a second read can win while the first is still out. The first then lands in staging and nobody
 * looks; its place is not used again before that. No read that is out can touch a batch that is published. */
#pragma once

#include "worker/job.h"

/* Asks a second time for reads that are later than hedge_ns: of a mirror, else of the same file. */
void rfi_jobs_hedge(struct rfi_jobs *j);

/* A read that has a twin is over. True: it failed and the twin decides; false: it counts, and the twin is on
 * its own. */
bool rfi_hedge_settled(struct rfi_jobs *j, uint32_t tag, int error);
