/* Claim -> plan -> read -> publish, for one worker. The order of steps is the crash protocol:
 *   claim (CAS), descriptor arrays, writers bit, in-flight entry, submission, completion, entry
 *   cleared, repair and entries in the error log (repair.h), writers bit cleared, publish. A worker may
 *   die between any two of them. */
#include "worker/job.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "reader/choose.h"
#include "worker/copy.h"
#include "worker/publish.h"
#include "worker/repair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where copies are not made, every so many batches one is tried that way, to see whether its data is in memory. */
enum { TRY_EVERY = 16, SWEPT_MOST = 4096 };

int rfi_jobs_init(struct rfi_jobs *j, const struct rfi_worker_setup *setup, uint32_t worker)
{
    struct rfi_run_view *run = setup->run;
    const struct rfi_config_shared *c = &run->config;
    struct rfi_error err = {0};
    *j = (struct rfi_jobs){.setup = setup, .run = run, .worker = worker, .queue = run->workers[worker].queue};
    j->record = &run->workers[worker];
    j->reader = &setup->readers[j->queue];
    j->staging = setup->staging[j->queue];
    j->contents = calloc(c->ranks, sizeof *j->contents);
    j->n_jobs = c->sweeps ? SWEPT_MOST : (uint32_t)rfi_min(c->queue_depth, 64);
    j->n_jobs = (uint32_t)rfi_min((uint64_t)c->ranks * c->depth, j->n_jobs);
    j->sweeps = c->sweeps && j->staging ? calloc(c->ranks * RFI_SWEEPS, sizeof *j->sweeps) : NULL;
    j->jobs = calloc(j->n_jobs, sizeof *j->jobs);
    j->flights = calloc(c->queue_depth, sizeof *j->flights);
    if (!j->contents || !j->jobs || !j->flights)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->queue_depth; i++)
        j->flights[i].next_free = i + 1 < c->queue_depth ? i + 1 : RFI_NO_FLIGHT;
    int rc = rfi_files_init(&j->files, setup->dataset, c->direct, c->align, setup->mirrors, c->mirrors);
    j->files.reader = j->reader;
    rfi_jobs_look(j);
    if (rfi_reader_overlaps(j->reader)) /* the others read one after the other: nothing would overtake */
        j->hedge_ns = (uint64_t)c->hedge_ms * 1000000u;
    /* Under the policy raise nothing is ever entered in the error log: only what was there at birth counts. */
    j->decided = c->on_error != RF_ON_ERROR_RAISE || c->faults_loaded > 0;
    j->judges = j->decided || c->verify;
    j->files.whole = c->on_error == RF_ON_ERROR_RAISE && !c->mirrors;
    if (rc == 0)
        rc = rfi_resident_open(&j->cache, run, setup->dataset, &err);
    for (uint32_t i = 0; rc == 0 && i < c->ranks; i++)
        rc = rfi_content_init(&j->contents[i], setup->dataset, setup->order, c->first_rank + i, &run->ranks[i].lens,
                              c->align, c->depth);
    return rc;
}

void rfi_jobs_look(struct rfi_jobs *j)
{
    /* Relaxed: what the word says is right at any time, only not always best. */
    j->reading = atomic_load_explicit(&j->run->coordinator->reading, memory_order_relaxed);
    j->files.direct = j->reading & RFI_READ_DIRECT;
    uint32_t depth = atomic_load_explicit(&j->run->coordinator->depth, memory_order_relaxed);
    j->depth = depth && depth < j->reader->depth ? depth : j->reader->depth;
    j->active = !(atomic_load_explicit(&j->run->coordinator->resting, memory_order_relaxed) >> j->worker & 1);
}

static struct rfi_job *free_job(struct rfi_jobs *j)
{
    for (uint32_t i = 0; i < j->n_jobs; i++)
        if (!j->jobs[i].used)
            return &j->jobs[i];
    return NULL;
}

static void end_job(struct rfi_jobs *j, struct rfi_job *job)
{
    job->used = false;
    j->used--;
    atomic_store_explicit(&j->record->jobs, j->used, memory_order_relaxed);
}

/* The batch's arrays and its reads. A failure is the batch's error, never a lost claim. */
static int plan_job(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_content *content = &j->contents[job->ring];
    struct rfi_content_batch b = {0};
    int rc = rfi_content_batch(content, &job->claim.generation, job->claim.ticket, &b);
    job->last = b.last;
    job->n_samples = b.n_samples;
    if (rc == 0 && !job->plan.cap)
        rc = rfi_plan_init(&job->plan, (uint32_t)j->run->config.batch, NULL);
    if (rc == 0)
        rc = rfi_plan_batch(j->setup->dataset, j->run->config.align, content->ids, job->n_samples, &job->plan, NULL);
    if (rc == 0 && j->cache.on)
        rc = rfi_resident_look(j, job);
    if (rc < 0)
        job->error = -rc;
    rfi_publish_describe(j, job, b.epoch, b.batch, content);
    return rc;
}

int rfi_jobs_claim(struct rfi_jobs *j, uint32_t ring)
{
    struct rfi_ring *r = &j->run->rings[ring];
    struct rfi_job *job = free_job(j);
    if (!job)
        return 0;
    struct rfi_claim *claim = &job->claim;
    int rc = rfi_ring_claim(r, j->worker, rfi_content_footprint, &j->contents[ring], claim);
    if (rc <= 0)
        return rc;
    uint64_t now = rfi_now_ns();
    RFI_FAIL_POINT("claim");
    rfi_run_record(j->run, now, ring, j->worker, claim->ticket, claim->data_offset);
    if (claim->end) {
        rfi_ring_publish_end(r, j->worker, claim);
        return 1;
    }
    rfi_repair_reset(&job->repair);
    memset(&job->n_samples, 0, offsetof(struct rfi_job, repair.suspects) - offsetof(struct rfi_job, n_samples));
    job->used = true;
    job->ring = ring;
    job->claimed_ns = now;
    j->used++;
    j->claimed++;
    atomic_store_explicit(&j->record->jobs, j->used, memory_order_relaxed);
    plan_job(j, job);
    RFI_FAIL_POINT("describe");
    rfi_ring_writers_begin(r, claim->slot, j->queue);
    RFI_FAIL_POINT("writers");
    job->writing = true;
    return 1;
}

/* What is to be read next: the plan's runs, then what the repair asks for. */
static const struct rfi_run *due_run(const struct rfi_job *job)
{
    if (job->run < job->plan.n_runs)
        return &job->plan.runs[job->run];
    return job->repair.issuing ? &job->repair.run : NULL;
}

static void next_run(struct rfi_job *job)
{
    job->issued = 0;
    if (job->run < job->plan.n_runs)
        job->run++;
    else
        job->repair.issuing = false;
}

static bool all_issued(const struct rfi_job *job)
{
    return job->sweep_left == 0 && (job->error || !due_run(job));
}

unsigned char *rfi_job_region(const struct rfi_jobs *j, const struct rfi_job *job)
{
    return rfi_run_arena(j->run, rfi_arena_number(&job->claim.generation)) + job->claim.data_offset;
}

bool rfi_jobs_unissued(const struct rfi_jobs *j)
{
    for (uint32_t i = 0, left = j->used; left > 0 && i < j->n_jobs; i++) {
        left -= j->jobs[i].used;
        if (j->jobs[i].used && !all_issued(&j->jobs[i]))
            return true;
    }
    return false;
}

void rfi_job_fail(struct rfi_job *job, int error, uint32_t file, uint64_t offset)
{
    if (job->error)
        return;
    job->error = error;
    job->error_file = file;
    job->error_offset = offset;
}

void rfi_job_finish(struct rfi_jobs *j, struct rfi_job *job)
{
    if (job->in_flight || !all_issued(job))
        return;
    if (job->sweep_failed && !job->error) { /* once more, in the usual way */
        job->sweep_failed = false;
        job->run = 0;
        return;
    }
    if (!job->error && rfi_repair_step(j, job))
        return; /* the next round issues it */
    rfi_ring_writers_end(&j->run->rings[job->ring], job->claim.slot, j->queue);
    rfi_publish_job(j, job);
    end_job(j, job);
}

/* Sets up the next piece of a run: [from, to) of the file is needed; where it lands depends on how the
 * file is open and on the layout, but the bytes end up in the same place either way. */
static void shape_flight(struct rfi_jobs *j, struct rfi_job *job, const struct rfi_run *run, struct rfi_flight *f,
                         uint32_t tag)
{
    const uint64_t a = j->run->config.align;
    unsigned char *region = rfi_job_region(j, job);
    uint64_t from = run->offset + job->issued, end = run->offset + run->bytes;
    f->job = job;
    f->need_from = from;
    f->copy_to = NULL;
    f->direct = f->file->direct;
    if (j->hedge_ns) { /* all staged, so that a second read may win while the first is out */
        f->offset = f->direct ? rfi_align_down(from, a) : from;
        f->need_to = rfi_min(end, f->offset + RFI_HEDGED_BYTES);
        f->bytes = (uint32_t)(f->direct ? rfi_align_up(f->need_to - f->offset, a) : f->need_to - f->offset);
        f->dest = j->staging + (uint64_t)tag * j->run->config.staging_bytes;
        f->copy_to = region + run->place + job->issued;
    } else if (!f->direct) {
        f->need_to = rfi_min(end, from + RFI_PIECE_BYTES);
        f->offset = from;
        f->bytes = (uint32_t)(f->need_to - from);
        f->dest = region + run->place + job->issued;
    } else if (run->in_place) {
        f->offset = rfi_align_down(from, a);
        f->need_to = rfi_min(end, f->offset + RFI_PIECE_BYTES);
        f->bytes = (uint32_t)rfi_align_up(f->need_to - f->offset, a);
        f->dest = region + run->place + job->issued - (from - f->offset);
    } else {
        f->offset = rfi_align_down(from, a);
        f->need_to = rfi_min(end, f->offset + j->run->config.staging_bytes);
        f->bytes = (uint32_t)rfi_align_up(f->need_to - f->offset, a);
        f->dest = j->staging + (uint64_t)tag * j->run->config.staging_bytes;
        f->copy_to = region + run->place + job->issued;
    }
}

void rfi_flight_queue(struct rfi_jobs *j, uint32_t tag)
{
    struct rfi_flight *f = &j->flights[tag];
    struct rfi_inflight_shared *e = rfi_run_inflight(j->run, j->queue, tag);
    e->ring = f->job->ring;
    e->ticket = f->job->claim.ticket;
    e->file = f->file->file;
    e->offset = f->need_from;
    e->bytes = f->bytes;
    e->staged = f->copy_to || f->sweep;
    e->submitted_ns = rfi_now_ns();
    /* A beat too: the pread engine reads inside queue(), and a round of many reads may be long. */
    atomic_store_explicit(&j->record->heartbeat_ns, e->submitted_ns, memory_order_relaxed);
    atomic_store_explicit(&e->active, 1, memory_order_release);
    RFI_FAIL_POINT("submit-entry");
    j->reader->ops->queue(
        j->reader,
        &(struct rfi_read){.fd = f->file->fd, .dest = f->dest, .offset = f->offset, .bytes = f->bytes, .tag = tag});
    atomic_fetch_add_explicit(&j->record->reads, 1, memory_order_relaxed);
    j->queued_bytes += f->bytes;
}

uint32_t rfi_flight_take(struct rfi_jobs *j, struct rfi_open_file *file)
{
    uint32_t tag = j->free_flight;
    struct rfi_flight *f = &j->flights[tag];
    j->free_flight = f->next_free;
    *f = (struct rfi_flight){.used = true, .file = file, .twin = RFI_NO_FLIGHT, .asked_ns = rfi_now_ns()};
    j->in_flight++;
    return tag;
}

/* Issues one piece of the job. False: nothing was issued (an error, or no descriptor free right now). */
static bool issue_piece(struct rfi_jobs *j, struct rfi_job *job)
{
    const struct rfi_run *run = due_run(job);
    int error;
    if (run->bytes == 0) {
        next_run(job);
        return true;
    }
    struct rfi_open_file *file =
        rfi_files_get(&j->files, run->file, job->repair.reading ? job->repair.copy : 0, &error);
    if (!file) {
        if (error == EMFILE && j->in_flight)
            return false; /* comes again when a completion frees a descriptor */
        uint64_t from = run->offset + job->issued;
        if (!rfi_repair_failed_read(j, job, job->run, run->file, from, run->offset + run->bytes, error, from))
            return false;
        next_run(job);
        return true;
    }
    uint32_t tag = rfi_flight_take(j, file);
    struct rfi_flight *f = &j->flights[tag];
    f->run = job->run;
    shape_flight(j, job, run, f, tag);
    job->issued = f->need_to - run->offset;
    if (job->issued == run->bytes)
        next_run(job);
    job->in_flight++;
    rfi_flight_queue(j, tag);
    return true;
}

/* Some places are kept for second reads: else late first ones could take them all. */
bool rfi_may_issue(const struct rfi_jobs *j)
{
    uint32_t depth = j->depth;
    if (!j->hedge_ns)
        return j->free_flight != RFI_NO_FLIGHT && j->in_flight < depth;
    return j->free_flight != RFI_NO_FLIGHT && (depth < 2 || j->in_flight < depth - rfi_max(1, depth / 4));
}

void rfi_jobs_issue(struct rfi_jobs *j)
{
    if (j->sweeps)
        rfi_sweep_issue(j);
    for (uint32_t i = 0, left = j->used; left > 0 && i < j->n_jobs; i++) {
        struct rfi_job *job = &j->jobs[i];
        if (!job->used)
            continue;
        left--;
        if (!job->copied && !job->error && j->reader->ops->at_once &&
            (j->reading & RFI_READ_COPIES || j->claimed % TRY_EVERY == 1))
            rfi_job_copy(j, job);
        job->copied = true;
        while (!all_issued(job) && rfi_may_issue(j))
            if (!issue_piece(j, job))
                break;
        if (job->copies_left && !job->error && all_issued(job)) {
            j->reader->ops->submit(j->reader); /* the device works meanwhile */
            rfi_resident_copy(j, job);
        }
        rfi_job_finish(j, job);
    }
}

/* Reads that nobody waits for any more do not count: they land in staging, which outlives us as long as they do. */
static bool any_reading(const struct rfi_jobs *j)
{
    for (uint32_t i = 0; i < j->n_jobs; i++)
        if (j->jobs[i].used && j->jobs[i].in_flight)
            return true;
    return false;
}

void rfi_jobs_stop(struct rfi_jobs *j)
{
    for (uint32_t i = 0; i < j->n_jobs; i++)
        if (j->jobs[i].used)
            rfi_job_fail(&j->jobs[i], ECANCELED, 0, 0); /* no further reads */
    for (uint64_t until = rfi_now_ns() + 5000000000u; any_reading(j) && rfi_now_ns() < until;)
        if (rfi_jobs_reap(j, 1000000) < 0)
            break;
    for (uint32_t i = 0; i < j->n_jobs; i++) {
        struct rfi_job *job = &j->jobs[i];
        if (!job->used || job->in_flight)
            continue;
        rfi_ring_writers_end(&j->run->rings[job->ring], job->claim.slot, j->queue);
        rfi_ring_unclaim(&j->run->rings[job->ring], j->worker, &job->claim);
        end_job(j, job);
    }
}
