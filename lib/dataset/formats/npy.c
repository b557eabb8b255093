/* npy: the records of one array, or of several with one element type, along the first dimension.
 * Shards whose records differ in shape are read as samples of variable size, without a shape. */
#include "dataset/formats/format.h"
#include "dataset/formats/npy_header.h"

#include "dataset/image.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool match(const struct rfi_probe *p)
{
    return p->n_head >= 8 && !memcmp(p->head, "\x93NUMPY", 6);
}

static bool same_shape(const struct rfi_npy *a, const struct rfi_npy *b)
{
    if (a->n_dims != b->n_dims)
        return false;
    for (uint32_t i = 1; i < a->n_dims; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

static int scan_file(struct rfi_scan *s, size_t i, struct rfi_npy *ret, struct rfi_error *err)
{
    int fd;
    uint32_t file;
    uint64_t bytes;
    int rc = rfi_scan_open(s, i, &file, &fd, &bytes, err);
    if (rc < 0)
        return rc;
    rc = rfi_npy_read(fd, s->path, bytes, ret, err);
    close(fd);
    if (rc == 0 && ret->n_dims > RFI_MAX_DIMS + 1)
        rc = rfi_fail(err, ENOTSUP, "%s: %u dimensions; samples of at most %d are supported. Reshape the array",
                      s->path, ret->n_dims, RFI_MAX_DIMS);
    uint64_t record = rc == 0 ? rfi_npy_record_bytes(ret) : 0;
    if (rc == 0)
        rc = rfi_build_run(s->build, file, ret->data_offset, record, record, rfi_npy_records(ret), err);
    return rc < 0 ? rc : rfi_scan_tick(s, i, err);
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    struct rfi_npy first = {0}, a;
    bool same = true;
    int rc = 0;
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++) {
        rc = scan_file(s, i, &a, err);
        if (rc == 0 && i == 0)
            first = a;
        if (rc == 0 && strcmp(a.dtype, first.dtype) != 0)
            rc = rfi_fail(err, EINVAL, "%s: arrays of different types: \"%s\" has %s, \"%s\" has %s. Use one type",
                          s->sources->root, rfi_source_name(s->sources, 0), first.dtype, rfi_source_name(s->sources, i),
                          a.dtype);
        same = same && rc == 0 && same_shape(&a, &first);
    }
    if (rc == 0)
        rfi_build_array(s->build, first.dtype, same && first.n_dims ? first.n_dims - 1 : 0, first.dims + 1);
    return rc;
}

const struct rfi_format rfi_format_npy = {.name = "npy", .match = match, .scan = scan};
