/* See sweep.h. */
#include "worker/sweep.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "reader/choose.h"
#include "worker/copy.h"
#include "worker/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Reading over so much that nobody wants costs less than a further read. */
enum { SWEEP_GAP = 16 << 10, TRY_EVERY = 8 };

/* ---- claiming ---- */

/* Who sweeps a ring. Two would each read every block for half of the batches; so the others only step in where that
 * worker does not run. */
static bool is_mine(const struct rfi_jobs *j, uint32_t ring)
{
    const struct rfi_config_shared *c = &j->run->config;
    uint32_t who = c->replication > 1 ? j->run->ranks[ring].keeper[0] : ring % c->workers;
    return who == j->worker ||
           atomic_load_explicit(&j->run->workers[who].state, memory_order_relaxed) != RFI_WORKER_RUNNING;
}

/* How many batches are to be claimed now: up to the end of the window, once all of them have room; fewer where the ring
 * cannot hold that, its trainer has nothing left, or a dead worker's batches come first. */
static uint32_t due(struct rfi_jobs *j, uint32_t ring)
{
    const struct rfi_config_shared *c = &j->run->config;
    struct rfi_ring *r = &j->run->rings[ring];
    uint64_t ticket;
    bool left;
    uint32_t free = rfi_ring_claimable_from(r, &ticket, &left);
    if (free == 0 || j->sweeps[ring].n || !is_mine(j, ring))
        return 0;
    uint64_t want = rfi_content_window_left(&j->contents[ring], r, ticket);
    want = rfi_min(rfi_min(want, rfi_max(1, c->depth / 2)), j->n_jobs - j->used);
    return free >= want || left || rfi_ring_ready(r) == 0 ? (uint32_t)rfi_min(free, want) : 0;
}

static bool swept(const struct rfi_job *job, uint32_t ring)
{
    return job->used && job->ring == ring && !job->copied && !job->error && job->run == 0 && job->sweep_left == 0;
}

static uint64_t count_runs(const struct rfi_jobs *j, uint32_t ring)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < j->n_jobs; i++)
        n += swept(&j->jobs[i], ring) ? j->jobs[i].plan.n_runs : 0;
    return n;
}

static void add_job(struct rfi_jobs *j, struct rfi_sweep *s, struct rfi_job *job)
{
    unsigned char *region = rfi_job_region(j, job);
    const struct rfi_batch_plan *p = &job->plan;
    for (uint32_t r = 0; r < p->n_runs; r++) {
        const struct rfi_run *run = &p->runs[r];
        if (run->bytes == 0)
            continue;
        s->entries[s->n++] = (struct rfi_sweep_entry){
            .offset = run->offset, .bytes = run->bytes, .place = region + run->place, .job = job, .file = run->file};
        job->sweep_left++;
    }
    job->run = p->n_runs; /* nothing is left for the usual way */
    job->copied = true;
}

static int by_place(const void *a, const void *b)
{
    const struct rfi_sweep_entry *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Now and then one batch is tried in memory, to see whether the data is there by now. */
static void try_one(struct rfi_jobs *j, uint32_t ring)
{
    if (!j->reader->ops->at_once || j->n_sweeps++ % TRY_EVERY)
        return;
    for (uint32_t i = 0; i < j->n_jobs; i++)
        if (swept(&j->jobs[i], ring)) {
            rfi_job_copy(j, &j->jobs[i]);
            j->jobs[i].copied = true;
            return;
        }
}

static void begin(struct rfi_jobs *j, uint32_t ring)
{
    struct rfi_sweep *s = &j->sweeps[ring];
    try_one(j, ring);
    uint64_t n = count_runs(j, ring);
    if (n == 0)
        return;
    if (n > s->cap) {
        free(s->entries);
        s->entries = malloc(n * sizeof *s->entries);
        s->cap = s->entries ? n : 0;
        if (!s->entries)
            return; /* then without: the batches are read in the usual way */
    }
    s->n = s->next = s->at = 0;
    for (uint32_t i = 0; i < j->n_jobs; i++)
        if (swept(&j->jobs[i], ring))
            add_job(j, s, &j->jobs[i]);
    qsort(s->entries, s->n, sizeof *s->entries, by_place);
}

int rfi_sweep_claim(struct rfi_jobs *j, uint32_t ring)
{
    uint32_t n = due(j, ring);
    int rc = 0, claimed = 0;
    for (uint32_t i = 0; i < n; i++) {
        rc = rfi_jobs_claim(j, ring);
        if (rc <= 0)
            break;
        claimed = 1;
        /* Relaxed: a beat is ordered with nothing. */
        atomic_store_explicit(&j->record->heartbeat_ns, rfi_now_ns(), memory_order_relaxed);
    }
    /* In memory samples are where they are: there is no order in which they are cheaper. */
    if (claimed && !(j->reading & RFI_READ_COPIES))
        begin(j, ring);
    return claimed ? 1 : rc;
}

/* ---- reading ---- */

/* Entries [s->next, *ret_last] are in one piece of `from` to `*ret_to`, at most `limit`. Returns the first that it
 * does not finish. */
static uint64_t gather(const struct rfi_sweep *s, uint64_t from, uint64_t limit, uint64_t *ret_to, uint64_t *ret_last)
{
    uint64_t to = from, i = s->next, unfinished = UINT64_MAX;
    const uint32_t file = s->entries[i].file;
    for (; i < s->n && s->entries[i].file == file; i++) {
        const struct rfi_sweep_entry *e = &s->entries[i];
        uint64_t end = e->offset + e->bytes;
        if (i > s->next && (e->offset >= limit || (e->offset > to && e->offset - to > SWEEP_GAP)))
            break;
        if (end > limit && unfinished == UINT64_MAX)
            unfinished = i;
        to = rfi_max(to, rfi_min(end, limit));
    }
    *ret_to = to;
    *ret_last = i - 1;
    return rfi_min(unfinished, i);
}

/* Entries up to `end` were asked for in full, or cannot be. */
static void advance(struct rfi_sweep *s, uint64_t end)
{
    for (; s->next < end; s->next++)
        s->entries[s->next].job->sweep_left--;
}

/* The file cannot be had: the usual way finds out why and says so. */
static void give_up_file(struct rfi_sweep *s)
{
    const uint32_t file = s->entries[s->next].file;
    uint64_t end = s->next;
    for (; end < s->n && s->entries[end].file == file; end++)
        s->entries[end].job->sweep_failed = true;
    advance(s, end);
    s->at = 0;
}

static bool issue_piece(struct rfi_jobs *j, struct rfi_sweep *s)
{
    const struct rfi_sweep_entry *e = &s->entries[s->next];
    const uint64_t a = j->run->config.align;
    int error;
    struct rfi_open_file *file = rfi_files_get(&j->files, e->file, 0, &error);
    if (!file) {
        if (error == EMFILE && j->in_flight)
            return false;
        give_up_file(s);
        return true;
    }
    uint32_t tag = rfi_flight_take(j, file);
    struct rfi_flight *f = &j->flights[tag];
    f->job = e->job;
    f->sweep = s;
    f->direct = file->direct;
    f->need_from = rfi_max(e->offset, s->at);
    f->offset = f->direct ? rfi_align_down(f->need_from, a) : f->need_from;
    f->first = s->next;
    uint64_t next = gather(s, f->need_from, f->offset + RFI_STAGING_BYTES, &f->need_to, &f->last);
    f->bytes = (uint32_t)(f->direct ? rfi_align_up(f->need_to - f->offset, a) : f->need_to - f->offset);
    f->dest = j->staging + (uint64_t)tag * RFI_STAGING_BYTES;
    for (uint64_t i = f->first; i <= f->last; i++)
        s->entries[i].job->in_flight++;
    s->flights++;
    s->at = next <= f->last ? f->need_to : 0;
    advance(s, next);
    rfi_flight_queue(j, tag);
    return true;
}

void rfi_sweep_issue(struct rfi_jobs *j)
{
    for (uint32_t ring = 0; ring < j->run->config.ranks; ring++) {
        struct rfi_sweep *s = &j->sweeps[ring];
        while (s->next < s->n && rfi_may_issue(j) && issue_piece(j, s))
            ;
        if (s->next == s->n && s->flights == 0)
            s->n = s->next = 0;
    }
}

void rfi_sweep_scatter(const struct rfi_flight *f, uint64_t to)
{
    uint64_t from = rfi_max(f->need_from, f->offset);
    for (uint64_t i = f->first; i <= f->last; i++) {
        const struct rfi_sweep_entry *e = &f->sweep->entries[i];
        uint64_t a = rfi_max(from, e->offset), b = rfi_min(to, e->offset + e->bytes);
        if (a < b)
            memcpy(e->place + (a - e->offset), f->dest + (a - f->offset), b - a);
    }
}

void rfi_sweep_settle(struct rfi_jobs *j, const struct rfi_flight *f, bool failed)
{
    struct rfi_sweep *s = f->sweep;
    s->flights--;
    for (uint64_t i = f->first; i <= f->last; i++) {
        struct rfi_job *job = s->entries[i].job;
        job->in_flight--;
        job->sweep_failed |= failed;
        rfi_job_finish(j, job);
    }
    if (s->next == s->n && s->flights == 0)
        s->n = s->next = 0;
}
