/* Batches laid out: the walk over a batch's samples that joins neighbours into runs and places them. */
#include "plan/plan.h"

#include "base/bytes.h"
#include "plan/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int rfi_plan_init(struct rfi_batch_plan *p, uint32_t cap, struct rfi_error *err)
{
    size_t n = cap ? cap : 1;
    *p = (struct rfi_batch_plan){.cap = cap};
    p->runs = calloc(n, sizeof *p->runs);
    p->other_runs = calloc(n, sizeof *p->other_runs);
    p->offsets = calloc(n, sizeof *p->offsets);
    p->lengths = calloc(n, sizeof *p->lengths);
    if (p->runs && p->other_runs && p->offsets && p->lengths)
        return 0;
    rfi_plan_fini(p);
    return rfi_fail(err, ENOMEM, "plan: no memory for a batch of %u samples. Use a smaller --batch", cap);
}

void rfi_plan_fini(struct rfi_batch_plan *p)
{
    free(p->runs);
    free(p->other_runs);
    free(p->offsets);
    free(p->lengths);
    *p = (struct rfi_batch_plan){0};
}

/* The walk: one open run at a time. `plan` is NULL when only the footprint is asked for. */
struct walk {
    struct rfi_cursor cursor;
    struct rfi_batch_plan *plan;
    struct rfi_run run; /* the open one; bytes == 0: none is open */
    uint32_t first; /* the open run's first sample */
};

enum { CHUNK = 64 };

static bool ends_nowhere(const struct rfi_extent *e)
{
    uint64_t end;
    return rfi_add_over(e->offset, e->bytes, &end);
}

static int damaged(const struct rfi_dataset *d, const uint64_t *ids, uint32_t n, struct rfi_error *err)
{
    struct rfi_extent e;
    uint32_t i = 0;
    while (i + 1 < n && rfi_dataset_extents(d, &ids[i], 1, &e) == 0 && !ends_nowhere(&e))
        i++;
    return rfi_fail(err, EBADMSG,
                    "dataset: the entry of sample %llu is damaged (it points outside its file). Make the index again",
                    (unsigned long long)ids[i]);
}

/* Of up to CHUNK samples at a time: a call for each would cost more than the look-up. */
static int read_extents(const struct rfi_dataset *d, const uint64_t *ids, uint32_t n, struct rfi_extent *e,
                        struct rfi_error *err)
{
    return rfi_dataset_extents(d, ids, n, e) < 0 ? damaged(d, ids, n, err) : 0;
}

static bool joins(const struct rfi_run *run, const struct rfi_extent *e, uint64_t gap)
{
    uint64_t end = run->offset + run->bytes;
    return run->bytes > 0 && e->file == run->file && e->offset >= end && e->offset - end <= gap;
}

/* Until their run is closed, samples have their file offset in `offsets`. Samples of no bytes belong to
 * no run and lie at 0. */
static void settle(struct walk *w, uint32_t end)
{
    struct rfi_batch_plan *p = w->plan;
    w->run.first = w->first;
    p->runs[p->n_runs++] = w->run;
    for (uint32_t i = w->first; i < end; i++)
        if (p->lengths[i] > 0)
            p->offsets[i] += w->run.place - w->run.offset;
}

/* Places the open run, whose last sample is before `end`. */
static int close_run(struct walk *w, uint32_t end, struct rfi_error *err)
{
    if (w->run.bytes == 0)
        return 0;
    if (rfi_cursor_place(&w->cursor, w->run.offset, w->run.bytes, &w->run.place, &w->run.in_place) < 0)
        return rfi_fail(err, EOVERFLOW,
                        "plan: a batch of this dataset needs more than 2^62 bytes. Use a smaller --batch");
    if (w->plan)
        settle(w, end);
    w->run.bytes = 0;
    return 0;
}

static void note_sample(struct walk *w, uint32_t i, const struct rfi_extent *e)
{
    if (!w->plan)
        return;
    w->plan->offsets[i] = e->bytes ? e->offset : 0;
    w->plan->lengths[i] = e->bytes;
}

static int walk_one(struct walk *w, uint32_t i, const struct rfi_extent *e, struct rfi_error *err)
{
    if (ends_nowhere(e))
        return -EBADMSG;
    if (e->bytes > 0 && !joins(&w->run, e, RFI_JOIN_GAP)) {
        int rc = close_run(w, i, err);
        if (rc < 0)
            return rc;
        w->run = (struct rfi_run){.file = e->file, .offset = e->offset};
        w->first = i;
    }
    note_sample(w, i, e);
    if (e->bytes > 0)
        w->run.bytes = e->offset + e->bytes - w->run.offset;
    return 0;
}

static int walk_variable(const struct rfi_dataset *d, struct walk *w, const uint64_t *ids, uint32_t n,
                         struct rfi_error *err)
{
    struct rfi_extent e[CHUNK];
    for (uint32_t from = 0; from < n; from += CHUNK) {
        uint32_t count = (uint32_t)rfi_min(CHUNK, n - from);
        int rc = read_extents(d, ids + from, count, e, err);
        for (uint32_t i = 0; rc == 0 && i < count; i++)
            rc = walk_one(w, from + i, &e[i], err);
        if (rc < 0)
            return rc == -EBADMSG ? damaged(d, ids + from, count, err) : rc;
    }
    return close_run(w, n, err);
}

/* The region of a dense batch: nothing but its size can fail. */
static int fixed_footprint(uint64_t fixed, uint64_t align, uint32_t n, uint64_t *ret, struct rfi_error *err)
{
    uint64_t bytes;
    if (rfi_mul_over(fixed, n, &bytes) || bytes >= (uint64_t)1 << 62)
        return rfi_fail(err, EOVERFLOW,
                        "plan: a batch of this dataset needs more than 2^62 bytes. Use a smaller --batch");
    *ret = rfi_cursor_footprint(&(struct rfi_cursor){.align = align, .at = bytes});
    return 0;
}

/* Rounded outwards, such a run touches no other: only the end of the batch has slack behind it. `align` is a power of
 * two. */
static bool dense_in_place(const struct rfi_run *run, uint64_t align, bool last)
{
    return ((run->offset | run->place | (last ? 0 : run->bytes)) & (align - 1)) == 0;
}

/* Samples from .. of a dense batch; their extents are e[0 ..]. Stops at one that has not the fixed size: a damaged table
 * must not make a read run into its neighbour. Returns how many it took. */
static uint32_t lay_out_dense(struct rfi_batch_plan *p, uint64_t align, uint64_t fixed, const struct rfi_extent *e,
                              uint32_t from, uint32_t count)
{
    struct rfi_run *next = p->runs + p->n_runs, *run = p->n_runs ? next - 1 : NULL; /* the open one */
    uint64_t place = from * fixed, end = run ? run->offset + run->bytes : UINT64_MAX;
    uint64_t *const offsets = p->offsets + from, *const lengths = p->lengths + from;
    const uint64_t last = UINT64_MAX - fixed; /* an extent that begins behind it ends nowhere */
    uint32_t i;
    for (i = 0; i < count && e[i].bytes == fixed && e[i].offset <= last; i++, place += fixed) {
        offsets[i] = place;
        lengths[i] = fixed;
        if (run && e[i].offset == end && e[i].file == run->file) {
            end += fixed;
            run->bytes += fixed;
            continue;
        }
        if (run)
            run->in_place = dense_in_place(run, align, false);
        end = e[i].offset + fixed;
        run = next++;
        *run = (struct rfi_run){
            .file = e[i].file, .first = from + i, .offset = e[i].offset, .bytes = fixed, .place = place};
    }
    p->n_runs = (uint32_t)(next - p->runs);
    return i;
}

static int plan_fixed(const struct rfi_dataset *d, uint64_t align, uint64_t fixed, const uint64_t *ids, uint32_t n,
                      struct rfi_batch_plan *p, struct rfi_error *err)
{
    struct rfi_extent e[CHUNK];
    for (uint32_t from = 0; from < n; from += CHUNK) {
        uint32_t count = (uint32_t)rfi_min(CHUNK, n - from);
        int rc = read_extents(d, ids + from, count, e, err);
        if (rc < 0)
            return rc;
        uint32_t took = lay_out_dense(p, align, fixed, e, from, count);
        if (took < count && e[took].bytes == fixed)
            return damaged(d, ids + from + took, 1, err);
        if (took < count)
            return rfi_fail(err, EBADMSG, "dataset: sample %llu has %llu bytes, not %llu. Make the index again",
                            (unsigned long long)ids[from + took], (unsigned long long)e[took].bytes,
                            (unsigned long long)fixed);
    }
    if (p->n_runs)
        p->runs[p->n_runs - 1].in_place = dense_in_place(&p->runs[p->n_runs - 1], align, true);
    return fixed_footprint(fixed, align, n, &p->footprint, err);
}

int rfi_plan_batch(const struct rfi_dataset *d, uint64_t align, const uint64_t *ids, uint32_t n,
                   struct rfi_batch_plan *p, struct rfi_error *err)
{
    uint64_t fixed = rfi_dataset_fixed_bytes(d);
    p->n_samples = p->n_runs = 0;
    p->footprint = 0;
    if (n > p->cap)
        return rfi_fail(err, EINVAL, "plan: a batch of %u samples, and room for %u. This is a bug", n, p->cap);
    p->n_samples = n;
    if (fixed)
        return plan_fixed(d, align, fixed, ids, n, p, err);
    struct walk w = {.cursor = {.align = align}, .plan = p};
    int rc = walk_variable(d, &w, ids, n, err);
    p->footprint = rfi_cursor_footprint(&w.cursor);
    return rc;
}

/* What is left of one run: pieces between the samples that are left out, written to `to`; returns their end. */
static struct rfi_run *cut_run(const struct rfi_batch_plan *p, const struct rfi_run *run, uint32_t end, uint64_t align,
                               bool fixed, const uint8_t *omit, struct rfi_run *to)
{
    struct rfi_run *piece = NULL;
    for (uint32_t i = run->first; i < end; i++) {
        uint64_t at = p->offsets[i] - run->place; /* from the run's first byte, here as in the file */
        if (p->lengths[i] == 0)
            continue;
        if (omit[i]) {
            piece = NULL;
            continue;
        }
        if (!piece) {
            piece = to++;
            *piece = *run;
            piece->first = i;
            piece->offset = run->offset + at;
            piece->place = run->place + at;
        }
        piece->bytes = run->offset + at + p->lengths[i] - piece->offset;
        if (fixed)
            piece->in_place = dense_in_place(piece, align, i + 1 == p->n_samples);
    }
    return to;
}

void rfi_plan_omit(struct rfi_batch_plan *p, uint64_t align, bool fixed, const uint8_t *omit)
{
    struct rfi_run *to = p->other_runs, *runs = p->runs;
    for (uint32_t r = 0; r < p->n_runs; r++)
        to = cut_run(p, &runs[r], r + 1 < p->n_runs ? runs[r + 1].first : p->n_samples, align, fixed, omit, to);
    p->n_runs = (uint32_t)(to - p->other_runs);
    p->runs = p->other_runs;
    p->other_runs = runs;
}

int rfi_plan_footprint(const struct rfi_dataset *d, uint64_t align, const uint64_t *ids, uint32_t n, uint64_t *ret,
                       struct rfi_error *err)
{
    uint64_t fixed = rfi_dataset_fixed_bytes(d);
    if (fixed)
        return fixed_footprint(fixed, align, n, ret, err);
    struct walk w = {.cursor = {.align = align}};
    int rc = walk_variable(d, &w, ids, n, err);
    if (rc == 0)
        *ret = rfi_cursor_footprint(&w.cursor);
    return rc;
}
