/* See hedge.h. */
#include "worker/hedge.h"

#include "base/bytes.h"
#include "base/clock.h"

enum { LOOK_NS = 1000000 };

static bool is_late(const struct rfi_jobs *j, const struct rfi_flight *f, uint64_t now)
{
    return f->used && f->job && !f->job->error && f->twin == RFI_NO_FLIGHT && !f->hedge &&
           now - f->asked_ns >= j->hedge_ns;
}

/* The repair has its own idea of which copy is good; any other read starts with the first mirror. */
static uint32_t other_copy(const struct rfi_jobs *j, const struct rfi_flight *f)
{
    if (f->job->repair.reading)
        return f->file->copy;
    return j->run->config.mirrors ? 1 : 0;
}

/* The same bytes once more. False: not now. */
static bool ask_again(struct rfi_jobs *j, uint32_t first)
{
    struct rfi_flight *f = &j->flights[first];
    uint64_t a = j->run->config.align;
    int error;
    struct rfi_open_file *file = rfi_files_get(&j->files, f->file->file, other_copy(j, f), &error);
    if (!file)
        return false;
    uint64_t offset = file->direct ? rfi_align_down(f->need_from, a) : f->need_from;
    uint64_t bytes = file->direct ? rfi_align_up(f->need_to - offset, a) : f->need_to - offset;
    if (bytes > j->run->config.staging_bytes) {
        rfi_files_put(&j->files, file);
        return false;
    }
    uint32_t tag = rfi_flight_take(j, file);
    struct rfi_flight *g = &j->flights[tag];
    g->hedge = true;
    g->job = f->job;
    g->twin = first;
    g->run = f->run;
    g->direct = file->direct;
    g->offset = offset;
    g->bytes = (uint32_t)bytes;
    g->need_from = f->need_from;
    g->need_to = f->need_to;
    g->copy_to = f->copy_to;
    g->dest = j->staging + (uint64_t)tag * j->run->config.staging_bytes;
    f->twin = tag;
    rfi_flight_queue(j, tag);
    return true;
}

void rfi_jobs_hedge(struct rfi_jobs *j)
{
    uint64_t now = rfi_now_ns();
    if (now - j->hedged_ns < LOOK_NS)
        return;
    j->hedged_ns = now;
    for (uint32_t tag = 0; tag < j->reader->depth && j->free_flight != RFI_NO_FLIGHT; tag++) {
        if (!is_late(j, &j->flights[tag], now))
            continue;
        if (ask_again(j, tag))
            atomic_fetch_add_explicit(&j->record->hedges, 1, memory_order_relaxed); /* a statistic */
        else
            j->flights[tag].asked_ns = now; /* not again at once */
    }
}

bool rfi_hedge_settled(struct rfi_jobs *j, uint32_t tag, int error)
{
    struct rfi_flight *f = &j->flights[tag], *twin = &j->flights[f->twin];
    f->twin = twin->twin = RFI_NO_FLIGHT;
    if (error)
        return true;
    twin->job = NULL;
    if (f->hedge) {
        f->job->mixed |= f->file->copy != 0;
        atomic_fetch_add_explicit(&j->record->hedges_won, 1, memory_order_relaxed);
    }
    return false;
}
