/* Copies of the dataset (--mirror): looked at once, before anything is served from them. Every file must be
 * there with the size that the index says. Then its content is sampled: where the index has checksums, up to
 * 512 samples, spread evenly, must match theirs (the dataset's own file may be the wrong one); else of up to
 * 64 files the first, the last and some blocks between are compared with the dataset's own. The choice
 * depends on the table alone. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAMPLES_COMPARED = 512, SAMPLED_BYTES = 64 << 20 };
enum { FILES_COMPARED = 64, BLOCKS_COMPARED = 8, BLOCK_BYTES = 4096 };

static int check_size(const struct rfi_dataset *d, uint32_t f, const char *path, struct rfi_error *err)
{
    struct stat st, own;
    char own_path[PATH_MAX];
    if (stat(path, &st) < 0)
        return rfi_fail(err, errno,
                        "--mirror: %s: %s. A mirror has every file of the dataset, under the same relative name", path,
                        strerror(errno));
    if (!S_ISREG(st.st_mode))
        return rfi_fail(err, ENOTSUP, "--mirror: %s is not a regular file. Copy the dataset again", path);
    if (rfi_dataset_path(d, f, own_path, sizeof own_path) == 0 && stat(own_path, &own) == 0 &&
        own.st_dev == st.st_dev && own.st_ino == st.st_ino)
        return rfi_fail(err, EINVAL, "--mirror: %s is the dataset's own file. Name a folder with a copy", path);
    if ((uint64_t)st.st_size != rfi_dataset_file_bytes(d, f))
        return rfi_fail(err, ESTALE, "--mirror: %s has %llu bytes, the dataset's own file %llu. Copy it again", path,
                        (unsigned long long)st.st_size, (unsigned long long)rfi_dataset_file_bytes(d, f));
    return 0;
}

/* Bytes at an offset; negative errno, or -ENODATA when the file ends early. */
static int read_block(int fd, unsigned char *to, uint64_t bytes, uint64_t offset)
{
    for (uint64_t at = 0; at < bytes;) {
        ssize_t n = pread(fd, to + at, bytes - at, (off_t)(offset + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -ENODATA;
        at += (uint64_t)n;
    }
    return 0;
}

static int compare_block(int own, int copy, uint64_t offset, uint64_t bytes, const char *own_path,
                         const char *copy_path, struct rfi_error *err)
{
    unsigned char a[BLOCK_BYTES], b[BLOCK_BYTES];
    int rc = read_block(own, a, bytes, offset);
    if (rc < 0) { /* that is what the mirror is for */
        rfi_log(RFI_LOG_WARNING, "%s: cannot be read at offset %llu (%s), so %s is not compared there", own_path,
                (unsigned long long)offset, strerror(-rc), copy_path);
        return 0;
    }
    rc = read_block(copy, b, bytes, offset);
    if (rc < 0)
        return rfi_fail(err, -rc, "--mirror: %s: cannot be read at offset %llu: %s. Copy it again", copy_path,
                        (unsigned long long)offset, strerror(-rc));
    for (uint64_t i = 0; i < bytes; i++)
        if (a[i] != b[i])
            return rfi_fail(err, EBADMSG,
                            "--mirror: %s differs from %s at offset %llu (0x%02x, not 0x%02x). It is no copy: copy it "
                            "again",
                            copy_path, own_path, (unsigned long long)(offset + i), b[i], a[i]);
    return 0;
}

/* The k-th of the compared blocks of a file: the first, the last, and others spread evenly. */
static uint64_t block_offset(uint64_t bytes, uint32_t k)
{
    uint64_t room = bytes > BLOCK_BYTES ? bytes - BLOCK_BYTES : 0;
    return room / (BLOCKS_COMPARED - 1) * k + room % (BLOCKS_COMPARED - 1) * k / (BLOCKS_COMPARED - 1);
}

static int compare_open(const struct rfi_dataset *d, uint32_t f, int own, int copy, const char *own_path,
                        const char *copy_path, struct rfi_error *err)
{
    uint64_t bytes = rfi_dataset_file_bytes(d, f);
    int rc = 0;
    for (uint32_t k = 0; k < BLOCKS_COMPARED && rc == 0; k++)
        rc = compare_block(own, copy, block_offset(bytes, k), rfi_min(bytes, BLOCK_BYTES), own_path, copy_path, err);
    return rc;
}

static int compare_file(const struct rfi_dataset *d, uint32_t f, const char *copy_path, struct rfi_error *err)
{
    char own_path[PATH_MAX] = "?";
    const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    rfi_dataset_path(d, f, own_path, sizeof own_path);
    int own = open(own_path, flags);
    if (own < 0) {
        rfi_log(RFI_LOG_WARNING, "%s: cannot be opened (%s), so %s is not compared", own_path, strerror(errno),
                copy_path);
        return 0;
    }
    int copy = open(copy_path, flags);
    int rc = copy < 0 ? rfi_fail(err, errno, "--mirror: %s: cannot be opened: %s. Check its permissions", copy_path,
                                 strerror(errno))
                      : compare_open(d, f, own, copy, own_path, copy_path, err);
    close(own);
    if (copy >= 0)
        close(copy);
    return rc;
}

/* One sample of the mirror against its checksum in the index. */
static int verify_sample(const struct rfi_dataset *d, uint64_t i, uint32_t want, const struct rfi_extent *e,
                         const char *path, struct rfi_error *err)
{
    unsigned char *bytes = malloc(e->bytes ? e->bytes : 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc = bytes ? 0 : -ENOMEM;
    if (rc == 0)
        rc = fd < 0 ? -errno : read_block(fd, bytes, e->bytes, e->offset);
    if (rc < 0)
        rfi_fail(err, -rc, "--mirror: %s: cannot be read at offset %llu: %s. Copy it again", path,
                 (unsigned long long)e->offset, strerror(-rc));
    else if (rfi_crc32c(0, bytes, e->bytes) != want)
        rc = rfi_fail(err, EBADMSG,
                      "--mirror: %s: sample %llu at offset %llu does not match its checksum in the index. It is no "
                      "copy: copy it again",
                      path, (unsigned long long)i, (unsigned long long)e->offset);
    if (fd >= 0)
        close(fd);
    free(bytes);
    return rc;
}

static int verify_samples(const struct rfi_dataset *d, const char *folder, struct rfi_error *err)
{
    uint64_t n = rfi_dataset_samples(d), looks = rfi_min(n, SAMPLES_COMPARED), bytes = 0;
    int rc = 0;
    for (uint64_t k = 0; k < looks && rc == 0 && bytes < SAMPLED_BYTES; k++) {
        uint64_t i = n / looks * k + n % looks * k / looks;
        struct rfi_extent e;
        uint32_t want;
        char path[PATH_MAX];
        if (rfi_dataset_extent(d, i, &e) < 0 || !rfi_dataset_checksum(d, i, &want) ||
            rfi_dataset_path_below(d, e.file, folder, path, sizeof path) < 0)
            continue;
        bytes += e.bytes;
        rc = verify_sample(d, i, want, &e, path, err);
    }
    return rc;
}

static int check_mirror(const struct rfi_dataset *d, const char *folder, struct rfi_error *err)
{
    char path[PATH_MAX];
    uint32_t n = rfi_dataset_n_files(d), compared = (uint32_t)rfi_min(n, FILES_COMPARED);
    struct stat st;
    int rc = 0;
    if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode))
        return rfi_fail(err, ENOTDIR, "--mirror: %s: %s. Name a folder with a copy of the dataset", folder,
                        stat(folder, &st) < 0 ? strerror(errno) : "not a folder");
    for (uint32_t f = 0; f < n && rc == 0; f++) {
        if (rfi_dataset_path_below(d, f, folder, path, sizeof path) < 0)
            return rfi_fail(err, ENAMETOOLONG, "--mirror: %s: too long for a path below it. Mount it elsewhere",
                            folder);
        rc = check_size(d, f, path, err);
    }
    if (rc == 0 && rfi_dataset_has_checksums(d) && rfi_crc32c_available())
        return verify_samples(d, folder, err);
    for (uint32_t k = 0; k < compared && rc == 0; k++) {
        uint32_t f = (uint32_t)((uint64_t)k * n / compared);
        rfi_dataset_path_below(d, f, folder, path, sizeof path);
        rc = compare_file(d, f, path, err);
    }
    return rc;
}

int rfi_mirrors_check(const struct rfi_dataset *d, const char *const *folders, uint32_t n, struct rfi_error *err)
{
    int rc = 0;
    for (uint32_t m = 0; m < n && rc == 0; m++) {
        for (uint32_t k = 0; k < m && rc == 0; k++)
            if (!strcmp(folders[m], folders[k]))
                rc = rfi_fail(err, EINVAL, "--mirror: %s is named twice. Name each copy once", folders[m]);
        if (rc == 0)
            rc = check_mirror(d, folders[m], err);
    }
    return rc;
}
