/* rf_dataset_*: the C API over a dataset handle. Checks what callers pass, keeps the text of the last
 * error, and reads samples with plain pread through one descriptor that stays open. */
#include "dataset/dataset.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rf_dataset {
    struct rfi_dataset *d;
    struct rfi_error err;
    int fd; /* of file fd_file, or -1 */
    uint32_t fd_file;
};

struct rfi_dataset *rfi_dataset_of(rf_dataset *d)
{
    return d->d;
}

void rf_dataset_options_init(rf_dataset_options *o)
{
    *o = (rf_dataset_options){.size = sizeof *o};
}

static int check_options(const rf_dataset_options *o, struct rfi_error *err)
{
    if (!o || !o->size || o->size > sizeof *o)
        return rfi_fail(err, EINVAL,
                        "rf_dataset_open: the options have no valid size. Fill them by rf_dataset_options_init");
    for (size_t i = 0; i < sizeof o->reserved / sizeof *o->reserved && o->size == sizeof *o; i++)
        if (o->reserved[i])
            return rfi_fail(err, EINVAL,
                            "rf_dataset_open: a reserved option is not zero. Use the header of this library");
    if (o->n_paths && !o->paths)
        return rfi_fail(err, EINVAL, "rf_dataset_open: paths is NULL. Name the dataset");
    return 0;
}

int rf_dataset_open(const rf_dataset_options *o, rf_dataset **ret)
{
    struct rfi_error *err = rfi_thread_error();
    rf_dataset_options mine;
    int rc = check_options(o, err);
    if (rc < 0)
        return rc;
    memset(&mine, 0, sizeof mine);
    memcpy(&mine, o, o->size);
    rf_dataset *d = calloc(1, sizeof *d);
    if (!d)
        return rfi_fail(err, ENOMEM, "rf_dataset_open: out of memory. Free some");
    d->fd = -1;
    rc = rfi_dataset_open(&mine, &d->d, err);
    if (rc < 0) {
        free(d);
        return rc;
    }
    *ret = d;
    return RF_OK;
}

void rf_dataset_close(rf_dataset *d)
{
    if (!d)
        return;
    if (d->fd >= 0)
        close(d->fd);
    rfi_dataset_close(d->d);
    free(d);
}

const char *rf_dataset_error(const rf_dataset *d)
{
    return d->err.text;
}

void rf_dataset_get_info(rf_dataset *d, rf_dataset_info *ret)
{
    rfi_dataset_info(d->d, ret);
}

const char *rf_dataset_field_name(rf_dataset *d, uint32_t field)
{
    return rfi_dataset_field_name(d->d, field);
}

int rf_dataset_write_index(rf_dataset *d, const char *path)
{
    return rfi_dataset_write(d->d, path, &d->err);
}

int rf_dataset_add_checksums(rf_dataset *d, int (*progress)(void *ctx, uint64_t done, uint64_t samples), void *ctx)
{
    struct rfi_dataset *with;
    int rc = rfi_dataset_with_checksums(d->d, progress, ctx, &with, &d->err);
    if (rc < 0)
        return rc;
    rfi_dataset_close(d->d);
    d->d = with;
    return RF_OK;
}

/* ---- samples ---- */

static int damaged(rf_dataset *d, uint64_t i)
{
    return rfi_fail(&d->err, EBADMSG, "sample %llu: its entry in the table is damaged. Index the dataset again",
                    (unsigned long long)i);
}

static int check_index(rf_dataset *d, uint64_t i)
{
    uint64_t n = rfi_dataset_samples(d->d);
    if (i < n)
        return 0;
    return rfi_fail(&d->err, ERANGE, "sample %llu: the dataset has %llu samples. Use a number below that",
                    (unsigned long long)i, (unsigned long long)n);
}

/* Extent and spans of sample i; the number of spans, or a negative errno with its text. */
static int look_up(rf_dataset *d, uint64_t i, struct rfi_extent *e, struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE])
{
    int rc = check_index(d, i);
    if (rc < 0)
        return rc;
    rc = rfi_dataset_extent(d->d, i, e);
    if (rc == 0)
        rc = rfi_dataset_spans(d->d, i, spans);
    return rc < 0 ? damaged(d, i) : rc;
}

int rf_dataset_sample(rf_dataset *d, uint64_t i, rf_sample *ret)
{
    struct rfi_extent e;
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    struct rfi_file f;
    size_t key_bytes;
    int n = look_up(d, i, &e, spans);
    if (n < 0)
        return n;
    rfi_dataset_file(d->d, e.file, &f);
    *ret = (rf_sample){.index = i, .file = f.path, .offset = e.offset, .bytes = e.bytes, .n_fields = (uint32_t)n};
    for (int k = 0; k < n; k++)
        ret->payload_bytes += spans[k].bytes;
    ret->has_label = rfi_dataset_label(d->d, i, &ret->label);
    ret->key = rfi_dataset_key(d->d, i, &key_bytes);
    if (!ret->key && rfi_dataset_has_keys(d->d))
        return rfi_fail(&d->err, EBADMSG, "sample %llu: the keys of the index are damaged. Index the dataset again",
                        (unsigned long long)i);
    return RF_OK;
}

int rf_dataset_sample_fields(rf_dataset *d, uint64_t i, rf_field *fields, uint32_t cap)
{
    struct rfi_extent e;
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    int n = look_up(d, i, &e, spans);
    for (int k = 0; k < n && (uint32_t)k < cap; k++)
        fields[k] = (rf_field){
            .name = rfi_dataset_field_name(d->d, spans[k].field), .offset = spans[k].offset, .bytes = spans[k].bytes};
    return n;
}

/* ---- reading ---- */

static int open_file(rf_dataset *d, uint32_t file, struct rfi_file *f)
{
    rfi_dataset_file(d->d, file, f);
    if (d->fd >= 0 && d->fd_file == file)
        return 0;
    if (d->fd >= 0)
        close(d->fd);
    d->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    d->fd_file = file;
    if (d->fd < 0)
        return rfi_fail(&d->err, errno, "%s: cannot be opened: %s. Put it back or check its permissions", f->path,
                        strerror(errno));
    return 0;
}

static int read_at(rf_dataset *d, const char *path, void *buf, uint64_t bytes, uint64_t offset)
{
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(d->fd, (char *)buf + done, rfi_min(bytes - done, 1u << 30), (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rfi_fail(&d->err, errno, "%s: cannot read %llu bytes at offset %llu: %s. Check the disk", path,
                            (unsigned long long)bytes, (unsigned long long)offset, strerror(errno));
        if (n == 0)
            return rfi_fail(&d->err, ESTALE,
                            "%s: ends before offset %llu: it was cut after it was indexed. Index it again", path,
                            (unsigned long long)(offset + bytes));
        done += (uint64_t)n;
    }
    return 0;
}

/* Keeps only the spans of `field`; NULL keeps all. How many are left, or -ENOENT. */
static int select_field(rf_dataset *d, uint64_t i, const char *field, struct rfi_span *spans, int n)
{
    if (!field)
        return n;
    for (int k = 0; k < n; k++)
        if (!strcmp(rfi_dataset_field_name(d->d, spans[k].field), field)) {
            spans[0] = spans[k];
            return 1;
        }
    return rfi_fail(&d->err, ENOENT, "sample %llu: it has no field \"%.60s\". Look at 'ringfeed inspect'",
                    (unsigned long long)i, field);
}

int rf_dataset_read(rf_dataset *d, uint64_t i, const char *field, void *buf, size_t cap, size_t *ret_bytes)
{
    struct rfi_extent e;
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    struct rfi_file f;
    uint64_t bytes = 0, done = 0;
    int rc = 0, n = look_up(d, i, &e, spans);
    if (n > 0)
        n = select_field(d, i, field, spans, n);
    if (n < 0)
        return n;
    for (int k = 0; k < n; k++)
        bytes += spans[k].bytes;
    *ret_bytes = bytes;
    if (bytes > cap)
        return rfi_fail(&d->err, ENOSPC, "sample %llu: %llu bytes do not fit a buffer of %zu. Give a larger one",
                        (unsigned long long)i, (unsigned long long)bytes, cap);
    rc = open_file(d, e.file, &f);
    for (int k = 0; k < n && rc == 0; k++) {
        rc = read_at(d, f.path, (char *)buf + done, spans[k].bytes, e.offset + spans[k].offset);
        done += spans[k].bytes;
    }
    return rc;
}
