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
#include "worker/hedge.h"
#include "worker/publish.h"
#include "worker/repair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where copies are not made, every so many batches one is tried that way, to see whether its data is in memory. */
enum { NONE = UINT32_MAX, REAP_MOST = 64, TRY_EVERY = 16, SWEPT_MOST = 4096 };

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
        j->flights[i].next_free = i + 1 < c->queue_depth ? i + 1 : NONE;
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
    *f = (struct rfi_flight){.used = true, .file = file, .twin = NONE, .asked_ns = rfi_now_ns()};
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
        return j->free_flight != NONE && j->in_flight < depth;
    return j->free_flight != NONE && (depth < 2 || j->in_flight < depth - rfi_max(1, depth / 4));
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

static void land(struct rfi_jobs *j, uint32_t tag)
{
    struct rfi_flight *f = &j->flights[tag];
    atomic_store_explicit(&rfi_run_inflight(j->run, j->queue, tag)->active, 0, memory_order_release);
    rfi_files_put(&j->files, f->file);
    j->in_flight--;
    f->used = false;
    f->next_free = j->free_flight;
    j->free_flight = tag;
}

/* Asks for the rest of a short read; with O_DIRECT from the last whole block. */
static void continue_flight(struct rfi_jobs *j, uint32_t tag, uint64_t got_to)
{
    struct rfi_flight *f = &j->flights[tag];
    uint64_t from = f->direct ? rfi_align_down(got_to, j->run->config.align) : got_to;
    f->dest += from - f->offset;
    f->bytes -= (uint32_t)(from - f->offset);
    f->offset = from;
    rfi_flight_queue(j, tag);
}

/* Copies what a staged read brought. Only the needed range, and only once. */
static void copy_staged(struct rfi_flight *f, uint64_t to)
{
    uint64_t from = rfi_max(f->need_from, f->offset);
    if (f->sweep)
        rfi_sweep_scatter(f, to);
    if (!f->copy_to || to <= from)
        return;
    memcpy(f->copy_to + (from - f->need_from), f->dest + (from - f->offset), to - from);
}

/* The file system refused a direct read at run time: read this file buffered from now on, at the same
 * place. Rounded bytes are still fine: the region holds them. */
static bool retry_buffered(struct rfi_jobs *j, uint32_t tag)
{
    struct rfi_flight *f = &j->flights[tag];
    if (!f->direct || (f->file->direct && rfi_files_buffered(&j->files, f->file) != 0))
        return false;
    f->direct = false;
    rfi_flight_queue(j, tag);
    return true;
}

/* A read is over for good: 0, or an errno with the place in the file. Of two reads of the same bytes the first
 * that succeeds counts; the other is left to land in staging. */
static void settle_flight(struct rfi_jobs *j, uint32_t tag, int error, uint64_t offset)
{
    struct rfi_flight *f = &j->flights[tag];
    struct rfi_job *job = f->job;
    uint64_t from = rfi_max(f->need_from, rfi_min(offset, f->need_to));
    if (f->twin != NONE && rfi_hedge_settled(j, tag, error)) {
        land(j, tag); /* failed, and the other one is still out */
        return;
    }
    if (error && !f->sweep)
        rfi_repair_failed_read(j, job, f->run, f->file->file, from, f->need_to, error, offset);
    land(j, tag);
    RFI_FAIL_POINT("complete");
    if (f->sweep) { /* landed, but nothing has taken its place yet */
        rfi_sweep_settle(j, f, error != 0);
        return;
    }
    job->in_flight--;
    rfi_job_finish(j, job);
}

static void complete(struct rfi_jobs *j, const struct rfi_completion *c)
{
    struct rfi_flight *f = &j->flights[c->tag];
    struct rfi_job *job = f->job;
    if (!job) { /* its twin came first: these bytes go nowhere */
        land(j, c->tag);
        return;
    }
    if (c->result == -EINTR || c->result == -EAGAIN) {
        rfi_flight_queue(j, c->tag);
        return;
    }
    if (c->result == -EINVAL && retry_buffered(j, c->tag))
        return;
    if (c->result < 0) {
        settle_flight(j, c->tag, -c->result, f->need_from);
        return;
    }
    uint64_t to = f->offset + (uint64_t)c->result, a = j->run->config.align;
    copy_staged(f, rfi_min(to, f->need_to));
    /* A direct read stops inside a block only at the end; asking again from its start gives the same. */
    bool at_end = c->result == 0 || (f->direct && rfi_align_down(to, a) <= f->offset);
    if (to < f->need_to && !at_end && !job->error) {
        continue_flight(j, c->tag, to);
        return;
    }
    bool cut = to < f->need_to && !job->error; /* the file ends before the table says so */
    settle_flight(j, c->tag, cut ? ENODATA : 0, cut ? to : f->need_from);
}

/* One of the reads stands for the latency of all that ended together. */
static void note_ends(struct rfi_jobs *j, const struct rfi_completion *done)
{
    struct rfi_worker_shared *r = j->record;
    uint64_t now = rfi_now_ns();
    atomic_store_explicit(&r->completed_ns, now, memory_order_relaxed);
    rfi_latency_note(&j->latency, now - j->flights[done->tag].asked_ns);
    j->rounds++;
    j->full += j->in_flight * 4 >= j->depth * 3;
    atomic_store_explicit(&r->latency_ns, j->latency.median_ns, memory_order_relaxed);
    atomic_store_explicit(&r->lowest_ns, j->latency.lowest_ns, memory_order_relaxed);
    atomic_store_explicit(&r->rounds, j->rounds, memory_order_relaxed);
    atomic_store_explicit(&r->full_rounds, j->full, memory_order_relaxed);
}

int rfi_jobs_reap(struct rfi_jobs *j, uint64_t wait_ns)
{
    struct rfi_completion done[REAP_MOST];
    if (j->hedge_ns)
        rfi_jobs_hedge(j);
    int n = j->reader->ops->reap(j->reader, done, REAP_MOST, wait_ns);
    if (n > 0)
        note_ends(j, done);
    for (int i = 0; i < n; i++)
        complete(j, &done[i]);
    atomic_store_explicit(&j->record->submits, j->reader->submits, memory_order_relaxed);
    return n;
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
