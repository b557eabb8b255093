/* rfi_dataset_open: an index file is mapped; anything else is found, recognised, scanned and built. */
#include "dataset/detect.h"
#include "dataset/index_file.h"
#include "dataset/label_file.h"

#include <errno.h>
#include <string.h>

static int add_labels(struct rfi_scan *s, struct rfi_error *err)
{
    rfi_build_drop_labels(s->build);
    return rfi_label_file_add(s->build, s->o->labels, rfi_build_samples(s->build), s->sources->root, err);
}

static int scan(const rf_dataset_options *o, struct rfi_sources *sources, const struct rfi_format *format,
                struct rfi_dataset **ret, struct rfi_error *err)
{
    struct rfi_scan s = {.o = o, .sources = sources};
    if (o->label_field && format != &rfi_format_webdataset)
        return rfi_fail(err, EINVAL,
                        "--label-field: %s is of format %s, and only a webdataset has fields. Leave it out",
                        sources->root, format->name);
    int rc = rfi_build_create(format->name, sources->root, &s.build, err);
    if (rc < 0)
        return rc;
    rc = format->scan(&s, err);
    if (rc == 0 && o->labels)
        rc = add_labels(&s, err);
    if (rc == 0 && o->progress &&
        o->progress(o->progress_ctx, rfi_sources_n(sources), rfi_sources_n(sources), rfi_build_samples(s.build)))
        rc = rfi_fail(err, ECANCELED, "%s: the scan was cancelled", sources->root);
    if (rc == 0)
        rc = rfi_build_finish(s.build, ret, err);
    rfi_build_destroy(s.build);
    return rc;
}

/* An index already says all that these options could change. */
static int open_index(const rf_dataset_options *o, struct rfi_dataset **ret, struct rfi_error *err)
{
    if (o->format || o->record_bytes || o->header_bytes || o->labels || o->label_field)
        return rfi_fail(
            err, EINVAL,
            "%s: an index holds its format and labels. Leave --format, --record-bytes, --header-bytes, --labels and "
            "--label-field out, or give them to 'ringfeed index'",
            o->paths[0]);
    return rfi_index_open(o->paths[0], ret, err);
}

int rfi_dataset_open(const rf_dataset_options *o, struct rfi_dataset **ret, struct rfi_error *err)
{
    struct rfi_sources sources;
    const struct rfi_format *format;
    bool has_index = false;
    for (size_t i = 0; i < o->n_paths && !has_index; i++)
        has_index = o->paths[i] && rfi_is_index_file(o->paths[i]);
    if (has_index && o->n_paths > 1)
        return rfi_fail(err, EINVAL,
                        "%s: an index stands for a whole dataset and cannot be joined with other paths. Name it alone",
                        o->paths[0]);
    if (has_index)
        return open_index(o, ret, err);
    int rc = rfi_sources_find(o, &sources, err);
    if (rc < 0)
        return rc;
    rc = rfi_detect(o, &sources, &format, err);
    if (rc == 0)
        rc = scan(o, &sources, format, ret, err);
    rfi_sources_free(&sources);
    return rc;
}
