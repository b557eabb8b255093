#include "bench/datagen.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "bench/random.h"
#include "dataset/formats/tfrecord.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 4 << 20 };

/* The first and the last bytes of a JPEG file (JFIF); what is between them is random. */
static const unsigned char jpeg_head[] = {0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, 'J',  'F',  'I',  'F',
                                          0x00, 0x01, 0x01, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00, 0x00};
static const unsigned char jpeg_tail[] = {0xff, 0xd9};

struct writer {
    const struct bench_data *data;
    unsigned char *chunk;
    uint64_t done;
    void (*progress)(void *ctx, uint64_t bytes);
    void *ctx;
    const volatile sig_atomic_t *interrupted;
};

uint64_t bench_data_files(const struct bench_data *d)
{
    return rfi_div_up(d->samples, d->shape->samples_a_file);
}

/* Samples of file f: all files but the last are full. */
static uint64_t samples_of(const struct bench_data *d, uint64_t f)
{
    return rfi_min(d->shape->samples_a_file, d->samples - f * d->shape->samples_a_file);
}

/* Of each of its samples: several in a file are of one size. */
static uint64_t sample_bytes_of(const struct bench_data *d, uint64_t f)
{
    return bench_shape_bytes(d->shape, d->scale, d->seed, f * d->shape->samples_a_file);
}

static uint64_t frame_of(const struct bench_data *d)
{
    return d->shape->layout == BENCH_TFRECORD ? RFI_TFRECORD_FRAME : 0;
}

static uint64_t bytes_of(const struct bench_data *d, uint64_t f)
{
    return samples_of(d, f) * (sample_bytes_of(d, f) + frame_of(d));
}

uint64_t bench_data_bytes(const struct bench_data *d)
{
    uint64_t bytes = 0;
    for (uint64_t f = 0; f < bench_data_files(d); f++)
        bytes += bytes_of(d, f);
    return bytes;
}

int bench_data_place(struct bench_data *d, const char *folder, struct rfi_error *err)
{
    int n = snprintf(d->folder, sizeof d->folder, "%s/%s", folder, d->shape->name);
    int k = snprintf(d->files, sizeof d->files, "%s/%s/data", folder, d->shape->name);
    if (n < 0 || k < 0 || (size_t)n + 64 >= sizeof d->folder || (size_t)k + 64 >= sizeof d->files)
        return rfi_fail(err, ENAMETOOLONG, "%.100s…: too long a path. Choose another folder", folder);
    return 0;
}

/* ---- workload.json ---- */

static void manifest_path(const struct bench_data *d, const char *end, char *buf, size_t cap)
{
    snprintf(buf, cap, "%.*s/workload.json%s", (int)strlen(d->folder), d->folder, end);
}

static int save(const struct bench_data *d, bool complete, struct rfi_error *err)
{
    char path[PATH_MAX], temporary[PATH_MAX], scale[32];
    manifest_path(d, "", path, sizeof path);
    manifest_path(d, ".part", temporary, sizeof temporary);
    snprintf(scale, sizeof scale, "%.17g", d->scale);
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "workload", json_object_new_string(d->shape->name));
    json_object_object_add(o, "scale", json_object_new_double_s(d->scale, scale));
    json_object_object_add(o, "seed", json_object_new_uint64(d->seed));
    json_object_object_add(o, "samples", json_object_new_uint64(d->samples));
    json_object_object_add(o, "complete", json_object_new_boolean(complete));
    int rc = json_object_to_file_ext(temporary, o, JSON_C_TO_STRING_PRETTY);
    json_object_put(o);
    if (rc < 0 || rename(temporary, path) < 0)
        return rfi_fail(err, errno ? errno : EIO, "%s: cannot be written: %s. Choose another folder", path,
                        strerror(errno));
    return 0;
}

static struct json_object *member(struct json_object *o, const char *key)
{
    return json_object_object_get(o, key);
}

int bench_data_find(struct bench_data *d, struct rfi_error *err)
{
    char path[PATH_MAX];
    manifest_path(d, "", path, sizeof path);
    if (access(path, F_OK) < 0)
        return 0;
    struct json_object *o = json_object_from_file(path);
    const char *name = json_object_get_string(member(o, "workload"));
    d->scale = json_object_get_double(member(o, "scale"));
    d->seed = json_object_get_uint64(member(o, "seed"));
    d->samples = json_object_get_uint64(member(o, "samples"));
    d->complete = json_object_get_boolean(member(o, "complete"));
    bool ok = name && strcmp(name, d->shape->name) == 0 && d->scale > 0 && d->scale <= 1 && d->samples > 0;
    json_object_put(o);
    return ok ? 1
              : rfi_fail(err, EBADMSG, "%s: does not describe data of %s. Choose another folder", path, d->shape->name);
}

/* ---- files ---- */

static void fill_random(unsigned char *p, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i += sizeof *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        memcpy(p + i, state, rfi_min(sizeof *state, n - i));
    }
}

static int write_all(int fd, const unsigned char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno != EINTR)
            return -errno;
        p += w > 0 ? w : 0;
        n -= w > 0 ? (size_t)w : 0;
    }
    return 0;
}

/* The ends of a JPEG file, where they lie in the chunk [at, at + n) of a file of `bytes`. */
static void dress_jpeg(unsigned char *chunk, uint64_t at, uint64_t n, uint64_t bytes)
{
    for (uint64_t i = 0; i < sizeof jpeg_head && at == 0 && i < n; i++)
        chunk[i] = jpeg_head[i];
    for (uint64_t i = 0; i < sizeof jpeg_tail && bytes >= sizeof jpeg_head + sizeof jpeg_tail; i++) {
        uint64_t place = bytes - sizeof jpeg_tail + i;
        if (place >= at && place < at + n)
            chunk[place - at] = jpeg_tail[i];
    }
}

static int put(struct writer *w, int fd, const void *data, uint64_t n)
{
    int rc = write_all(fd, data, n);
    w->done += n;
    w->progress(w->ctx, w->done);
    return rc < 0 ? rc : *w->interrupted ? -EINTR : 0;
}

static int put_head(struct writer *w, int fd, uint64_t bytes)
{
    unsigned char head[RFI_TFRECORD_HEAD];
    uint64_t length = htole64(bytes);
    memcpy(head, &length, sizeof length);
    uint32_t crc = htole32(rfi_tfrecord_mask(rfi_crc32c(0, head, sizeof length)));
    memcpy(head + sizeof length, &crc, sizeof crc);
    return put(w, fd, head, sizeof head);
}

static int put_tail(struct writer *w, int fd, uint32_t crc)
{
    uint32_t masked = htole32(rfi_tfrecord_mask(crc));
    return put(w, fd, &masked, sizeof masked);
}

static int write_sample(struct writer *w, int fd, uint64_t *state, uint64_t bytes)
{
    bool framed = w->data->shape->layout == BENCH_TFRECORD;
    uint32_t crc = 0;
    int rc = framed ? put_head(w, fd, bytes) : 0;
    for (uint64_t at = 0; at < bytes && rc == 0;) {
        uint64_t n = rfi_min(CHUNK, bytes - at);
        fill_random(w->chunk, n, state);
        if (w->data->shape->layout == BENCH_JPEG_A_FILE)
            dress_jpeg(w->chunk, at, n, bytes);
        if (framed)
            crc = rfi_crc32c(crc, w->chunk, n);
        rc = put(w, fd, w->chunk, n);
        at += n;
    }
    return framed && rc == 0 ? put_tail(w, fd, crc) : rc;
}

static int write_content(struct writer *w, int fd, uint64_t f)
{
    uint64_t state = bench_mix(bench_mix(w->data->seed + BENCH_GOLDEN) + f);
    int rc = 0;
    state = state ? state : 1; /* zero would stay zero */
    for (uint64_t i = 0; i < samples_of(w->data, f) && rc == 0; i++)
        rc = write_sample(w, fd, &state, sample_bytes_of(w->data, f));
    return rc;
}

static int write_file(struct writer *w, uint64_t f, struct rfi_error *err)
{
    char path[PATH_MAX], temporary[PATH_MAX];
    struct stat st;
    uint64_t bytes = bytes_of(w->data, f);
    static const char *const ends[] = {[BENCH_ONE_A_FILE] = "bin",
                                       [BENCH_JPEG_A_FILE] = "jpg",
                                       [BENCH_TFRECORD] = "tfrecord",
                                       [BENCH_RECORDS] = "bin"};
    const char *end = ends[w->data->shape->layout];
    int length = (int)strlen(w->data->files);
    snprintf(path, sizeof path, "%.*s/%08llu.%s", length, w->data->files, (unsigned long long)f, end);
    snprintf(temporary, sizeof temporary, "%.*s/.%08llu.part", length, w->data->files, (unsigned long long)f);
    if (stat(path, &st) == 0 && (uint64_t)st.st_size == bytes) {
        w->done += bytes;
        return 0;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int rc = fd < 0 ? -errno : write_content(w, fd, f);
    if (fd >= 0 && rc == 0 && fdatasync(fd) < 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc < 0) {
        unlink(temporary);
        return rfi_fail(err, -rc, "%s: cannot be written: %s. %s", path, strerror(-rc),
                        rc == -ENOSPC ? "Use less --bytes" : "Look at the disk");
    }
    return 0;
}

static int make_folders(const struct bench_data *d, struct rfi_error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", d->files);
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = 0;
        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            return rfi_fail(err, errno, "%s: cannot be made: %s. Choose another folder", path, strerror(errno));
        if (!slash)
            return 0;
        *slash = '/';
    }
}

int bench_data_make(struct bench_data *d, void (*progress)(void *ctx, uint64_t bytes), void *ctx,
                    const volatile sig_atomic_t *interrupted, struct rfi_error *err)
{
    struct writer w = {.data = d, .chunk = malloc(CHUNK), .progress = progress, .ctx = ctx, .interrupted = interrupted};
    int rc = w.chunk ? make_folders(d, err) : rfi_fail(err, ENOMEM, "out of memory");
    if (d->shape->layout == BENCH_TFRECORD && !rfi_crc32c_available())
        rc = rfi_fail(err, ENOTSUP, "%s: its TFRecord files hold CRC-32C, which this build is without (libisal-dev)",
                      d->shape->name);
    if (rc == 0)
        rc = save(d, false, err);
    for (uint64_t f = 0; f < bench_data_files(d) && rc == 0; f++)
        rc = write_file(&w, f, err);
    free(w.chunk);
    return rc < 0 ? rc : save(d, true, err);
}
