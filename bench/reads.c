#include "reads.h"

#include "base/bytes.h"
#include "dataset/dataset.h"
#include "plan/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct rfi_error *err)
{
    return rfi_fail(err, ENOMEM, "list of reads: out of memory");
}

int reads_file(struct reads *r, const char *path, uint32_t *ret, struct rfi_error *err)
{
    if (r->n_files == r->files_cap) {
        size_t cap = r->files_cap ? 2 * r->files_cap : 64;
        char **files = realloc(r->files, cap * sizeof *files);
        if (!files)
            return no_memory(err);
        r->files = files;
        r->files_cap = cap;
    }
    if (!(r->files[r->n_files] = strdup(path)))
        return no_memory(err);
    *ret = (uint32_t)r->n_files++;
    return 0;
}

static int add_piece(struct reads *r, uint32_t file, uint64_t offset, uint32_t bytes, struct rfi_error *err)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 4096;
        struct read *items = realloc(r->items, cap * sizeof *items);
        if (!items)
            return no_memory(err);
        r->items = items;
        r->cap = cap;
    }
    r->items[r->n++] = (struct read){.offset = offset, .bytes = bytes, .file = file};
    return 0;
}

/* Under O_DIRECT pieces end at multiples of A, so that rounding outwards reads no block twice. */
int reads_extent(struct reads *r, uint32_t file, uint64_t offset, uint64_t bytes, struct rfi_error *err)
{
    uint64_t end = offset + bytes;
    while (offset < end) {
        uint64_t start = r->direct ? rfi_align_down(offset, r->align) : offset;
        uint64_t to = rfi_min(end, start + r->piece);
        if (add_piece(r, file, offset, (uint32_t)(to - offset), err) < 0)
            return err->code;
        offset = to;
    }
    return 0;
}

/* Neighbouring lines usually name the same file: only the last one is compared. */
static int add_line(struct reads *r, char *line, struct rfi_error *err)
{
    unsigned long long offset, bytes;
    char *tab = strchr(line, '\t');
    uint32_t file = (uint32_t)r->n_files - 1;
    if (!tab || sscanf(tab + 1, "%llu\t%llu", &offset, &bytes) != 2 || offset > INT64_MAX || bytes > INT64_MAX)
        return rfi_fail(err, EINVAL, "%.200s: not \"file TAB offset TAB bytes\"", line);
    *tab = '\0';
    if ((r->n_files == 0 || strcmp(r->files[file], line) != 0) && reads_file(r, line, &file, err) < 0)
        return err->code;
    return reads_extent(r, file, offset, bytes, err);
}

int reads_from_stdin(struct reads *r, struct rfi_error *err)
{
    char *line = NULL;
    size_t cap = 0;
    int rc = 0;
    r->align = RFI_MIN_ALIGN;
    while (rc == 0 && getline(&line, &cap, stdin) > 0)
        rc = add_line(r, line, err);
    free(line);
    return rc;
}

/* ---- from an order ---- */

struct source {
    const struct rfi_dataset *dataset;
    rf_order *order;
    const struct reads_part *part;
    struct rfi_batch_plan plan;
    uint64_t *ids;
    uint64_t turn; /* batches gone by, those of other parts too */
};

static int add_files(struct reads *r, const struct source *s, struct rfi_error *err)
{
    uint32_t n = rfi_dataset_n_files(s->dataset), number;
    int rc = 0;
    for (uint32_t f = 0; f < n && rc == 0; f++) {
        struct rfi_file file;
        rfi_dataset_file(s->dataset, f, &file);
        rc = reads_file(r, file.path, &number, err);
    }
    return rc;
}

static int add_planned(struct reads *r, struct source *s, uint32_t n, struct rfi_error *err)
{
    int rc = rfi_plan_batch(s->dataset, r->align, s->ids, n, &s->plan, err);
    for (uint32_t i = 0; i < s->plan.n_runs && rc == 0; i++)
        rc = reads_extent(r, s->plan.runs[i].file, s->plan.runs[i].offset, s->plan.runs[i].bytes, err);
    r->samples += n;
    for (uint32_t i = 0; i < n && rc == 0; i++)
        r->bytes += s->plan.lengths[i];
    return rc;
}

static int add_batch(struct reads *r, struct source *s, uint64_t epoch, uint32_t rank, uint64_t batch,
                     struct rfi_error *err)
{
    if (s->turn++ % s->part->parts != s->part->part)
        return 0;
    int64_t n = rf_order_batch(s->order, epoch, rank, batch, s->ids, NULL);
    if (n < 0)
        return rfi_fail(err, (int)-n, "%s", rf_order_error(s->order));
    return add_planned(r, s, (uint32_t)n, err);
}

static bool is_full(const struct reads *r, const struct reads_part *p)
{
    return p->most && r->n >= p->most;
}

/* A batch of each rank in turn, as ranks in step take them. */
static int fill(struct reads *r, struct source *s, struct rfi_error *err)
{
    const struct reads_part *p = s->part;
    int rc = add_files(r, s, err);
    for (uint64_t epoch = p->epoch; epoch < p->epoch + p->epochs && rc == 0; epoch++) {
        bool any = true;
        for (uint64_t b = 0; any && rc == 0 && !is_full(r, p); b++) {
            any = false;
            for (uint32_t i = p->first_rank; i < p->first_rank + p->ranks && rc == 0; i++)
                if (b < rf_order_len(s->order, i)) {
                    any = true;
                    rc = add_batch(r, s, epoch, i, b, err);
                }
        }
    }
    return rc;
}

int reads_from_order(struct reads *r, rf_dataset *d, rf_order *order, const struct reads_part *p, struct rfi_error *err)
{
    struct source s = {.dataset = rfi_dataset_of(d), .order = order, .part = p};
    bool direct;
    int rc = rfi_plan_align(s.dataset, &r->align, &direct, err);
    if (rc == 0)
        rc = rfi_plan_init(&s.plan, (uint32_t)p->batch, err);
    if (rc == 0 && !(s.ids = calloc(p->batch, sizeof *s.ids)))
        rc = no_memory(err);
    if (rc == 0)
        rc = fill(r, &s, err);
    rfi_plan_fini(&s.plan);
    free(s.ids);
    return rc;
}

static int open_order(const struct reads_order *o, rf_dataset **ret_dataset, rf_order **ret_order)
{
    rf_dataset_options d;
    rf_order_options order;
    rf_dataset_options_init(&d);
    d.paths = o->paths;
    d.n_paths = o->n_paths;
    d.format = o->format;
    d.record_bytes = o->record_bytes;
    d.header_bytes = o->header_bytes;
    rf_order_options_init(&order);
    order.world_size = o->world_size;
    order.batch = o->batch;
    order.seed = o->seed;
    order.shuffle = (rf_shuffle)o->shuffle;
    int rc = rf_dataset_open(&d, ret_dataset);
    return rc < 0 ? rc : rf_order_open(&order, *ret_dataset, ret_order);
}

int reads_from_paths(struct reads *r, const struct reads_order *o, struct rfi_error *err)
{
    rf_dataset *d = NULL;
    rf_order *order = NULL;
    const struct reads_part part = {
        .epochs = o->epochs, .first_rank = o->rank, .ranks = 1, .parts = 1, .batch = o->batch};
    int rc = open_order(o, &d, &order);
    rc = rc < 0 ? rfi_fail(err, -rc, "%s", rf_last_error()) : reads_from_order(r, d, order, &part, err);
    rf_order_close(order);
    rf_dataset_close(d);
    return rc;
}

void reads_free(struct reads *r)
{
    for (size_t i = 0; i < r->n_files; i++)
        free(r->files[i]);
    free(r->files);
    free(r->items);
}
