/* The C interface to samples that cannot be read: checksums, mirrors, skip and replace. */
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEST(name) Test(faults, name, .timeout = 60)

enum { N = 60, BATCH = 6 };

/* A world that is served from an index with checksums, in which samples 7, 8 and 31 have a wrong byte. */
struct spoilt {
    struct world w;
    char index[128], mirror[96], copy[128];
    const char *path, *mirrors[1];
    rf_dataset_options d;
};

static void copy_file(const char *from, const char *to)
{
    char data[4096];
    FILE *a = fopen(from, "r"), *b = fopen(to, "w");
    cr_assert(a && b);
    for (size_t n; (n = fread(data, 1, sizeof data, a)) > 0;)
        cr_assert_eq(fwrite(data, 1, n, b), n);
    fclose(a);
    cr_assert_eq(fclose(b), 0);
}

static void flip(const char *path, long at)
{
    struct stat st;
    unsigned char byte;
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    cr_assert_eq(futimens(fd, times), 0);
    close(fd);
}

static void spoilt_open(struct spoilt *s)
{
    rf_dataset *d;
    rf_dataset_info info;
    world_open(&s->w, N);
    cr_assert_eq(rf_dataset_open(&s->w.d, &d), 0, "%s", rf_last_error());
    int rc = rf_dataset_add_checksums(d, NULL, NULL);
    if (rc == -ENOTSUP) {
        rf_dataset_close(d);
        world_close(&s->w);
        cr_skip_test("built without ISA-L: no CRC32C");
    }
    cr_assert_eq(rc, 0, "%s", rf_dataset_error(d));
    rf_dataset_get_info(d, &info);
    cr_assert(info.checksums);
    snprintf(s->index, sizeof s->index, "%s/x.rfi", s->w.directory);
    snprintf(s->mirror, sizeof s->mirror, "%s/m", s->w.directory);
    snprintf(s->copy, sizeof s->copy, "%s/m/records.bin", s->w.directory);
    cr_assert_eq(rf_dataset_write_index(d, s->index), 0, "%s", rf_dataset_error(d));
    rf_dataset_close(d);
    cr_assert_eq(mkdir(s->mirror, 0700), 0);
    copy_file(s->w.file, s->copy);
    flip(s->w.file, 7 * WORLD_RECORD);
    flip(s->w.file, 9 * WORLD_RECORD - 1);
    flip(s->w.file, 31 * WORLD_RECORD + 100);
    s->path = s->index;
    s->mirrors[0] = s->mirror;
    rf_dataset_options_init(&s->d);
    s->d.paths = &s->path;
    s->d.n_paths = 1;
    s->w.s.dataset = &s->d;
    s->w.o.batch = BATCH;
}

static void spoilt_close(struct spoilt *s)
{
    unlink(s->index);
    unlink(s->copy);
    rmdir(s->mirror);
    world_close(&s->w);
}

TEST(a_mirror_makes_them_good)
{
    struct spoilt s;
    spoilt_open(&s);
    s.w.s.mirrors = s.mirrors;
    s.w.s.n_mirrors = 1;
    s.w.s.hedge_ms = 1000;
    world_start(&s.w);
    rf_trainer *t = world_attach(&s.w, 0);
    cr_expect_eq(world_rest(&s.w, t), N);
    rf_detach(t);
    spoilt_close(&s);
}

TEST(skip_leaves_them_out_and_says_how_many)
{
    struct spoilt s;
    rf_batch b;
    spoilt_open(&s);
    s.w.s.on_error = RF_ON_ERROR_SKIP;
    world_start(&s.w);
    rf_trainer *t = world_attach(&s.w, 0);
    for (uint64_t k = 0; k < N / BATCH; k++) {
        world_next(&s.w, t, &b); /* dense, with the bytes of its ids */
        cr_expect_eq(b.skipped, k == 1 ? 2 : k == 5 ? 1 : 0);
        cr_expect_eq(b.n_samples + b.skipped, BATCH);
        for (uint32_t i = 0; i < b.n_samples; i++)
            cr_expect(b.ids[i] / BATCH == k && b.ids[i] != 7 && b.ids[i] != 8 && b.ids[i] != 31 && !b.flags[i]);
        cr_assert_eq(rf_release(t, &b), 0);
    }
    cr_expect_eq(rf_next(t, WORLD_WAIT_MS, &b), RF_END);
    rf_detach(t);
    spoilt_close(&s);
}

TEST(replace_puts_the_next_one_there_and_stat_lists_it)
{
    struct spoilt s;
    rf_batch b;
    rf_stat stat;
    spoilt_open(&s);
    s.w.s.on_error = RF_ON_ERROR_REPLACE;
    world_start(&s.w);
    rf_trainer *t = world_attach(&s.w, 0);
    for (uint64_t k = 0; k < N / BATCH; k++) {
        world_next(&s.w, t, &b);
        cr_expect(b.n_samples == BATCH && b.skipped == 0);
        for (uint32_t i = 0; i < BATCH; i++) {
            uint64_t own = k * BATCH + i;
            bool lost = own == 7 || own == 8 || own == 31;
            cr_expect_eq(b.ids[i], own == 7 || own == 8 ? 9 : own == 31 ? 32 : own);
            cr_expect_eq(b.flags[i], lost ? RF_FLAG_SUBSTITUTED : 0);
        }
        if (k + 1 == N / BATCH)
            break;
        cr_assert_eq(rf_release(t, &b), 0);
    }
    cr_assert_eq(rf_stat_read(s.w.name, &stat), 0, "%s", rf_last_error());
    cr_expect(stat.substituted == 3 && stat.skipped == 0 && stat.errors == 0 &&
              stat.wrong_copies == 4); /* 8 was tried for 7 */
    cr_assert_eq(stat.n_faults, 3);
    cr_expect(stat.faults[0].sample == 7 && stat.faults[1].sample == 8 && stat.faults[2].sample == 31);
    cr_expect(stat.faults[2].batch == 5 && stat.faults[2].slot == 1 && stat.faults[2].substitute == 32);
    cr_expect(stat.faults[0].error == EILSEQ && strstr(stat.faults[0].path, "records.bin"));
    rf_stat_free(&stat);
    rf_detach(t);
    spoilt_close(&s);
}

TEST(raise_tells_the_sample_and_goes_on)
{
    struct spoilt s;
    rf_batch b;
    spoilt_open(&s);
    world_start(&s.w);
    rf_trainer *t = world_attach(&s.w, 0);
    for (uint64_t k = 0; k < N / BATCH; k++) {
        if (k != 1 && k != 5) {
            world_next(&s.w, t, &b);
            cr_assert_eq(rf_release(t, &b), 0);
            continue;
        }
        cr_expect_eq(rf_next(t, WORLD_WAIT_MS, &b), -EIO);
        cr_expect(strstr(rf_trainer_error(t), "checksum") &&
                      strstr(rf_trainer_error(t), k == 1 ? "sample 7," : "sample 31,"),
                  "%s", rf_trainer_error(t));
    }
    rf_detach(t);
    spoilt_close(&s);
}

TEST(options_that_cannot_be_are_refused)
{
    struct world w;
    const char *none[] = {NULL};
    world_open(&w, 10);
    w.s.on_error = (rf_on_error)7;
    cr_expect_eq(rf_server_validate(&w.s), -EINVAL);
    w.s.on_error = RF_ON_ERROR_SKIP;
    cr_expect_eq(rf_server_validate(&w.s), 0);
    w.s.n_mirrors = 1;
    cr_expect_eq(rf_server_validate(&w.s), -EINVAL);
    w.s.mirrors = none;
    cr_expect_eq(rf_server_validate(&w.s), -EINVAL);
    none[0] = "/does/not/exist";
    cr_expect_eq(rf_server_validate(&w.s), 0);
    rf_server *server = NULL;
    cr_expect_lt(rf_server_start(&w.s, 5000, &server), 0);
    cr_expect(strstr(rf_last_error(), "/does/not/exist"), "%s", rf_last_error());
    world_close(&w);
}
