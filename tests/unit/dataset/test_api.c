/* rf_dataset_*: what a C program sees. Files are written here and read back by plain means. */
#include <ringfeed/ringfeed.h>

#include "dataset/dataset.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[128];

static void make_folder(void)
{
    strcpy(folder, "/tmp/rf-api-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/data", folder);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(api, .init = make_folder, .fini = remove_folder, .timeout = 30);

static void write_file(const char *name, const void *data, size_t bytes)
{
    int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    cr_assert(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes && close(fd) == 0);
}

static int open_path(const char *p, uint64_t record_bytes, rf_dataset **ret)
{
    rf_dataset_options o;
    rf_dataset_options_init(&o);
    o.paths = &p;
    o.n_paths = 1;
    o.record_bytes = record_bytes;
    return rf_dataset_open(&o, ret);
}

/* A ustar header; enough for tests. */
static void put_header(char *b, const char *name, unsigned long bytes)
{
    unsigned sum = 0;
    memset(b, 0, 512);
    snprintf(b, 100, "%s", name);
    memcpy(b + 100, "0000644", 8);
    snprintf(b + 124, 12, "%011lo", bytes);
    memcpy(b + 148, "        ", 8);
    b[156] = '0';
    memcpy(b + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)b[i];
    snprintf(b + 148, 8, "%06o", sum);
}

static void write_webdataset(void)
{
    static char b[512 * 9];
    memset(b, 0, sizeof b);
    put_header(b, "x/1.jpg", 5);
    memcpy(b + 512, "image", 5);
    put_header(b + 1024, "x/1.cls", 2);
    memcpy(b + 1536, "12", 2);
    put_header(b + 2048, "x/2.txt", 4);
    memcpy(b + 2560, "text", 4);
    write_file(path, b, sizeof b);
}

Test(api, samples_fields_and_reading)
{
    rf_dataset *d;
    rf_sample s;
    rf_field f[4];
    char buf[16];
    size_t n;
    write_webdataset();
    cr_assert_eq(open_path(path, 0, &d), 0, "%s", rf_last_error());
    cr_assert_eq(rf_dataset_sample(d, 0, &s), 0);
    cr_assert(s.offset == 512 && s.bytes == 1026 && s.payload_bytes == 7 && s.n_fields == 2);
    cr_assert(s.has_label && s.label == 12);
    cr_assert_str_eq(s.key, "x/1");
    cr_assert_str_eq(s.file, path);
    cr_assert_eq(rf_dataset_sample_fields(d, 0, f, 4), 2);
    cr_assert_str_eq(f[1].name, "cls");
    cr_assert(f[0].offset == 0 && f[0].bytes == 5 && f[1].offset == 1024 && f[1].bytes == 2);
    cr_assert_eq(rf_dataset_sample_fields(d, 0, f, 0), 2, "the count, whatever fits");
    cr_assert_eq(rf_dataset_read(d, 0, NULL, buf, sizeof buf, &n), 0);
    cr_assert(n == 7 && !memcmp(buf, "image12", 7));
    cr_assert_eq(rf_dataset_read(d, 0, "cls", buf, 2, &n), 0);
    cr_assert(n == 2 && !memcmp(buf, "12", 2));
    cr_assert_eq(rf_dataset_read(d, 1, NULL, buf, sizeof buf, &n), 0);
    cr_assert(n == 4 && !memcmp(buf, "text", 4));
    cr_assert_eq(rf_dataset_sample(d, 1, &s), 0);
    cr_assert(!s.has_label && s.n_fields == 1);
    rf_dataset_close(d);
}

Test(api, errors_have_codes_and_texts)
{
    rf_dataset *d;
    rf_sample s;
    char buf[16];
    size_t n;
    write_webdataset();
    cr_assert_eq(open_path(path, 0, &d), 0);
    cr_assert_eq(rf_dataset_sample(d, 2, &s), -ERANGE);
    cr_assert(strstr(rf_dataset_error(d), "2 samples"));
    cr_assert_eq(rf_dataset_read(d, UINT64_MAX, NULL, buf, sizeof buf, &n), -ERANGE);
    cr_assert_eq(rf_dataset_read(d, 0, NULL, buf, 6, &n), -ENOSPC);
    cr_assert_eq(n, 7);
    cr_assert_eq(rf_dataset_read(d, 1, "jpg", buf, sizeof buf, &n), -ENOENT);
    cr_assert(strstr(rf_dataset_error(d), "jpg"));
    cr_assert_null(rf_dataset_field_name(d, 3));
    cr_assert_eq(truncate(path, 520), 0);
    cr_assert_eq(rf_dataset_read(d, 1, NULL, buf, sizeof buf, &n), -ESTALE);
    cr_assert(strstr(rf_dataset_error(d), path));
    rf_dataset_close(d);
    cr_assert_eq(open_path("/nowhere/at/all", 0, &d), -ENOENT);
    cr_assert(strstr(rf_last_error(), "/nowhere/at/all"));
    write_file(path, "\x1f\x8b\x08 and more", 12);
    cr_assert_eq(open_path(path, 0, &d), -ENOTSUP);
    write_file(path, "what", 4);
    cr_assert_eq(open_path(path, 0, &d), -EINVAL);
    cr_assert_eq(open_path(path, 3, &d), -EINVAL);
}

Test(api, options_are_checked)
{
    rf_dataset_options o = {0};
    rf_dataset *d;
    cr_assert_eq(rf_dataset_open(NULL, &d), -EINVAL);
    cr_assert_eq(rf_dataset_open(&o, &d), -EINVAL, "size 0");
    rf_dataset_options_init(&o);
    cr_assert_eq(rf_dataset_open(&o, &d), -EINVAL, "no path");
    o.n_paths = 1;
    cr_assert_eq(rf_dataset_open(&o, &d), -EINVAL, "paths NULL");
    o.size++;
    cr_assert_eq(rf_dataset_open(&o, &d), -EINVAL, "a larger struct than ours");
    rf_dataset_options_init(&o);
    const char *p = "";
    o.paths = &p;
    o.n_paths = 1;
    cr_assert_eq(rf_dataset_open(&o, &d), -EINVAL, "empty path");
    p = "/tmp";
    o.reserved[3] = 1;
    cr_assert_eq(rf_dataset_open(&o, &d), -EINVAL, "reserved");
}

static int stop(void *ctx, uint64_t files_done, uint64_t files, uint64_t samples)
{
    (void)files_done, (void)files, (void)samples;
    return ++*(int *)ctx >= 2;
}

Test(api, progress_can_cancel)
{
    rf_dataset_options o;
    rf_dataset *d;
    int calls = 0;
    const char *p = path;
    write_webdataset();
    rf_dataset_options_init(&o);
    o.paths = &p;
    o.n_paths = 1;
    o.progress = stop;
    o.progress_ctx = &calls;
    cr_assert_eq(rf_dataset_open(&o, &d), -ECANCELED);
    cr_assert_eq(calls, 2);
}

Test(api, path_into_a_buffer)
{
    rf_dataset *d;
    struct rfi_file f;
    char buf[128];
    write_webdataset();
    cr_assert_eq(open_path(path, 0, &d), 0);
    rfi_dataset_file(rfi_dataset_of(d), 0, &f);
    cr_assert_str_eq(f.path, path);
    cr_assert_eq(f.bytes, 512 * 9);
    cr_assert_eq(rfi_dataset_path(rfi_dataset_of(d), 0, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, path);
    cr_assert_eq(rfi_dataset_path(rfi_dataset_of(d), 0, buf, strlen(path)), -ENAMETOOLONG);
    cr_assert_eq(rfi_dataset_check_files(rfi_dataset_of(d), NULL), 0);
    rf_dataset_close(d);
}
