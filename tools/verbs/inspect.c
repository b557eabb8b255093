/* `ringfeed inspect`: what a dataset is. One pass over the table when there is a table; a dataset of
 * fixed-size records without labels is described without looking at any sample. */
#include "cli.h"
#include "dataset_facts.h"

#include "base/clock.h"
#include "dataset/dataset.h"

#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 65, TEXT_CLASSES = 40 };

/* ---- class counts: a hash map that grows, label -> samples ---- */

struct class_count {
    int64_t label;
    uint64_t count, first; /* first: a sample of the class */
};

struct classes {
    struct class_count *slots; /* count 0: free */
    size_t n, cap;
};

static struct class_count *find(struct class_count *slots, size_t cap, int64_t label)
{
    size_t at = (size_t)((uint64_t)label * 0x9e3779b97f4a7c15u >> 20) & (cap - 1);
    while (slots[at].count && slots[at].label != label)
        at = (at + 1) & (cap - 1);
    return &slots[at];
}

static bool grow(struct classes *c)
{
    size_t cap = c->cap ? 2 * c->cap : 256;
    struct class_count *slots = calloc(cap, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < c->cap; i++)
        if (c->slots[i].count)
            *find(slots, cap, c->slots[i].label) = c->slots[i];
    free(c->slots);
    c->slots = slots;
    c->cap = cap;
    return true;
}

static bool count_class(struct classes *c, int64_t label, uint64_t sample)
{
    if (2 * c->n >= c->cap && !grow(c))
        return false;
    struct class_count *slot = find(c->slots, c->cap, label);
    if (!slot->count) {
        *slot = (struct class_count){.label = label, .first = sample};
        c->n++;
    }
    slot->count++;
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct class_count *x = a, *y = b;
    if (!x->count || !y->count)
        return !x->count - !y->count; /* free slots last */
    return x->label < y->label ? -1 : x->label > y->label;
}

/* ---- the pass ---- */

struct field_count {
    uint64_t samples, bytes;
};

struct pass {
    struct rfi_dataset *d;
    uint64_t buckets[N_BUCKETS]; /* by the number of bits of the size */
    struct field_count *fields;
    struct classes classes;
};

static int bucket_of(uint64_t bytes)
{
    return bytes ? 64 - __builtin_clzll(bytes) : 0;
}

static int look_at(struct pass *p, uint64_t i)
{
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    uint64_t bytes = 0;
    int64_t label;
    int n = rfi_dataset_spans(p->d, i, spans);
    if (n < 0)
        return cli_fail("the table is damaged. Index the dataset again");
    for (int k = 0; k < n; k++) {
        bytes += spans[k].bytes;
        p->fields[spans[k].field].samples++;
        p->fields[spans[k].field].bytes += spans[k].bytes;
    }
    p->buckets[bucket_of(bytes)]++;
    if (rfi_dataset_label(p->d, i, &label) && !count_class(&p->classes, label, i))
        return cli_fail("out of memory for the counts of the classes. Free some");
    return CLI_OK;
}

static int run_pass(struct pass *p, const rf_dataset_info *info)
{
    struct cli_progress progress;
    int rc = CLI_OK;
    p->fields = calloc(info->n_fields + 1u, sizeof *p->fields);
    if (!p->fields)
        return cli_fail("out of memory for the fields. Free some");
    if (info->samples && info->n_fields == 1 && info->min_bytes == info->max_bytes && !rfi_dataset_has_labels(p->d)) {
        p->buckets[bucket_of(info->max_bytes)] = info->samples;
        p->fields[0] = (struct field_count){.samples = info->samples, .bytes = info->bytes};
        return CLI_OK;
    }
    cli_progress_begin(&progress, "counting", info->samples);
    for (uint64_t i = 0; i < info->samples && rc == CLI_OK; i++) {
        rc = look_at(p, i);
        if (i % 65536 == 0)
            cli_progress_at(&progress, i, "samples");
    }
    cli_progress_end(&progress);
    return rc;
}

/* ---- output ---- */

static void emit_sizes(struct cli_emit *e, const struct pass *p)
{
    cli_emit_array(e, "sizes");
    for (int b = 0; b < N_BUCKETS; b++) {
        if (!p->buckets[b])
            continue;
        cli_emit_object(e, NULL);
        cli_emit_bytes(e, "from_bytes", b ? UINT64_C(1) << (b - 1) : 0);
        cli_emit_bytes(e, "to_bytes", b ? (UINT64_MAX >> (64 - b)) : 0);
        cli_emit_u64(e, "samples", p->buckets[b]);
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

static void emit_fields(struct cli_emit *e, const struct pass *p, rf_dataset *d, const rf_dataset_info *info)
{
    cli_emit_array(e, "field_sizes");
    for (uint32_t f = 0; f < info->n_fields; f++) {
        cli_emit_object(e, NULL);
        cli_emit_str(e, "field", rf_dataset_field_name(d, f));
        cli_emit_u64(e, "samples", p->fields[f].samples);
        cli_emit_bytes(e, "bytes", p->fields[f].bytes);
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

/* The class folder of a sample, where classes are folders. */
static void emit_class_name(struct cli_emit *e, const struct pass *p, const rf_dataset_info *info, uint64_t sample)
{
    char name[256];
    size_t n;
    const char *key = rfi_dataset_key(p->d, sample, &n), *slash = key ? memchr(key, '/', n) : NULL;
    if (strcmp(info->format, "imagefolder") || !slash || (size_t)(slash - key) >= sizeof name)
        return;
    memcpy(name, key, (size_t)(slash - key));
    name[slash - key] = 0;
    cli_emit_str(e, "name", name);
}

static void emit_classes(struct cli_emit *e, struct pass *p, const rf_dataset_info *info, bool json)
{
    struct classes *c = &p->classes;
    if (!c->n)
        return;
    qsort(c->slots, c->cap, sizeof *c->slots, compare);
    size_t shown = json || c->n <= TEXT_CLASSES ? c->n : TEXT_CLASSES;
    cli_emit_array(e, "class_counts");
    for (size_t i = 0; i < shown; i++) {
        cli_emit_object(e, NULL);
        cli_emit_i64(e, "label", c->slots[i].label);
        emit_class_name(e, p, info, c->slots[i].first);
        cli_emit_u64(e, "samples", c->slots[i].count);
        cli_emit_close(e);
    }
    cli_emit_close(e);
    if (shown < c->n)
        cli_emit_u64(e, "classes_not_shown", c->n - shown);
}

int verb_inspect(int argc, char **argv)
{
    bool json = false;
    struct cli_list paths;
    struct cli_dataset_args a;
    struct cli_emit e;
    rf_dataset_info info;
    const struct cli_option own[] = {{"json", CLI_FLAG, &json, .help = "one JSON object"}, {0}};
    const struct cli_option *const groups[] = {own, cli_dataset_options(&a), NULL};
    int rc = cli_parse(cli_verb_find("inspect"), groups, argc, argv, &paths);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    uint64_t started = rfi_now_ns();
    rf_dataset *d = cli_open_dataset(&a, &paths, &rc);
    if (!d)
        return rc;
    double seconds = (double)(rfi_now_ns() - started) * 1e-9;
    rf_dataset_get_info(d, &info);
    struct pass p = {.d = rfi_dataset_of(d)};
    rc = run_pass(&p, &info);
    if (rc == CLI_OK) {
        cli_emit_begin(&e, json);
        emit_dataset_facts(&e, d, &info);
        cli_emit_f64(&e, "seconds", seconds, 6);
        emit_fields(&e, &p, d, &info);
        emit_sizes(&e, &p);
        emit_classes(&e, &p, &info, json);
        rc = cli_emit_end(&e);
    }
    free(p.fields);
    free(p.classes.slots);
    rf_dataset_close(d);
    return rc;
}
