/* idx: the records of IDX files along the first dimension. Labels come from the label file that goes
 * with an image file by MNIST's naming (images -> labels, idx3 -> idx1; QMNIST: idx2-int, whose first
 * column is the class) in the same folder; a label file found that way is not a shard itself. A file
 * that is called labels and has one label a record is its own label file. */
#include "dataset/formats/format.h"
#include "dataset/formats/idx_header.h"

#include "dataset/image.h"
#include "dataset/label_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool match(const struct rfi_probe *p)
{
    return rfi_idx_match(p->head, p->n_head);
}

/* ---- names ---- */

/* Replaces the last `from` in the base name by `to`; false when there is none. */
static bool replace(const char *name, const char *from, const char *to, char *ret, size_t cap)
{
    const char *base = rfi_base_name(name), *hit = NULL;
    for (const char *p = base; (p = strstr(p, from)); p++)
        hit = p;
    int n = hit ? snprintf(ret, cap, "%.*s%s%s", (int)(hit - name), name, to, hit + strlen(from)) : -1;
    return n >= 0 && (size_t)n < cap;
}

static bool is_there(const struct rfi_sources *s, const char *name)
{
    return faccessat(s->root_fd, name, R_OK, 0) == 0;
}

/* Name of the label file of image file `name`, if one is there. */
static bool find_labels(const struct rfi_sources *s, const char *name, char *ret, size_t cap)
{
    static const char *const dims[][2] = {
        {"idx3", "idx1"}, {"idx4", "idx1"}, {"idx2", "idx1"}, {"idx3-ubyte", "idx2-int"}, {"", ""}};
    char labels[PATH_MAX];
    if (!replace(name, "images", "labels", labels, sizeof labels))
        return false;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        if (!*dims[i][0])
            snprintf(ret, cap, "%s", labels);
        else if (!replace(labels, dims[i][0], dims[i][1], ret, cap))
            continue;
        if (is_there(s, ret))
            return true;
    }
    return false;
}

static bool is_label_name(const char *name)
{
    return strstr(rfi_base_name(name), "labels") != NULL;
}

/* A label file whose image file is in the list is no shard. Names are compared in a sorted copy. */
struct label_names {
    char **names;
    size_t n, cap;
    bool no_memory;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void collect_label_names(const struct rfi_sources *s, struct label_names *l)
{
    char name[PATH_MAX];
    l->names = calloc(rfi_sources_n(s) + 1, sizeof *l->names);
    l->no_memory = !l->names;
    for (size_t i = 0; i < rfi_sources_n(s) && !l->no_memory; i++)
        if (find_labels(s, rfi_source_name(s, i), name, sizeof name)) {
            l->names[l->n] = strdup(name);
            l->no_memory = !l->names[l->n];
            l->n += !l->no_memory;
        }
    if (l->n)
        qsort(l->names, l->n, sizeof *l->names, compare_names);
}

static bool drop_labels(const struct rfi_sources *s, size_t i, void *ctx)
{
    struct label_names *l = ctx;
    const char *name = rfi_source_name(s, i);
    return l->n && bsearch(&name, l->names, l->n, sizeof *l->names, compare_names);
}

static int drop_label_files(struct rfi_sources *s, struct rfi_error *err)
{
    struct label_names l = {0};
    collect_label_names(s, &l);
    if (!l.no_memory)
        rfi_sources_drop(s, drop_labels, &l);
    for (size_t i = 0; i < l.n; i++)
        free(l.names[i]);
    free(l.names);
    return l.no_memory ? rfi_fail(err, ENOMEM, "%s: out of memory. Free some", s->root) : 0;
}

/* ---- scan ---- */

/* What is known of the labels so far. Samples without one are not entered before some have one: a
 * dataset without labels pays nothing. */
struct labels {
    bool any;
    uint64_t pending; /* samples without a label that are not entered yet */
};

static int enter_pending(struct rfi_scan *s, struct labels *l, struct rfi_error *err)
{
    int rc = 0;
    for (; l->any && l->pending && rc == 0; l->pending--)
        rc = rfi_build_label(s->build, false, 0, err);
    return rc;
}

static int add_labels(struct rfi_scan *s, size_t i, const struct rfi_idx *a, struct labels *l, struct rfi_error *err)
{
    char name[PATH_MAX], path[2 * PATH_MAX];
    const char *shard = rfi_source_name(s->sources, i);
    if (find_labels(s->sources, shard, name, sizeof name)) {
        shard = name;
    } else if (!is_label_name(shard) || !a->integer || a->n_dims > 2 || (a->n_dims == 2 && !a->dims[1])) {
        l->pending += a->dims[0];
        return enter_pending(s, l, err);
    }
    l->any = true;
    int rc = enter_pending(s, l, err);
    snprintf(path, sizeof path, "%s/%s", s->sources->root, shard);
    return rc < 0 ? rc : rfi_label_file_add(s->build, path, a->dims[0], s->path, err);
}

static int scan_file(struct rfi_scan *s, size_t i, struct rfi_idx *ret, struct labels *l, struct rfi_error *err)
{
    int fd;
    uint32_t file;
    uint64_t bytes;
    int rc = rfi_scan_open(s, i, &file, &fd, &bytes, err);
    if (rc < 0)
        return rc;
    rc = rfi_idx_read(fd, s->path, bytes, ret, err);
    close(fd);
    if (rc == 0)
        rc = rfi_build_run(s->build, file, ret->data_offset, ret->record_bytes, ret->record_bytes, ret->dims[0], err);
    if (rc == 0 && !s->o->labels)
        rc = add_labels(s, i, ret, l, err);
    return rc < 0 ? rc : rfi_scan_tick(s, i, err);
}

static bool same(const struct rfi_idx *a, const struct rfi_idx *b)
{
    return a->dtype == b->dtype && a->n_dims == b->n_dims &&
           (a->n_dims < 2 || !memcmp(a->dims + 1, b->dims + 1, (a->n_dims - 1) * sizeof *a->dims));
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    struct rfi_idx first = {0}, a;
    struct labels labels = {0};
    int rc = drop_label_files(s->sources, err);
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++) {
        rc = scan_file(s, i, &a, &labels, err);
        if (rc == 0 && i == 0)
            first = a;
        if (rc == 0 && !same(&a, &first))
            rc = rfi_fail(err, EINVAL,
                          "%s: \"%s\" and \"%s\" hold records of different type or shape. Name files of one kind",
                          s->sources->root, rfi_source_name(s->sources, 0), rfi_source_name(s->sources, i));
    }
    if (rc == 0 && first.n_dims)
        rfi_build_array(s->build, first.dtype, first.n_dims - 1, first.dims + 1);
    return rc;
}

const struct rfi_format rfi_format_idx = {.name = "idx", .match = match, .scan = scan};
