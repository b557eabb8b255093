#include "bench/cache.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_LOOKED_AT = 256, CHUNK = 8 << 20 };

/* File f of the dataset, open; or a negative errno with its text. */
static int open_file(const struct rfi_dataset *d, uint32_t f, struct rfi_error *err)
{
    char path[PATH_MAX];
    int rc = rfi_dataset_path(d, f, path, sizeof path);
    if (rc < 0)
        return rfi_fail(err, -rc, "file %u of the dataset: %s", f, strerror(-rc));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return fd >= 0 ? fd : rfi_fail(err, errno, "%s: cannot be opened: %s. Put it back", path, strerror(errno));
}

/* The kernel tells of files that the caller could write, and calls all pages of others cached. */
static bool may_ask(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return access(path, W_OK) == 0;
}

/* Pages of the file in the cache and in all; false: the kernel does not say. */
static bool count_pages(int fd, uint64_t bytes, uint64_t *cached, uint64_t *all)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t n = rfi_div_up(bytes, page);
    if (n == 0)
        return true;
    void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *in = malloc(n);
    bool ok = p != MAP_FAILED && in && mincore(p, bytes, in) == 0;
    for (uint64_t i = 0; ok && i < n; i++)
        *cached += in[i] & 1;
    *all += ok ? n : 0;
    free(in);
    if (p != MAP_FAILED)
        munmap(p, bytes);
    return ok;
}

static void look(const struct rfi_dataset *d, struct bench_cached *ret)
{
    uint32_t files = rfi_dataset_n_files(d), looks = (uint32_t)rfi_min(files, FILES_LOOKED_AT);
    uint64_t cached = 0, all = 0;
    ret->known = true;
    for (uint32_t i = 0; i < looks && ret->known; i++) {
        struct stat st;
        int fd = open_file(d, (uint32_t)((uint64_t)i * files / looks), NULL);
        ret->known =
            fd >= 0 && may_ask(fd) && fstat(fd, &st) == 0 && count_pages(fd, (uint64_t)st.st_size, &cached, &all);
        if (fd >= 0)
            close(fd);
    }
    ret->part = all ? (double)cached / (double)all : 0;
}

static uint64_t bytes_of(const struct rfi_dataset *d)
{
    uint64_t bytes = 0;
    for (uint32_t f = 0; f < rfi_dataset_n_files(d); f++)
        bytes += rfi_dataset_file_bytes(d, f);
    return bytes;
}

bool bench_cache_fits(const struct rfi_dataset *d)
{
    char line[128];
    unsigned long long kib = UINT64_MAX / 1024; /* not told: it is tried */
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return bytes_of(d) / 1024 < kib;
}

static int read_file(int fd, void *chunk, const volatile sig_atomic_t *interrupted, struct rfi_error *err)
{
    ssize_t n = 1;
    while (n != 0) {
        n = read(fd, chunk, CHUNK);
        if (*interrupted)
            return rfi_fail(err, EINTR, "interrupted");
        if (n < 0 && errno != EINTR)
            return rfi_fail(err, errno, "cannot read a file of the dataset: %s. Check the disk", strerror(errno));
    }
    return 0;
}

static int warm(const struct rfi_dataset *d, const volatile sig_atomic_t *interrupted, struct rfi_error *err)
{
    void *chunk = malloc(CHUNK);
    int rc = chunk ? 0 : rfi_fail(err, ENOMEM, "out of memory for reading the dataset");
    for (uint32_t f = 0; f < rfi_dataset_n_files(d) && rc == 0; f++) {
        int fd = open_file(d, f, err);
        rc = fd < 0 ? fd : read_file(fd, chunk, interrupted, err);
        if (fd >= 0)
            close(fd);
    }
    free(chunk);
    return rc;
}

static bool drop_all(void)
{
    sync(); /* dirty pages are not dropped */
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, "3\n", 2) == 2;
    if (fd >= 0)
        close(fd);
    return ok;
}

static int drop_by_file(const struct rfi_dataset *d, const volatile sig_atomic_t *interrupted, struct rfi_error *err)
{
    for (uint32_t f = 0; f < rfi_dataset_n_files(d); f++) {
        int fd = open_file(d, f, err);
        if (fd < 0)
            return fd;
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
        if (*interrupted)
            return rfi_fail(err, EINTR, "interrupted");
    }
    return 0;
}

int bench_cache_prepare(const struct rfi_dataset *d, enum bench_cache to, const volatile sig_atomic_t *interrupted,
                        struct bench_cached *ret, struct rfi_error *err)
{
    int rc = 0;
    *ret = (struct bench_cached){0};
    if (to == BENCH_CACHE_COLD) {
        ret->dropped = drop_all() ? BENCH_DROP_ALL : BENCH_DROP_BY_FILE;
        if (ret->dropped == BENCH_DROP_BY_FILE)
            rc = drop_by_file(d, interrupted, err);
    }
    look(d, ret);
    if (to == BENCH_CACHE_WARM && (!ret->known || ret->part < 1)) {
        if (!bench_cache_fits(d))
            return rfi_fail(err, ENOMEM,
                            "the dataset's files of %llu bytes do not fit into the memory that is available, so they "
                            "cannot be made warm. Use --cache cold or as-is",
                            (unsigned long long)bytes_of(d));
        rc = warm(d, interrupted, err);
        look(d, ret);
    }
    return rc;
}
