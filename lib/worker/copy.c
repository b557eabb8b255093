/* See copy.h. Runs go to the engine in lists, so that what an engine does once a list (looking at faults, asking for a
 * file's size) is paid by many small samples; and in pieces, so that the worker beats in between. */
#include "worker/copy.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "worker/repair.h"

#include <errno.h>

enum { NONE = UINT32_MAX, LIST_BYTES = 4 << 20 };

struct list {
    struct rfi_read reads[RFI_AT_ONCE_MOST];
    int32_t results[RFI_AT_ONCE_MOST];
    uint32_t runs[RFI_AT_ONCE_MOST];
    struct rfi_open_file *held[RFI_AT_ONCE_MOST];
    uint32_t n, n_held;
    uint64_t bytes;
    struct rfi_open_file *file; /* of the last read */
    uint32_t refused; /* a run of which a piece could not be copied: the rest of it is left, too */
};

static void take_prefix(struct rfi_run *run, uint32_t bytes)
{
    run->offset += bytes;
    run->place += bytes;
    run->bytes -= bytes;
}

static void settle(struct rfi_jobs *j, struct rfi_job *job, struct list *l, uint32_t i)
{
    struct rfi_run *run = &job->plan.runs[l->runs[i]];
    const struct rfi_read *read = &l->reads[i];
    if (l->runs[i] == l->refused)
        return;
    if (l->results[i] == (int32_t)read->bytes) {
        take_prefix(run, read->bytes);
        return;
    }
    l->refused = l->runs[i];
    if (l->results[i] != -EAGAIN)
        rfi_repair_failed_read(j, job, l->runs[i], run->file, read->offset, read->offset + read->bytes, -l->results[i],
                               read->offset);
}

static void flush(struct rfi_jobs *j, struct rfi_job *job, struct list *l)
{
    if (l->n > 0) {
        uint64_t now = rfi_now_ns();
        RFI_FAIL_POINT("copy");
        /* Relaxed: a beat and statistics, ordered with nothing. */
        atomic_store_explicit(&j->record->heartbeat_ns, now, memory_order_relaxed);
        j->reader->ops->at_once(j->reader, l->reads, l->n, l->results);
        atomic_fetch_add_explicit(&j->record->reads, l->n, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < l->n && !job->error; i++)
        settle(j, job, l, i);
    for (uint32_t i = 0; i < l->n_held; i++)
        rfi_files_put(&j->files, l->held[i]);
    j->queued_bytes += l->bytes;
    l->n = l->n_held = 0;
    l->bytes = 0;
    l->file = NULL;
}

/* The run's file, counted as used until the list is flushed. NULL: what is wrong with it is for the queue to find out. */
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

static void add_run(struct rfi_jobs *j, struct rfi_job *job, struct list *l, uint32_t r)
{
    const struct rfi_run run = job->plan.runs[r]; /* as it was: flushing moves its start */
    unsigned char *to = rfi_job_region(j, job) + run.place;
    for (uint64_t at = 0; at < run.bytes && l->refused != r && !job->error;) {
        struct rfi_open_file *file = file_of(j, l, &run);
        if (!file)
            return;
        uint32_t bytes = (uint32_t)rfi_min(run.bytes - at, RFI_PIECE_BYTES);
        l->reads[l->n] = (struct rfi_read){.fd = file->fd, .dest = to + at, .offset = run.offset + at, .bytes = bytes};
        l->runs[l->n++] = r;
        l->bytes += bytes;
        at += bytes;
        if (l->n == RFI_AT_ONCE_MOST || l->bytes >= LIST_BYTES)
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
    struct list l;
    l.n = l.n_held = 0;
    l.bytes = 0;
    l.file = NULL;
    l.refused = NONE;
    for (uint32_t r = 0; r < job->plan.n_runs && !job->error; r++)
        add_run(j, job, &l, r);
    flush(j, job, &l);
    keep_what_is_left(&job->plan);
}
