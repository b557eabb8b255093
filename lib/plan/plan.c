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

static int read_extent(const struct rfi_dataset *d, uint64_t id, struct rfi_extent *ret, struct rfi_error *err)
{
    int rc = id < rfi_dataset_samples(d) ? rfi_dataset_extent(d, id, ret) : -EBADMSG;
    uint64_t end;
    if (rc == 0 && rfi_add_over(ret->offset, ret->bytes, &end))
        rc = -EBADMSG;
    if (rc < 0)
        return rfi_fail(
            err, -rc, "dataset: the entry of sample %llu is damaged (it points outside its file). Make the index again",
            (unsigned long long)id);
    return 0;
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

static int walk_variable(const struct rfi_dataset *d, struct walk *w, const uint64_t *ids, uint32_t n,
                         struct rfi_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        struct rfi_extent e;
        int rc = read_extent(d, ids[i], &e, err);
        if (rc < 0)
            return rc;
        if (e.bytes > 0 && !joins(&w->run, &e, RFI_JOIN_GAP)) {
            if ((rc = close_run(w, i, err)) < 0)
                return rc;
            w->run = (struct rfi_run){.file = e.file, .offset = e.offset};
            w->first = i;
        }
        note_sample(w, i, &e);
        if (e.bytes > 0)
            w->run.bytes = e.offset + e.bytes - w->run.offset;
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

/* Rounded outwards, such a run touches no other: only the end of the batch has slack behind it. */
static bool dense_in_place(const struct rfi_run *run, uint64_t align, bool last)
{
    return run->offset % align == 0 && run->place % align == 0 && (last || run->bytes % align == 0);
}

static int plan_fixed(const struct rfi_dataset *d, uint64_t align, uint64_t fixed, const uint64_t *ids, uint32_t n,
                      struct rfi_batch_plan *p, struct rfi_error *err)
{
    struct rfi_run *run = NULL;
    for (uint32_t i = 0; i < n; i++) {
        struct rfi_extent e;
        int rc = read_extent(d, ids[i], &e, err);
        if (rc < 0)
            return rc;
        if (e.bytes != fixed) /* a damaged table must not make a read run into its neighbour */
            return rfi_fail(err, EBADMSG, "dataset: sample %llu has %llu bytes, not %llu. Make the index again",
                            (unsigned long long)ids[i], (unsigned long long)e.bytes, (unsigned long long)fixed);
        p->offsets[i] = i * fixed;
        p->lengths[i] = e.bytes;
        if (run && joins(run, &e, 0)) {
            run->bytes += e.bytes;
            continue;
        }
        if (run)
            run->in_place = dense_in_place(run, align, false);
        run = &p->runs[p->n_runs++];
        *run = (struct rfi_run){.file = e.file, .first = i, .offset = e.offset, .bytes = e.bytes, .place = i * fixed};
    }
    if (run)
        run->in_place = dense_in_place(run, align, true);
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
