/* The formats and what their scans share. */
#include "dataset/formats/format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define REFERENCE(name) &rfi_format_##name,
const struct rfi_format *const rfi_formats[] = {RFI_FORMATS(REFERENCE) NULL};

enum { TICK_EVERY = 4096 };

const struct rfi_format *rfi_format_find(const char *name)
{
    for (const struct rfi_format *const *f = rfi_formats; *f; f++)
        if (!strcmp((*f)->name, name))
            return *f;
    return NULL;
}

int rfi_scan_tick(struct rfi_scan *s, size_t files_done, struct rfi_error *err)
{
    if (s->ticks++ % TICK_EVERY || !s->o->progress)
        return 0;
    if (s->o->progress(s->o->progress_ctx, files_done, rfi_sources_n(s->sources), rfi_build_samples(s->build)))
        return rfi_fail(err, ECANCELED, "%s: the scan was cancelled", s->sources->root);
    return 0;
}

int rfi_scan_file(struct rfi_scan *s, size_t i, uint32_t *ret_file, struct rfi_error *err)
{
    const struct rfi_source *f = rfi_source_at(s->sources, i);
    return rfi_build_file(s->build, rfi_source_name(s->sources, i), f->bytes, f->mtime_ns, ret_file, err);
}

int rfi_scan_open(struct rfi_scan *s, size_t i, uint32_t *ret_file, int *ret_fd, uint64_t *ret_bytes,
                  struct rfi_error *err)
{
    struct rfi_source *f = rfi_source_at(s->sources, i);
    const char *name = rfi_source_name(s->sources, i);
    struct rfi_probe p;
    struct stat st;
    int rc = rfi_source_open(s->sources, i, ret_fd, err);
    if (rc < 0)
        return rc;
    snprintf(s->path, sizeof s->path, "%s/%s", s->sources->root, name);
    if (fstat(*ret_fd, &st) < 0)
        rc = rfi_fail(err, errno, "%s: %s. Check the file", s->path, strerror(errno));
    else if ((rc = rfi_probe_fd(*ret_fd, s->path, &p, err)) == 0 && rfi_compressed_kind(&p))
        rc = rfi_fail(err, ENOTSUP, "%s: compressed (%s), so its samples cannot be read in place. Decompress it first",
                      s->path, rfi_compressed_kind(&p));
    if (rc == 0) {
        f->bytes = *ret_bytes = (uint64_t)st.st_size;
        f->mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
        rc = rfi_scan_file(s, i, ret_file, err);
    }
    if (rc < 0)
        close(*ret_fd);
    return rc;
}

int rfi_read_exact(int fd, const char *path, void *buf, size_t bytes, uint64_t offset, struct rfi_error *err)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(fd, (char *)buf + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rfi_fail(err, errno, "%s: cannot read %zu bytes at offset %llu: %s. Check the disk", path, bytes,
                            (unsigned long long)offset, strerror(errno));
        if (n == 0)
            return rfi_fail(err, EBADMSG, "%s: truncated: %zu bytes at offset %llu are not all there. Get it again",
                            path, bytes, (unsigned long long)offset);
        done += (size_t)n;
    }
    return 0;
}

int rfi_probe_fd(int fd, const char *name, struct rfi_probe *ret, struct rfi_error *err)
{
    struct stat st;
    ssize_t n;
    *ret = (struct rfi_probe){.name = name};
    do
        n = pread(fd, ret->head, sizeof ret->head, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 || fstat(fd, &st) < 0)
        return rfi_fail(err, errno, "%s: cannot be read: %s. Check the file", name, strerror(errno));
    ret->n_head = (size_t)n;
    ret->bytes = (uint64_t)st.st_size;
    return 0;
}

const char *rfi_compressed_kind(const struct rfi_probe *p)
{
    static const struct {
        const char *kind, *magic;
        size_t at, bytes;
    } kinds[] = {
        {"gzip", "\x1f\x8b\x08", 0, 3},
        {"xz",
         "\xfd"
         "7zXZ\0",
         0, 6},
        {"zstd", "\x28\xb5\x2f\xfd", 0, 4},
        {"bzip2", "1AY&SY", 4, 6},
        {"bzip2", "\x17\x72\x45\x38\x50\x90", 4, 6}, /* of nothing */
        {"lz4", "\x04\x22\x4d\x18", 0, 4},
        {"lz4", "\x02\x21\x4c\x18", 0, 4}, /* legacy frame */
        {"zip", "PK\3\4", 0, 4},
        {"zip", "PK\5\6", 0, 4}, /* empty */
        {"zip", "PK\7\x8", 0, 4}, /* spanned */
        {"7z", "7z\xbc\xaf\x27\x1c", 0, 6},
        {"rar", "Rar!\x1a\x07", 0, 6},
        {"lzip", "LZIP", 0, 4},
        {"compress", "\x1f\x9d", 0, 2},
        {"lzop", "\x89LZO\0\r\n", 0, 7},
        {"snappy", "\xff\6\0\0sNaPpY", 0, 10},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (p->n_head >= kinds[i].at + kinds[i].bytes && !memcmp(p->head + kinds[i].at, kinds[i].magic, kinds[i].bytes))
            return kinds[i].kind;
    return NULL;
}

bool rfi_is_image_name(const char *name)
{
    static const char *const ends[] = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"};
    const char *dot = strrchr(rfi_base_name(name), '.');
    for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++)
        if (!strcasecmp(dot, ends[i]))
            return true;
    return false;
}
