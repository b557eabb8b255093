/* What becomes of a read that has come back: the rest of it is asked for, it is copied to where it belongs, or it has
 * failed. */
#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "worker/hedge.h"
#include "worker/job.h"
#include "worker/latency.h"
#include "worker/repair.h"

#include <errno.h>
#include <string.h>

enum { REAP_MOST = 64 };

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
    if (f->twin != RFI_NO_FLIGHT && rfi_hedge_settled(j, tag, error)) {
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
    /* To scatter a large piece takes long: another is asked for before the next, or the device would run out of work. */
    uint32_t most = j->sweeps ? 1 : REAP_MOST;
    if (j->hedge_ns)
        rfi_jobs_hedge(j);
    int n = j->reader->ops->reap(j->reader, done, most, wait_ns);
    if (n > 0)
        note_ends(j, done);
    for (int i = 0; i < n; i++)
        complete(j, &done[i]);
    atomic_store_explicit(&j->record->submits, j->reader->submits, memory_order_relaxed);
    return n;
}
