/* See sweep.h. */
#include "worker/sweep.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/stream.h"
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

/* One to begin, while of the other everything was asked for: the device works on while the next is being sorted. */
static struct rfi_sweep *idle_one(struct rfi_jobs *j, uint32_t ring)
{
    struct rfi_sweep *s = &j->sweeps[RFI_SWEEPS * ring];
    for (uint32_t i = 0; i < RFI_SWEEPS; i++)
        if (s[i].next < s[i].n)
            return NULL;
    for (uint32_t i = 0; i < RFI_SWEEPS; i++)
        if (s[i].n == 0)
            return &s[i];
    return NULL;
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
    if (free == 0 || !is_mine(j, ring))
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

/* ---- sorting by file and offset: the entries move digit by digit, lowest first; digits in which all agree are left out
 * (most are, in a window) ---- */

enum { DIGIT_BITS = 11, DIGIT_VALUES = 1 << DIGIT_BITS };

static uint64_t digit(const struct rfi_sweep_entry *e, bool of_file, uint32_t shift)
{
    return ((of_file ? e->file : e->offset) >> shift) & (DIGIT_VALUES - 1);
}

static void sort_by_digit(const struct rfi_sweep_entry *from, struct rfi_sweep_entry *to, uint64_t n, bool of_file,
                          uint32_t shift)
{
    uint64_t at[DIGIT_VALUES] = {0}, sum = 0;
    for (uint64_t i = 0; i < n; i++)
        at[digit(&from[i], of_file, shift)]++;
    for (uint32_t d = 0; d < DIGIT_VALUES; d++) {
        uint64_t count = at[d];
        at[d] = sum;
        sum += count;
    }
    for (uint64_t i = 0; i < n; i++)
        to[at[digit(&from[i], of_file, shift)]++] = from[i];
}

static void sort(struct rfi_sweep *s)
{
    uint64_t differ[2] = {0};
    for (uint64_t i = 1; i < s->n; i++) {
        differ[0] |= s->entries[i].offset ^ s->entries[0].offset;
        differ[1] |= s->entries[i].file ^ s->entries[0].file;
    }
    for (uint32_t of_file = 0; of_file < 2; of_file++)
        for (uint32_t shift = 0; shift < 64 && differ[of_file] >> shift; shift += DIGIT_BITS)
            if ((differ[of_file] >> shift) & (DIGIT_VALUES - 1)) {
                struct rfi_sweep_entry *to = s->spare;
                sort_by_digit(s->entries, to, s->n, of_file, shift);
                s->spare = s->entries;
                s->entries = to;
            }
}

static bool make_room(struct rfi_sweep *s, uint64_t n)
{
    if (n <= s->cap)
        return true;
    free(s->entries);
    free(s->spare);
    s->entries = malloc(n * sizeof *s->entries);
    s->spare = malloc(n * sizeof *s->spare);
    s->cap = s->entries && s->spare ? n : 0;
    return s->cap;
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

static void begin(struct rfi_jobs *j, struct rfi_sweep *s, uint32_t ring)
{
    try_one(j, ring);
    uint64_t n = count_runs(j, ring);
    if (n == 0 || !make_room(s, n))
        return; /* without memory the batches are read in the usual way */
    s->n = s->next = s->at = 0;
    for (uint32_t i = 0; i < j->n_jobs; i++)
        if (swept(&j->jobs[i], ring))
            add_job(j, s, &j->jobs[i]);
    sort(s);
}

int rfi_sweep_claim(struct rfi_jobs *j, uint32_t ring)
{
    struct rfi_sweep *s = idle_one(j, ring);
    uint32_t n = s ? due(j, ring) : 0;
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
        begin(j, s, ring);
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
    uint64_t next = gather(s, f->need_from, f->offset + j->run->config.staging_bytes, &f->need_to, &f->last);
    f->bytes = (uint32_t)(f->direct ? rfi_align_up(f->need_to - f->offset, a) : f->need_to - f->offset);
    f->dest = j->staging + (uint64_t)tag * j->run->config.staging_bytes;
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
    for (uint32_t i = 0; i < j->run->config.ranks * RFI_SWEEPS; i++) {
        struct rfi_sweep *s = &j->sweeps[i];
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
            rfi_stream_copy(e->place + (a - e->offset), f->dest + (a - f->offset), b - a);
    }
    rfi_stream_end();
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
