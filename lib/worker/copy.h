/* Reads that need no waiting (reader.h, at_once): made before anything is queued. */
#pragma once

#include "worker/job.h"

/* Copies what can be copied of the job's runs. From then on the plan's runs are what is left to be queued: whole runs
 * and ends of runs, in their order. */
void rfi_job_copy(struct rfi_jobs *j, struct rfi_job *job);
