/* What becomes of a sample that no copy gives: the batch fails (raise), the sample is left out (skip), or the
 * next sample of the rank's epoch that fits its place and can be read stands in for it (replace). */
#pragma once

#include "worker/job.h"

enum rfi_policy_next {
    RFI_POLICY_TRY, /* repair.id is a substitute to be read into the place of repair.slot */
    RFI_POLICY_DECIDED, /* the slot is settled: it is left out */
    RFI_POLICY_FAILED, /* the job has failed */
};

/* Nothing (more) of repair.id can be read for repair.slot. */
enum rfi_policy_next rfi_policy_lost(struct rfi_jobs *j, struct rfi_job *job);

/* Enters a decision about repair.slot in the log; false: there is no room, the job has failed. */
bool rfi_policy_decide(struct rfi_jobs *j, struct rfi_job *job, uint64_t substitute);

/* The job fails by the sample in repair.slot. */
void rfi_policy_raise(struct rfi_jobs *j, struct rfi_job *job);

/* Remembers a decision for this batch; false: no memory, the job has failed. */
bool rfi_policy_note(struct rfi_job *job, const struct rfi_fault *entry);

/* The undisturbed sample of repair.slot. */
uint64_t rfi_policy_own(const struct rfi_jobs *j, const struct rfi_job *job);
