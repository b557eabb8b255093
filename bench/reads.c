#include "reads.h"

#include "base/bytes.h"
#include "dataset/dataset.h"
#include "plan/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "bare_loop: %s: %s\n", what, why);
    return -1;
}

static int add_file(struct reads *r, const char *path, uint32_t *ret)
{
    if (r->n_files == r->files_cap) {
        size_t cap = r->files_cap ? 2 * r->files_cap : 64;
        char **files = realloc(r->files, cap * sizeof *files);
        if (!files)
            return complain(path, "no memory");
        r->files = files;
        r->files_cap = cap;
    }
    if (!(r->files[r->n_files] = strdup(path)))
        return complain(path, "no memory");
    *ret = (uint32_t)r->n_files++;
    return 0;
}

static int add_piece(struct reads *r, uint32_t file, uint64_t offset, uint32_t bytes)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 4096;
        struct read *items = realloc(r->items, cap * sizeof *items);
        if (!items)
            return complain("list of reads", "no memory");
        r->items = items;
        r->cap = cap;
    }
    r->items[r->n++] = (struct read){.offset = offset, .bytes = bytes, .file = file};
    return 0;
}

/* Under O_DIRECT pieces end at multiples of A, so that rounding outwards reads no block twice. */
static int add_read(struct reads *r, uint32_t file, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    while (offset < end) {
        uint64_t start = r->direct ? rfi_align_down(offset, r->align) : offset;
        uint64_t to = rfi_min(end, start + r->piece);
        if (add_piece(r, file, offset, (uint32_t)(to - offset)) < 0)
            return -1;
        offset = to;
    }
    return 0;
}

/* Neighbouring lines usually name the same file: only the last one is compared. */
static int add_line(struct reads *r, char *line)
{
    unsigned long long offset, bytes;
    char *tab = strchr(line, '\t');
    uint32_t file = (uint32_t)r->n_files - 1;
    if (!tab || sscanf(tab + 1, "%llu\t%llu", &offset, &bytes) != 2 || offset > INT64_MAX || bytes > INT64_MAX)
        return complain(line, "not \"file TAB offset TAB bytes\"");
    *tab = '\0';
    if ((r->n_files == 0 || strcmp(r->files[file], line) != 0) && add_file(r, line, &file) < 0)
        return -1;
    return add_read(r, file, offset, bytes);
}

int reads_from_stdin(struct reads *r)
{
    char *line = NULL;
    size_t cap = 0;
    int rc = 0;
    r->align = RFI_MIN_ALIGN;
    while (rc == 0 && getline(&line, &cap, stdin) > 0)
        rc = add_line(r, line);
    free(line);
    return rc;
}

struct source {
    rf_dataset *public;
    const struct rfi_dataset *dataset;
    rf_order *order;
    struct rfi_batch_plan plan;
    uint64_t *ids;
};

static int add_files(struct reads *r, const struct source *s)
{
    uint32_t n = rfi_dataset_n_files(s->dataset), number;
    for (uint32_t f = 0; f < n; f++) {
        struct rfi_file file;
        rfi_dataset_file(s->dataset, f, &file);
        if (add_file(r, file.path, &number) < 0)
            return -1;
    }
    return 0;
}

static int add_batch(struct reads *r, struct source *s, uint32_t n)
{
    struct rfi_error err;
    if (rfi_plan_batch(s->dataset, r->align, s->ids, n, &s->plan, &err) < 0)
        return complain("plan", err.text);
    for (uint32_t i = 0; i < s->plan.n_runs; i++)
        if (add_read(r, s->plan.runs[i].file, s->plan.runs[i].offset, s->plan.runs[i].bytes) < 0)
            return -1;
    return 0;
}

static int open_source(struct source *s, const struct reads_order *o)
{
    rf_dataset_options d;
    rf_order_options order;
    struct rfi_error err;
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
    if (rf_dataset_open(&d, &s->public) < 0 || rf_order_open(&order, s->public, &s->order) < 0)
        return complain("dataset", rf_last_error());
    s->dataset = rfi_dataset_of(s->public);
    s->ids = calloc(o->batch, sizeof *s->ids);
    if (!s->ids || rfi_plan_init(&s->plan, (uint32_t)o->batch, &err) < 0)
        return complain("batch", "no memory");
    return 0;
}

static int fill(struct reads *r, struct source *s, const struct reads_order *o)
{
    bool direct;
    if (rfi_plan_align(s->dataset, &r->align, &direct, NULL) < 0 || add_files(r, s) < 0)
        return -1;
    for (uint64_t epoch = 0; epoch < o->epochs; epoch++)
        for (uint64_t b = 0, len = rf_order_len(s->order, o->rank); b < len; b++) {
            int64_t n = rf_order_batch(s->order, epoch, o->rank, b, s->ids, NULL);
            if (n < 0)
                return complain("order", rf_order_error(s->order));
            if (add_batch(r, s, (uint32_t)n) < 0)
                return -1;
        }
    return 0;
}

int reads_from_dataset(struct reads *r, const struct reads_order *o)
{
    struct source s = {0};
    int rc = open_source(&s, o);
    if (rc == 0)
        rc = fill(r, &s, o);
    rfi_plan_fini(&s.plan);
    free(s.ids);
    rf_order_close(s.order);
    rf_dataset_close(s.public);
    return rc;
}

void reads_free(struct reads *r)
{
    for (size_t i = 0; i < r->n_files; i++)
        free(r->files[i]);
    free(r->files);
    free(r->items);
}
