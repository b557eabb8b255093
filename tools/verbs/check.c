/* See check.h. */
#include "check.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SAY_MOST = 5 };

void check_init(struct check *c, const struct rfi_dataset *d)
{
    *c = (struct check){.dataset = d};
    for (size_t i = 0; i < sizeof c->open / sizeof *c->open; i++)
        c->open[i].fd = -1;
}

void check_fini(struct check *c)
{
    for (size_t i = 0; i < sizeof c->open / sizeof *c->open; i++)
        if (c->open[i].fd >= 0)
            close(c->open[i].fd);
    free(c->buffer);
}

static int open_file(struct check *c, uint32_t file, const char *path)
{
    size_t i = file % (sizeof c->open / sizeof *c->open);
    if (c->open[i].fd >= 0 && c->open[i].file == file)
        return c->open[i].fd;
    if (c->open[i].fd >= 0)
        close(c->open[i].fd);
    c->open[i].fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    c->open[i].file = file;
    return c->open[i].fd;
}

__attribute__((format(printf, 2, 3))) static void wrong(struct check *c, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    if (c->errors++ >= SAY_MOST)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cli_message("check: %s", text);
}

/* The file's own bytes at (offset, bytes), or NULL after a message. */
static const unsigned char *truth(struct check *c, uint64_t id, const char *path, int fd, uint64_t offset,
                                  uint64_t bytes)
{
    if (bytes > c->buffer_bytes) {
        unsigned char *p = realloc(c->buffer, bytes);
        if (!p) {
            wrong(c, "sample %" PRIu64 ": out of memory for %" PRIu64 " bytes", id, bytes);
            return NULL;
        }
        c->buffer = p;
        c->buffer_bytes = bytes;
    }
    for (uint64_t at = 0; at < bytes;) {
        ssize_t n = pread(fd, c->buffer + at, bytes - at, (off_t)(offset + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            wrong(c, "sample %" PRIu64 ": cannot read %s at offset %" PRIu64 ": %s", id, path, offset + at,
                  n ? strerror(errno) : "the file ends");
            return NULL;
        }
        at += (uint64_t)n;
    }
    return c->buffer;
}

static void compare(struct check *c, uint64_t id, const char *path, int fd, uint64_t offset, const unsigned char *got,
                    uint64_t bytes)
{
    const unsigned char *want = bytes ? truth(c, id, path, fd, offset, bytes) : NULL;
    if (!want || memcmp(want, got, bytes) == 0)
        return;
    uint64_t at = 0;
    while (want[at] == got[at])
        at++;
    wrong(c, "sample %" PRIu64 " differs from %s at offset %" PRIu64 ": got 0x%02x, the file has 0x%02x", id, path,
          offset + at, got[at], want[at]);
}

/* The segment is read by whoever may open it and believed by nobody: bytes outside the batch are not looked at. */
static bool inside(const rf_batch *b, uint64_t offset, uint64_t bytes)
{
    return offset <= b->data_bytes && bytes <= b->data_bytes - offset;
}

static void check_sample(struct check *c, const rf_batch *b, uint32_t i)
{
    struct rfi_extent e;
    struct rfi_file file;
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    uint64_t id = b->ids[i];
    if (id >= rfi_dataset_samples(c->dataset) || rfi_dataset_extent(c->dataset, id, &e) < 0) {
        wrong(c, "sample %" PRIu64 " is not in the dataset", id);
        return;
    }
    rfi_dataset_file(c->dataset, e.file, &file);
    if (b->lengths[i] != e.bytes) {
        wrong(c, "sample %" PRIu64 " has %" PRIu64 " bytes instead of %" PRIu64, id, b->lengths[i], e.bytes);
        return;
    }
    if (!inside(b, b->offsets[i], b->lengths[i])) {
        wrong(c, "sample %" PRIu64 " lies outside its batch", id);
        return;
    }
    int fd = open_file(c, e.file, file.path);
    if (fd < 0) {
        wrong(c, "sample %" PRIu64 ": cannot open %s: %s", id, file.path, strerror(errno));
        return;
    }
    if (!b->field_offsets) {
        compare(c, id, file.path, fd, e.offset, rf_batch_sample(b, i), e.bytes);
        return;
    }
    int n = rfi_dataset_spans(c->dataset, id, spans);
    for (int s = 0; s < n; s++) {
        uint64_t at = (uint64_t)i * b->n_fields + spans[s].field;
        if (b->field_lengths[at] != spans[s].bytes || !inside(b, b->field_offsets[at], spans[s].bytes))
            wrong(c, "sample %" PRIu64 ": field %u is absent or has a wrong length", id, spans[s].field);
        else
            compare(c, id, file.path, fd, e.offset + spans[s].offset, b->data + b->field_offsets[at], spans[s].bytes);
    }
}

void check_batch(struct check *c, const rf_batch *b)
{
    for (uint32_t i = 0; i < b->n_samples; i++)
        check_sample(c, b, i);
    c->samples += b->n_samples;
}
