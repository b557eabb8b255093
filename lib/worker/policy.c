/* See policy.h. */
#include "worker/policy.h"

#include "base/log.h"
#include "run/faults.h"

#include <errno.h>
#include <stdlib.h>

/* A substitute is looked for among so many samples behind the failed one, and so many of them are read. */
enum { LOOK_MOST = 4096, TRY_MOST = 64 };

uint64_t rfi_policy_own(const struct rfi_jobs *j, const struct rfi_job *job)
{
    struct rfi_arrays a;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    return a.ids[job->repair.slot];
}

void rfi_policy_raise(struct rfi_jobs *j, struct rfi_job *job)
{
    const struct rfi_suspect *s = &job->repair.suspects[job->repair.slot];
    uint64_t id = rfi_policy_own(j, job);
    struct rfi_extent e = {0};
    rfi_dataset_extent(j->setup->dataset, id, &e); /* was good when it was planned */
    rfi_job_fail(job, s->error ? s->error : EIO, e.file, s->offset);
    job->error_sample_known = true;
    job->error_sample = id;
}

bool rfi_policy_note(struct rfi_job *job, const struct rfi_fault *entry)
{
    struct rfi_repair *r = &job->repair;
    if (r->n_decisions == r->decisions_cap) {
        uint32_t cap = r->decisions_cap ? 2 * r->decisions_cap : 16;
        struct rfi_fault *p = realloc(r->decisions, cap * sizeof *p);
        if (!p) {
            rfi_job_fail(job, ENOMEM, entry->file, entry->offset);
            return false;
        }
        r->decisions = p;
        r->decisions_cap = cap;
    }
    r->decisions[r->n_decisions++] = *entry;
    return true;
}

bool rfi_policy_decide(struct rfi_jobs *j, struct rfi_job *job, uint64_t substitute)
{
    static int said;
    const struct rfi_slot_shared *slot = &j->run->rings[job->ring].slots[job->claim.slot];
    const struct rfi_suspect *s = &job->repair.suspects[job->repair.slot];
    struct rfi_extent e = {0};
    struct rfi_fault entry = {.epoch = slot->epoch,
                              .rank = j->contents[job->ring].rank,
                              .batch = slot->batch,
                              .slot = job->repair.slot,
                              .sample = rfi_policy_own(j, job),
                              .substitute = substitute,
                              .offset = s->offset,
                              .error = (uint32_t)s->error};
    rfi_dataset_extent(j->setup->dataset, entry.sample, &e);
    entry.file = e.file;
    if (!rfi_policy_note(job, &entry))
        return false;
    if (rfi_faults_append(j->run, j->queue, &entry) == 0)
        return true;
    rfi_log_once(&said, RFI_LOG_ERROR,
                 "the error log of worker %u is full (%d decisions): from now on a sample that cannot be read is an "
                 "error of its batch. Repair the files",
                 j->worker, RFI_FAULTS_PER_QUEUE);
    rfi_policy_raise(j, job);
    return false;
}

/* Moves on in the rank's epoch, undisturbed and in a circle, to the next sample that fits the place. False:
 * there is none within the limits. The batch's scratch arrays are the content's. */
static bool next_candidate(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_content *content = &j->contents[job->ring];
    const struct rfi_slot_shared *slot = &j->run->rings[job->ring].slots[job->claim.slot];
    struct rfi_repair *r = &job->repair;
    uint64_t own = rfi_policy_own(j, job), room = job->plan.lengths[r->slot];
    if (r->looked == 0) {
        r->at_batch = slot->batch;
        r->at_slot = r->slot;
    }
    uint64_t n = rfi_content_at(content, slot->epoch, r->at_batch, job->claim.generation.log_length);
    while (r->looked++ < LOOK_MOST && r->tried < TRY_MOST) {
        if (++r->at_slot >= n) {
            r->at_batch = rfi_content_after(content, r->at_batch);
            r->at_slot = 0;
            n = rfi_content_at(content, slot->epoch, r->at_batch, job->claim.generation.log_length);
        }
        if (r->at_batch == slot->batch && r->at_slot == r->slot)
            return false; /* once round */
        struct rfi_extent e;
        uint64_t id = content->ids[r->at_slot];
        if (id == own || rfi_dataset_extent(j->setup->dataset, id, &e) < 0 || e.bytes > room)
            continue;
        r->tried++;
        r->id = id;
        return true;
    }
    return false;
}

enum rfi_policy_next rfi_policy_lost(struct rfi_jobs *j, struct rfi_job *job)
{
    switch ((rf_on_error)j->run->config.on_error) {
    case RF_ON_ERROR_SKIP:
        return rfi_policy_decide(j, job, RFI_FAULT_SKIPPED) ? RFI_POLICY_DECIDED : RFI_POLICY_FAILED;
    case RF_ON_ERROR_REPLACE:
        if (next_candidate(j, job))
            return RFI_POLICY_TRY;
        break;
    case RF_ON_ERROR_RAISE:
        break;
    }
    rfi_policy_raise(j, job);
    return RFI_POLICY_FAILED;
}
