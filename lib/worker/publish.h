/* The last step of a job: descriptor, statistics, publish. */
#pragma once

#include "worker/job.h"

/* Fills the slot's arrays and descriptor (between claim and publish they are ours). */
void rfi_publish_describe(struct rfi_jobs *j, struct rfi_job *job, uint64_t epoch, uint64_t batch,
                          const struct rfi_content *content);

/* The part of it that the error policy may change: places, lengths, fields and labels of the slot's ids. */
void rfi_publish_settle(struct rfi_jobs *j, struct rfi_job *job);

/* Publishes the batch or its error. No read of it is in flight any more. */
void rfi_publish_job(struct rfi_jobs *j, struct rfi_job *job);
