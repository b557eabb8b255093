/* Reading label files in bounded memory: blocks of records, or lines. */
#include "dataset/label_file.h"

#include "base/bytes.h"
#include "dataset/formats/format.h"
#include "dataset/formats/idx_header.h"
#include "dataset/formats/npy_header.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 16 };

struct label_reader {
    struct rfi_build *b;
    const char *path, *whose;
    uint64_t samples;
    struct rfi_error *err;
};

static int wrong_count(const struct label_reader *r, uint64_t labels)
{
    return rfi_fail(r->err, EINVAL, "%s: %llu labels, but %s has %llu samples. Give one label a sample", r->path,
                    (unsigned long long)labels, r->whose, (unsigned long long)r->samples);
}

/* ---- arrays ---- */

/* An integer of 1, 2, 4 or 8 bytes, as it lies in a record. */
struct element {
    uint32_t bytes;
    bool big, is_signed;
};

static int decode(const struct label_reader *r, const unsigned char *p, struct element e, int64_t *ret)
{
    uint64_t v = 0;
    for (uint32_t i = 0; i < e.bytes; i++)
        v |= (uint64_t)p[e.big ? e.bytes - 1 - i : i] << (8 * i);
    if (e.is_signed && e.bytes < 8 && v >> (8 * e.bytes - 1))
        v |= UINT64_MAX << (8 * e.bytes);
    if (!e.is_signed && v > INT64_MAX)
        return rfi_fail(r->err, ERANGE, "%s: a label of %llu does not fit 63 bits. Use smaller labels", r->path,
                        (unsigned long long)v);
    *ret = (int64_t)v;
    return 0;
}

/* The first element of each record. */
static int add_records(const struct label_reader *r, int fd, uint64_t offset, uint64_t record, struct element e)
{
    unsigned char block[BLOCK_BYTES];
    uint64_t each = record <= BLOCK_BYTES ? BLOCK_BYTES / record : 1;
    int rc = 0;
    for (uint64_t i = 0; i < r->samples && rc == 0; i += each) {
        uint64_t n = rfi_min(each, r->samples - i);
        size_t bytes = (size_t)((n - 1) * record) + e.bytes;
        rc = rfi_read_exact(fd, r->path, block, bytes, offset + i * record, r->err);
        for (uint64_t k = 0; k < n && rc == 0; k++) {
            int64_t v = 0;
            rc = decode(r, block + k * record, e, &v);
            if (rc == 0)
                rc = rfi_build_label(r->b, true, v, r->err);
        }
    }
    return rc;
}

static int add_idx(const struct label_reader *r, int fd, uint64_t bytes)
{
    struct rfi_idx a;
    int rc = rfi_idx_read(fd, r->path, bytes, &a, r->err);
    if (rc < 0)
        return rc;
    if (!a.integer || a.n_dims > 2 || (a.n_dims == 2 && !a.dims[1]))
        return rfi_fail(r->err, EINVAL, "%s: labels must be integers, one a sample or one row a sample. Check the file",
                        r->path);
    if (a.dims[0] != r->samples)
        return wrong_count(r, a.dims[0]);
    struct element e = {.bytes = a.item_bytes, .big = true, .is_signed = strcmp(a.dtype, "|u1") != 0};
    return add_records(r, fd, a.data_offset, a.record_bytes, e);
}

static int add_npy(const struct label_reader *r, int fd, uint64_t bytes)
{
    struct rfi_npy a;
    int rc = rfi_npy_read(fd, r->path, bytes, &a, r->err);
    if (rc < 0)
        return rc;
    const char *t = a.dtype + (a.dtype[0] && strchr("<>|=", a.dtype[0]) ? 1 : 0);
    bool integer =
        strchr("iub?", *t) && (a.item_bytes == 1 || a.item_bytes == 2 || a.item_bytes == 4 || a.item_bytes == 8);
    if (!integer || a.n_dims < 1 || a.n_dims > 2 || (a.n_dims == 2 && !a.dims[1]))
        return rfi_fail(r->err, EINVAL,
                        "%s: labels must be integers, one a sample or one row a sample; this is %s. Check the file",
                        r->path, a.dtype);
    if (a.dims[0] != r->samples)
        return wrong_count(r, a.dims[0]);
    struct element e = {.bytes = (uint32_t)a.item_bytes, .big = a.dtype[0] == '>', .is_signed = *t == 'i'};
    return add_records(r, fd, a.data_offset, rfi_npy_record_bytes(&a), e);
}

/* ---- text ---- */

bool rfi_label_text(const char *text, size_t n, int64_t *ret)
{
    char copy[32], *end;
    while (n && strchr(" \t\r\n", text[n - 1]) && text[n - 1])
        n--;
    while (n && strchr(" \t\r\n", *text) && *text)
        text++, n--;
    if (!n || n >= sizeof copy || !strchr("+-0123456789", *text))
        return false;
    memcpy(copy, text, n);
    copy[n] = 0;
    errno = 0;
    *ret = strtoll(copy, &end, 10);
    return !errno && end == copy + n;
}

/* One line; what does not fit `cap` is no integer and is only skipped. False at the end. */
static bool next_line(FILE *f, char *line, size_t cap, size_t *ret_n)
{
    int c;
    *ret_n = 0;
    while ((c = getc_unlocked(f)) != EOF && c != '\n')
        if (*ret_n < cap)
            line[(*ret_n)++] = (char)c;
    return c != EOF || *ret_n;
}

static int add_lines(const struct label_reader *r, FILE *f)
{
    char line[64];
    uint64_t lines = 0, labels = 0;
    size_t n;
    int rc = 0;
    while (rc == 0 && next_line(f, line, sizeof line, &n)) {
        int64_t v = 0;
        bool has = n < sizeof line && rfi_label_text(line, n, &v);
        labels += has;
        if (++lines <= r->samples) /* more are only counted, for the message */
            rc = rfi_build_label(r->b, has, v, r->err);
    }
    if (rc == 0 && ferror(f))
        rc = rfi_fail(r->err, EIO, "%s: cannot be read. Check the disk", r->path);
    if (rc == 0 && lines && !labels)
        rc = rfi_fail(r->err, EINVAL, "%s: no line of it is an integer: not a label file. Check the path", r->path);
    if (rc == 0 && lines != r->samples)
        rc = wrong_count(r, lines);
    return rc;
}

static int add_any(const struct label_reader *r, int fd)
{
    struct rfi_probe p;
    int rc = rfi_probe_fd(fd, r->path, &p, r->err);
    if (rc < 0)
        return rc;
    if (rfi_compressed_kind(&p))
        return rfi_fail(r->err, ENOTSUP, "%s: the label file is compressed (%s). Decompress it first", r->path,
                        rfi_compressed_kind(&p));
    if (rfi_idx_match(p.head, p.n_head))
        return add_idx(r, fd, p.bytes);
    if (p.n_head >= 6 && !memcmp(p.head, "\x93NUMPY", 6))
        return add_npy(r, fd, p.bytes);
    if (memchr(p.head, 0, p.n_head))
        return rfi_fail(r->err, EINVAL, "%s: neither IDX, nor .npy, nor text: not a label file. Check the path",
                        r->path);
    int copy = dup(fd);
    FILE *f = copy < 0 ? NULL : fdopen(copy, "r");
    if (!f) {
        if (copy >= 0)
            close(copy);
        return rfi_fail(r->err, ENOMEM, "%s: out of memory or descriptors. Free some", r->path);
    }
    rc = add_lines(r, f);
    fclose(f);
    return rc;
}

int rfi_label_file_add(struct rfi_build *b, const char *path, uint64_t samples, const char *whose,
                       struct rfi_error *err)
{
    struct label_reader r = {.b = b, .path = path, .whose = whose, .samples = samples, .err = err};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return rfi_fail(err, errno, "%s: cannot open the label file: %s. Check the path", path, strerror(errno));
    int rc = 0;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        rc = rfi_fail(err, EINVAL, "%s: the label file is not a regular file. Check the path", path);
    if (rc == 0)
        rc = add_any(&r, fd);
    close(fd);
    return rc;
}
