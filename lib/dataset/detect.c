/* Detection: one look at the head of each file. Files with an image's extension are not opened: no
 * container format is called that, and opening ten million of them would take minutes. */
#include "dataset/detect.h"

#include "dataset/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum kind { OPAQUE, SIDE, INDEX, COMPRESSED, CONTAINER };

struct look {
    enum kind kind;
    const struct rfi_format *format; /* of a container */
    const char *compressed;
};

struct tally {
    size_t n_opaque, n_side, n_compressed, n_container;
    size_t first_opaque, first_compressed, first_container;
    const char *compressed;
    const struct rfi_format *format;
    bool in_folders; /* every opaque file lies in a sub-folder */
};

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcasecmp(name + n - m, end);
}

static bool is_side_name(const char *name)
{
    const char *base = rfi_base_name(name);
    return !strcmp(base, "index.json") || !strncmp(base, "README", 6) || ends_with(base, ".idx") ||
           ends_with(base, ".rfi");
}

static int look_at(const struct rfi_sources *s, size_t i, struct look *ret, struct rfi_error *err)
{
    struct rfi_probe p;
    const char *name = rfi_source_name(s, i);
    int fd, rc;
    *ret = (struct look){.kind = OPAQUE};
    if (rfi_is_image_name(name))
        return 0;
    if ((rc = rfi_source_open(s, i, &fd, err)) < 0)
        return rc;
    rc = rfi_probe_fd(fd, name, &p, err);
    close(fd);
    if (rc < 0)
        return rc;
    if (p.n_head >= 8 && !memcmp(p.head, RFI_IMAGE_MAGIC, 8)) {
        ret->kind = INDEX;
        return 0;
    }
    for (const struct rfi_format *const *f = rfi_formats; *f; f++)
        if ((*f)->match && (*f)->match(&p)) {
            *ret = (struct look){.kind = CONTAINER, .format = *f};
            return 0;
        }
    ret->compressed = rfi_compressed_kind(&p);
    ret->kind = is_side_name(name) ? SIDE : ret->compressed ? COMPRESSED : OPAQUE;
    return 0;
}

static int mixed(const struct rfi_sources *s, const char *a_kind, size_t a, const char *b_kind, size_t b,
                 struct rfi_error *err)
{
    return rfi_fail(err, EINVAL,
                    "%s: a mix of formats: \"%s\" is %s, \"%s\" is %s. Name the files of one kind, or say what they "
                    "all are with --format",
                    s->root, rfi_source_name(s, a), a_kind, rfi_source_name(s, b), b_kind);
}

static int count(const struct rfi_sources *s, size_t i, const struct look *l, struct tally *t, struct rfi_error *err)
{
    switch (l->kind) {
    case INDEX:
        return 0;
    case SIDE:
        t->n_side++;
        return 0;
    case CONTAINER:
        if (!t->n_container++) {
            t->first_container = i;
            t->format = l->format;
        } else if (t->format != l->format) {
            return mixed(s, t->format->name, t->first_container, l->format->name, i, err);
        }
        return 0;
    case COMPRESSED:
        if (!t->n_compressed++) {
            t->first_compressed = i;
            t->compressed = l->compressed;
        }
        return 0;
    default:
        if (!t->n_opaque++)
            t->first_opaque = i;
        t->in_folders = t->in_folders && strchr(rfi_source_name(s, i), '/');
        return 0;
    }
}

static int take_tally(const struct rfi_sources *s, const rf_dataset_options *o, struct tally *t, struct rfi_error *err)
{
    size_t n = rfi_sources_n(s);
    int rc = 0;
    *t = (struct tally){.in_folders = true};
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct look l;
        rc = look_at(s, i, &l, err);
        if (rc == 0)
            rc = count(s, i, &l, t, err);
        if (rc == 0 && i % 4096 == 0 && o->progress && o->progress(o->progress_ctx, i, n, 0))
            rc = rfi_fail(err, ECANCELED, "%s: the scan was cancelled", s->root);
    }
    return rc;
}

static bool drop_side(const struct rfi_sources *s, size_t i, void *ctx)
{
    (void)ctx;
    struct look l;
    if (!is_side_name(rfi_source_name(s, i)))
        return false;
    return look_at(s, i, &l, NULL) < 0 || l.kind == SIDE || l.kind == INDEX;
}

/* An index saved among the files it describes must not become a sample of them. */
static bool drop_index(const struct rfi_sources *s, size_t i, void *ctx)
{
    (void)ctx;
    struct look l;
    return ends_with(rfi_source_name(s, i), ".rfi") && look_at(s, i, &l, NULL) == 0 && l.kind == INDEX;
}

static int unknown_file(const struct rfi_sources *s, struct rfi_error *err)
{
    return rfi_fail(err, EINVAL,
                    "%s/%s: its content is of no format that ringfeed knows. Say --record-bytes for raw records, or "
                    "--format files to take the whole file as one sample",
                    s->root, rfi_source_name(s, 0));
}

static int decide(const struct rfi_sources *s, const struct tally *t, const struct rfi_format **ret,
                  struct rfi_error *err)
{
    if (t->n_container && t->n_compressed)
        return mixed(s, t->format->name, t->first_container, t->compressed, t->first_compressed, err);
    if (t->n_container && t->n_opaque)
        return mixed(s, t->format->name, t->first_container, "not", t->first_opaque, err);
    if (t->n_compressed)
        return rfi_fail(
            err, ENOTSUP,
            "%s/%s: compressed (%s), so its samples cannot be read in place. Decompress it first, or say --format "
            "files to take such files as they are",
            s->root, rfi_source_name(s, t->first_compressed), t->compressed);
    *ret = t->format;
    if (t->n_container)
        return t->format->refine ? t->format->refine(s, ret, err) : 0;
    if (!t->n_opaque && !t->n_side)
        return rfi_fail(err, ENOENT, "%s: no file of a dataset there. Check the path", s->root);
    if (s->one_path)
        return unknown_file(s, err);
    *ret = s->one_directory && t->n_opaque && t->in_folders ? &rfi_format_imagefolder : &rfi_format_files;
    return 0;
}

static int no_such_format(const char *name, struct rfi_error *err)
{
    char known[512] = "";
    for (const struct rfi_format *const *f = rfi_formats; *f; f++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", (*f)->name);
    }
    return rfi_fail(err, EINVAL, "--format %s: no such format. Choose one of %s", name, known);
}

static int by_name(const rf_dataset_options *o, const struct rfi_format **ret, struct rfi_error *err)
{
    const char *name = o->format ? o->format : "raw";
    *ret = rfi_format_find(name);
    if (!*ret)
        return no_such_format(name, err);
    if (*ret == &rfi_format_raw && !o->record_bytes)
        return rfi_fail(err, EINVAL, "--format raw: the size of a record is not given. Say --record-bytes N");
    if (*ret != &rfi_format_raw && (o->record_bytes || o->header_bytes))
        return rfi_fail(err, EINVAL,
                        "--format %s: --record-bytes and --header-bytes are for raw records. Leave them out", name);
    return 0;
}

int rfi_detect(const rf_dataset_options *o, struct rfi_sources *s, const struct rfi_format **ret, struct rfi_error *err)
{
    struct tally t;
    bool named = o->format || o->record_bytes;
    int rc;
    if (!named && o->header_bytes)
        return rfi_fail(err, EINVAL, "--header-bytes: without --record-bytes it means nothing. Say both");
    if (named) {
        rc = by_name(o, ret, err);
    } else {
        rc = take_tally(s, o, &t, err);
        if (rc == 0)
            rc = decide(s, &t, ret, err);
    }
    if (rc < 0)
        return rc;
    bool whole_files = (*ret)->opaque && *ret != &rfi_format_raw;
    if (!s->one_path)
        rfi_sources_drop(s, whole_files ? drop_index : drop_side, NULL);
    if (!rfi_sources_n(s))
        return rfi_fail(err, ENOENT, "%s: no file of format %s there. Check the path", s->root, (*ret)->name);
    return 0;
}
