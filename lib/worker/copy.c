/* See copy.h. Runs go to the engine in lists, so that what an engine does once a list (looking at faults, asking for a
 * file's size) is paid by many small samples; and in pieces, so that the worker beats in between. */
#include "worker/copy.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "worker/repair.h"

#include <errno.h>

enum { NONE = UINT32_MAX, LIST_BYTES = 4 << 20 };

/* While every read of every list is made nothing is written down for single runs: it is enough to know how far all of
 * it has come. From the first read on that is refused, runs say themselves what is left of them. */
struct list {
    struct rfi_read reads[RFI_AT_ONCE_MOST];
    int32_t results[RFI_AT_ONCE_MOST];
    uint32_t runs[RFI_AT_ONCE_MOST];
    struct rfi_open_file *held[RFI_AT_ONCE_MOST];
    uint32_t n, n_held;
    uint64_t bytes;
    struct rfi_open_file *file; /* of the last read */
    bool noted; /* runs say what is left */
    uint32_t refused; /* the run whose last piece was refused: the rest of it is left, too */
};

static void take_prefix(struct rfi_run *run, uint64_t bytes)
{
    run->offset += bytes;
    run->place += bytes;
    run->bytes -= bytes;
}

/* All runs before `run` and its first `bytes` bytes are made. */
static void note_all_before(struct rfi_job *job, struct list *l, uint32_t run, uint64_t bytes)
{
    if (l->noted)
        return;
    for (uint32_t r = 0; r < run; r++)
        take_prefix(&job->plan.runs[r], job->plan.runs[r].bytes);
    take_prefix(&job->plan.runs[run], bytes);
    l->noted = true;
}

static void note(struct rfi_jobs *j, struct rfi_job *job, struct list *l, uint32_t i, int32_t result)
{
    struct rfi_run *run = &job->plan.runs[l->runs[i]];
    const struct rfi_read *read = &l->reads[i];
    if (l->runs[i] == l->refused)
        return;
    if (result == (int32_t)read->bytes) {
        take_prefix(run, read->bytes);
        return;
    }
    l->refused = l->runs[i];
    if (result != -EAGAIN)
        rfi_repair_failed_read(j, job, l->runs[i], run->file, read->offset, read->offset + read->bytes, -result,
                               read->offset);
}

static void flush(struct rfi_jobs *j, struct rfi_job *job, struct list *l)
{
    uint32_t refused;
    if (l->n == 0)
        return;
    RFI_FAIL_POINT("copy");
    /* Relaxed: a beat and a statistic, ordered with nothing. */
    atomic_store_explicit(&j->record->heartbeat_ns, rfi_now_ns(), memory_order_relaxed);
    refused = j->reader->ops->at_once(j->reader, l->reads, l->n, l->results);
    atomic_fetch_add_explicit(&j->record->reads, l->n, memory_order_relaxed);
    atomic_fetch_add_explicit(&j->record->hot, l->n - refused, memory_order_relaxed);
    if (refused) {
        atomic_fetch_add_explicit(&j->record->cold, refused, memory_order_relaxed);
        note_all_before(job, l, l->runs[0], l->reads[0].offset - job->plan.runs[l->runs[0]].offset);
    }
    for (uint32_t i = 0; l->noted && i < l->n && !job->error; i++)
        note(j, job, l, i, refused ? l->results[i] : (int32_t)l->reads[i].bytes);
    for (uint32_t i = 0; i < l->n_held; i++)
        rfi_files_put(&j->files, l->held[i]);
    j->queued_bytes += l->bytes;
    l->n = l->n_held = 0;
    l->bytes = 0;
    l->file = NULL;
}

/* The run's file, counted as used until the list is flushed; NULL: it cannot be had now. */
static struct rfi_open_file *file_of(struct rfi_jobs *j, struct list *l, const struct rfi_run *run)
{
    int ignored;
    if (l->file && l->file->file == run->file)
        return l->file;
    l->file = rfi_files_get(&j->files, run->file, 0, &ignored);
    if (l->file)
        l->held[l->n_held++] = l->file;
    return l->file;
}

/* Runs from `r` on that are one read each of the file that the list is at, up to the first that is not. Returns its
 * number. Most samples come this way. */
static uint32_t add_small_runs(struct list *l, const struct rfi_batch_plan *p, uint32_t r, unsigned char *region)
{
    const uint32_t file = l->file->file;
    const int fd = l->file->fd;
    uint32_t n = l->n;
    uint64_t bytes = l->bytes;
    for (; r < p->n_runs && n < RFI_AT_ONCE_MOST && bytes < LIST_BYTES; r++, n++) {
        const struct rfi_run *run = &p->runs[r];
        if (run->file != file || run->bytes - 1 >= RFI_PIECE_BYTES)
            break;
        l->reads[n] = (struct rfi_read){
            .fd = fd, .dest = region + run->place, .offset = run->offset, .bytes = (uint32_t)run->bytes};
        l->runs[n] = r;
        bytes += run->bytes;
    }
    l->n = n;
    l->bytes = bytes;
    return r;
}

static bool full(const struct list *l)
{
    return l->n == RFI_AT_ONCE_MOST || l->bytes >= LIST_BYTES;
}

/* Any run. */
static void add_run(struct rfi_jobs *j, struct rfi_job *job, struct list *l, uint32_t r, unsigned char *region)
{
    const struct rfi_run run = job->plan.runs[r]; /* as planned: its start may move at a flush */
    for (uint64_t at = 0, bytes; at < run.bytes && l->refused != r && !job->error; at += bytes) {
        if (!file_of(j, l, &run)) { /* the queue will find out why */
            flush(j, job, l);
            note_all_before(job, l, r, at);
            return;
        }
        bytes = rfi_min(run.bytes - at, RFI_PIECE_BYTES);
        l->reads[l->n] = (struct rfi_read){
            .fd = l->file->fd, .dest = region + run.place + at, .offset = run.offset + at, .bytes = (uint32_t)bytes};
        l->runs[l->n++] = r;
        l->bytes += bytes;
        if (full(l))
            flush(j, job, l);
    }
}

static void keep_what_is_left(struct rfi_batch_plan *p)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < p->n_runs; r++)
        if (p->runs[r].bytes > 0)
            p->runs[n++] = p->runs[r];
    p->n_runs = n;
}

void rfi_job_copy(struct rfi_jobs *j, struct rfi_job *job)
{
    unsigned char *region = rfi_job_region(j, job);
    struct list l; /* large: only what counts is cleared */
    l.n = l.n_held = 0;
    l.bytes = 0;
    l.file = NULL;
    l.noted = false;
    l.refused = NONE;
    for (uint32_t r = 0; r < job->plan.n_runs && !job->error; r++) {
        if (job->plan.runs[r].bytes && file_of(j, &l, &job->plan.runs[r]))
            r = add_small_runs(&l, &job->plan, r, region);
        if (full(&l))
            flush(j, job, &l);
        if (r < job->plan.n_runs)
            add_run(j, job, &l, r, region);
    }
    flush(j, job, &l);
    if (l.noted)
        keep_what_is_left(&job->plan);
    else
        job->plan.n_runs = 0;
}
