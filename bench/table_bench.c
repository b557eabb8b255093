/* What a table of 10 million variable samples costs: bytes a sample, the time to open its index file, and a
 * walk over it.
 *
 *     table_bench [SAMPLES] [FOLDER]
 *
 * Makes (once) one sparse data file and its index in FOLDER (default /var/tmp/ringfeed-bench), opens the index five times
 * through the page cache, prints medians. `ringfeed serve` on the index then shows shared and private memory. */
#include "base/clock.h"
#include "dataset/build.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int complain(const struct rfi_error *err)
{
    fprintf(stderr, "table_bench: %s\n", err->text);
    return 1;
}

/* Sizes of 1 to 4096 bytes, back to back in one sparse file: a table does not care what is in it. */
static int make(uint64_t samples, const char *folder, const char *index, struct rfi_error *err)
{
    struct rfi_build *b;
    struct rfi_dataset *d;
    struct stat st;
    char data[4096];
    uint64_t at = 0, x = 88172645463325252u;
    uint32_t file;
    snprintf(data, sizeof data, "%s/table.data", folder);
    int fd = open(data, O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)(samples * 4096)) < 0 || fstat(fd, &st) < 0)
        return rfi_fail(err, 5, "cannot make %s", data);
    close(fd);
    int rc = rfi_build_create("raw", folder, &b, err);
    if (rc < 0)
        return rc;
    rc = rfi_build_file(b, "table.data", (uint64_t)st.st_size,
                        (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec, &file, err);
    for (uint64_t i = 0; rc == 0 && i < samples; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint64_t bytes = 1 + x % 4096;
        rc = rfi_build_sample(b, file, at, bytes, err);
        at += bytes;
    }
    if (rc == 0 && (rc = rfi_build_finish(b, &d, err)) == 0) {
        rc = rfi_dataset_write(d, index, err);
        rfi_dataset_close(d);
    }
    rfi_build_destroy(b);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    uint64_t samples = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000, times[5], sum = 0;
    const char *folder = argc > 2 ? argv[2] : "/var/tmp/ringfeed-bench";
    struct rfi_error err = {0};
    struct rfi_dataset *d = NULL;
    rf_dataset_options o;
    char index[4096];
    size_t core = 0;
    mkdir(folder, 0700);
    snprintf(index, sizeof index, "%s/table-%" PRIu64 ".rfi", folder, samples);
    if (make(samples, folder, index, &err) < 0)
        return complain(&err);
    const char *paths[] = {index};
    rf_dataset_options_init(&o);
    o.paths = paths;
    o.n_paths = 1;
    for (int i = 0; i < 6; i++) { /* the first brings it into the page cache */
        uint64_t from = rfi_now_ns();
        if (rfi_dataset_open(&o, &d, &err) < 0)
            return complain(&err);
        if (i)
            times[i - 1] = rfi_now_ns() - from;
        if (i < 5)
            rfi_dataset_close(d);
    }
    qsort(times, 5, sizeof *times, by_value);
    rfi_dataset_core(d, &core);
    uint64_t from = rfi_now_ns();
    for (uint64_t i = 0; i < samples; i++) {
        struct rfi_extent e;
        if (rfi_dataset_extent(d, i, &e) < 0)
            return 1;
        sum += e.bytes;
    }
    double walk = (double)(rfi_now_ns() - from) / (double)(samples ? samples : 1);
    printf("{\"samples\":%" PRIu64 ",\"core_bytes_per_sample\":%.3f,\"open_ms_median\":%.1f,\"open_ms_min\":%.1f,"
           "\"open_ms_max\":%.1f,\"extent_ns\":%.1f,\"payload_bytes\":%" PRIu64 "}\n",
           samples, (double)core / (double)samples, (double)times[2] * 1e-6, (double)times[0] * 1e-6,
           (double)times[4] * 1e-6, walk, sum);
    rfi_dataset_close(d);
    return 0;
}
