/* Batches that a worker has claimed and not yet published, and their reads in flight. A job's reads are
 * issued piece by piece as the queue has room, so that a slow file does not stall the fast ones. */
#pragma once

#include "order/faults.h"
#include "worker/cache.h"
#include "worker/content.h"
#include "worker/files.h"
#include "worker/latency.h"
#include "worker/sweep.h"
#include "worker/worker.h"

#include <stdbool.h>

/* How a sample of the batch stands. A read that failed and held others too leaves it SHARED: its own bytes may
 * be good. DECIDED: by the error log, before this claim. */
enum rfi_suspicion { RFI_SOUND, RFI_SHARED, RFI_SPOILT, RFI_DECIDED };

struct rfi_suspect {
    uint64_t offset; /* of the first failure, in the file */
    int32_t error; /* positive errno */
    uint32_t state; /* enum rfi_suspicion */
};

/* The batch's suspects, one at a time; see repair.h. */
struct rfi_repair {
    bool any; /* some suspect is not SOUND */
    bool begun; /* checksums and the log were looked at */
    bool reading, issuing; /* a read is under way; some of it is still to be issued */
    uint32_t slot; /* whose turn it is */
    uint64_t id; /* what is being read for it: itself or a substitute */
    struct rfi_run run;
    uint32_t copy, attempt; /* where it is read from; how many copies were tried */
    int error; /* of this read */
    /* Search for a substitute: where it stands in the rank's epoch, and how far it went. */
    uint64_t at_batch, at_slot, looked, tried;
    uint32_t n_decisions;
    /* Kept from batch to batch: they own memory. */
    struct rfi_suspect *suspects; /* [cap] by slot; NULL until the first one */
    struct rfi_fault *decisions; /* [n_decisions] */
    uint32_t cap, decisions_cap;
};

struct rfi_job {
    bool used;
    uint32_t ring; /* local index */
    struct rfi_claim claim;
    /* From here on cleared for every batch. */
    uint32_t n_samples;
    bool last;
    uint64_t payload_bytes;
    uint64_t claimed_ns;
    /* Issue position: run, and bytes of it already asked for. */
    uint32_t run;
    uint64_t issued;
    uint32_t in_flight;
    bool copied; /* what could be copied is: the plan's runs are what is left */
    bool resident; /* all samples lie in the resident cache, and the batch refers to them there */
    uint32_t copies_left; /* samples of the resident cache that are not in their places yet */
    uint32_t sweep_left; /* its entries in a sweep with bytes that were not asked for */
    bool sweep_failed; /* a piece with some of its bytes was not read */
    bool writing; /* our bit is set in the slot's writers mask */
    /* First failure. */
    int error;
    uint32_t error_file;
    uint64_t error_offset;
    bool error_sample_known;
    uint64_t error_sample;
    uint32_t skipped; /* samples left out of the batch */
    bool mixed; /* some bytes came from a mirror before anything had failed */
    struct rfi_repair repair;
    /* Kept from batch to batch, with the end of `repair`: they own memory. */
    struct rfi_batch_plan plan;
    uint8_t *kept; /* [batch] samples that come from the resident cache; NULL until one is looked for */
};

enum { RFI_NO_FLIGHT = UINT32_MAX };

/* One read in flight; the index is its entry in the shared table and its staging place. `job` is NULL once
 * nobody waits for it any more (its twin came first): it lands in staging, and then its place is free. */
struct rfi_flight {
    bool used, hedge; /* hedge: the second read of the two */
    struct rfi_job *job;
    uint32_t run; /* of the plan, or behind the last one */
    uint32_t twin; /* the other read of the same bytes, or none */
    uint64_t asked_ns;
    struct rfi_open_file *file;
    bool direct; /* how it was asked for: the file may have been turned buffered since */
    unsigned char *dest; /* where the read lands */
    uint64_t offset; /* file offset of dest[0] */
    uint32_t bytes; /* asked for */
    uint64_t need_from, need_to; /* file offsets that the batch needs of it */
    unsigned char *copy_to; /* staged: final place of need_from */
    struct rfi_sweep *sweep; /* staged, and scattered to entries [first, last] of it; NULL: of one run */
    uint64_t first, last;
    uint32_t next_free;
};

struct rfi_jobs {
    const struct rfi_worker_setup *setup;
    struct rfi_run_view *run;
    struct rfi_worker_shared *record;
    struct rfi_reader *reader;
    unsigned char *staging;
    uint32_t worker, queue;
    struct rfi_content *contents; /* [ranks] */
    struct rfi_files files;
    struct rfi_job *jobs;
    uint32_t n_jobs, used;
    struct rfi_flight *flights; /* [queue_depth] */
    uint32_t free_flight; /* chain */
    uint32_t in_flight;
    uint32_t depth; /* reads in flight at most, in this round */
    struct rfi_latency latency;
    uint64_t rounds, full; /* in which reads ended; with (nearly) as many in flight as may be */
    bool active; /* may claim, by the parent's word of this round */
    struct rfi_resident cache;
    struct rfi_sweep *sweeps; /* [ranks * RFI_SWEEPS]; NULL: samples are read one by one */
    uint32_t n_sweeps; /* begun, ever */
    uint32_t reading; /* how this round reads: bits of reader/choose.h */
    uint32_t claimed; /* batches, ever */
    uint64_t queued_bytes; /* asked for or copied since the last submission */
    uint64_t unbeaten_bytes; /* copied from the cache since the last beat */
    uint64_t hedge_ns; /* a read later than this is asked for again; 0: never */
    uint64_t hedged_ns; /* when late reads were looked for last */
    bool decided, judges; /* the error log may hold decisions about a batch; every batch is looked at when it is read */
    uint8_t *reported; /* [files * copies]: what was said of a copy; NULL until something is */
};

/* To be called once a round: how the run reads may have changed. */
void rfi_jobs_look(struct rfi_jobs *j);

int rfi_jobs_init(struct rfi_jobs *j, const struct rfi_worker_setup *setup, uint32_t worker);

/* Claims one batch of ring `ring` if there is one to claim: 1, 0, or negative. */
int rfi_jobs_claim(struct rfi_jobs *j, uint32_t ring);

/* Whether some job still has reads to issue. */
bool rfi_jobs_unissued(const struct rfi_jobs *j);

/* Queues reads while there is room; publishes jobs that need none. */
void rfi_jobs_issue(struct rfi_jobs *j);

/* Whether there is room for one read more. */
bool rfi_may_issue(const struct rfi_jobs *j);

/* Publishes the job if it is complete. */
void rfi_job_finish(struct rfi_jobs *j, struct rfi_job *job);

/* Marks the job as failed; the first failure counts. */
void rfi_job_fail(struct rfi_job *job, int error, uint32_t file, uint64_t offset);

/* Where the batch lies. */
unsigned char *rfi_job_region(const struct rfi_jobs *j, const struct rfi_job *job);

/* A place for one read more (there is one), of a file that the caller has counted; and its hand-over. */
uint32_t rfi_flight_take(struct rfi_jobs *j, struct rfi_open_file *file);
void rfi_flight_queue(struct rfi_jobs *j, uint32_t tag);

/* Takes completions, waiting at most wait_ns for the first; returns how many. */
int rfi_jobs_reap(struct rfi_jobs *j, uint64_t wait_ns);

/* Lets what is in flight end and gives unfinished claims back (an orderly stop). */
void rfi_jobs_stop(struct rfi_jobs *j);
