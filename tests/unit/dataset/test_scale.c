/* A million variable samples (ten million with RF_EXHAUSTIVE=1): size of the core, time to open the
 * index file, time of a look-up. The limits are the project's own, scaled to the number of samples;
 * times are asserted with room for a slow machine and printed as they are. */
#include "dataset/build.h"
#include "dataset/dataset.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 8, ROUNDS = 5 };

static char folder[64];

/* Sparse files of the right size, so that opening the index can compare sizes and times. */
static int64_t make_file(int f, uint64_t bytes)
{
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/shard-%d.tar", folder, f);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 && fstat(fd, &st) == 0 && close(fd) == 0);
    return st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
}

static struct rfi_dataset *make(uint64_t n, struct rfi_error *err)
{
    struct rfi_build *b;
    struct rfi_dataset *d;
    uint32_t file = 0;
    uint64_t per_file = n / FILES + 1, bytes = per_file * 200000;
    cr_assert_eq(rfi_build_create("tar", folder, &b, err), 0);
    for (int f = 0; f < FILES; f++) {
        char name[32];
        snprintf(name, sizeof name, "shard-%d.tar", f);
        cr_assert_eq(rfi_build_file(b, name, bytes, make_file(f, bytes), &file, err), 0);
    }
    for (uint64_t i = 0; i < n; i++)
        cr_assert_eq(
            rfi_build_sample(b, (uint32_t)(i / per_file), i % per_file * 200000 + 512, 100000 + i % 90000, err), 0);
    cr_assert_eq(rfi_build_finish(b, &d, err), 0, "%s", err->text);
    rfi_build_destroy(b);
    return d;
}

static double best_open_ms(const char *path)
{
    double best = 1e9;
    for (int r = 0; r < ROUNDS; r++) {
        rf_dataset_options o;
        rf_dataset *d;
        rf_dataset_options_init(&o);
        o.paths = &path;
        o.n_paths = 1;
        uint64_t t = rfi_now_ns();
        cr_assert_eq(rf_dataset_open(&o, &d), 0, "%s", rf_last_error());
        double ms = (double)(rfi_now_ns() - t) * 1e-6;
        best = ms < best ? ms : best;
        rf_dataset_close(d);
    }
    return best;
}

Test(scale, millions_of_variable_samples, .timeout = 300)
{
    uint64_t n = getenv("RF_EXHAUSTIVE") ? 10000000 : 1000000;
    struct rfi_error err = {0};
    struct rfi_extent e;
    char path[128], command[128];
    size_t core;
    strcpy(folder, "/tmp/rf-scale-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.rfi", folder);
    uint64_t t = rfi_now_ns();
    struct rfi_dataset *d = make(n, &err);
    double build_s = (double)(rfi_now_ns() - t) * 1e-9;
    rfi_dataset_core(d, &core);
    cr_assert_leq(core, 16 * n + 16384, "%zu bytes of core", core);
    cr_assert_eq(rfi_dataset_write(d, path, &err), 0, "%s", err.text);
    uint64_t sum = 0, at = 12345;
    t = rfi_now_ns();
    for (int k = 0; k < 1000000; k++, at = (at * 2862933555777941757u + 3037000493u) % n) {
        cr_assert_eq(rfi_dataset_extent(d, at, &e), 0);
        sum += e.bytes;
    }
    double look_ns = (double)(rfi_now_ns() - t) / 1e6;
    rfi_dataset_close(d);
    double open_ms = best_open_ms(path);
    fprintf(stderr,
            "scale: %llu samples: built in %.2f s, %.3f bytes a sample, opened in %.1f ms, look-up %.0f ns (%llu)\n",
            (unsigned long long)n, build_s, (double)core / (double)n, open_ms, look_ns, (unsigned long long)sum);
    cr_assert_lt(open_ms, 100, "opening %llu samples took %.1f ms", (unsigned long long)n, open_ms);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}
