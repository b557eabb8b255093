/* CRC32C against its published vectors and the textbook's table, and an image with checksums against files that
 * are written here. */
#include "base/crc32c.h"
#include "dataset/build.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t slow_crc(const unsigned char *p, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void need_library(void)
{
    if (!rfi_crc32c_available())
        cr_skip_test("built without ISA-L: no CRC32C");
}

Test(checksums, published_vectors)
{
    need_library();
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32]; /* RFC 3720, B.4 */
    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    cr_expect_eq(rfi_crc32c(0, "123456789", 9), 0xe3069283u);
    cr_expect_eq(rfi_crc32c(0, zeros, 32), 0x8a9136aau);
    cr_expect_eq(rfi_crc32c(0, ones, 32), 0x62a8ab43u);
    cr_expect_eq(rfi_crc32c(0, up, 32), 0x46dd794eu);
    cr_expect_eq(rfi_crc32c(0, down, 32), 0x113fdb5cu);
    cr_expect_eq(rfi_crc32c(0, "", 0), 0);
}

Test(checksums, any_length_in_any_pieces, .timeout = 30)
{
    need_library();
    unsigned char data[5000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 11);
    for (size_t n = 0; n < sizeof data; n += 1 + n / 7)
        for (size_t at = 0; at < 9; at++) {
            size_t cut = n / 3;
            uint32_t want = slow_crc(data + at, n - (n > 9 ? 9 : n));
            size_t bytes = n - (n > 9 ? 9 : n);
            cut = cut < bytes ? cut : bytes;
            cr_assert_eq(rfi_crc32c(0, data + at, bytes), want);
            cr_assert_eq(rfi_crc32c(rfi_crc32c(0, data + at, cut), data + at + cut, bytes - cut), want);
        }
}

/* Samples of all sizes, overlapping, out of order, larger than the window that they are read through. */
Test(checksums, of_every_sample, .timeout = 60)
{
    need_library();
    enum { FILE_BYTES = 9 << 20, SAMPLES = 300 };
    char path[64];
    snprintf(path, sizeof path, "/tmp/rf-sums-%d", getpid());
    unsigned char *data = malloc(FILE_BYTES);
    cr_assert_not_null(data);
    for (size_t i = 0; i < FILE_BYTES; i++)
        data[i] = (unsigned char)(i * 2246822519u >> 9);
    FILE *f = fopen(path, "w");
    cr_assert(f && fwrite(data, 1, FILE_BYTES, f) == FILE_BYTES && fclose(f) == 0);
    struct rfi_error err = {0};
    struct rfi_build *b;
    struct rfi_dataset *d, *with;
    uint32_t file;
    uint64_t offsets[SAMPLES], bytes[SAMPLES];
    cr_assert_eq(rfi_build_create("raw", "/tmp", &b, &err), 0);
    cr_assert_eq(rfi_build_file(b, path + 5, FILE_BYTES, 0, &file, &err), 0);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        offsets[i] = i * 2654435761u % (FILE_BYTES / 3);
        bytes[i] = i % 50 == 0 ? 5 << 20 : i * 40503 % 70000 * (i % 9 != 0);
        cr_assert_eq(rfi_build_sample(b, file, offsets[i], bytes[i], &err), 0);
        char key[16];
        cr_assert_eq(rfi_build_key(b, key, (size_t)snprintf(key, sizeof key, "k%llu", (unsigned long long)i), &err), 0);
    }
    cr_assert_eq(rfi_build_finish(b, &d, &err), 0, "%s", err.text);
    rfi_build_destroy(b);
    uint32_t crc;
    cr_assert(!rfi_dataset_has_checksums(d) && !rfi_dataset_checksum(d, 0, &crc));
    for (int again = 0; again < 2; again++) { /* of an image that has them already, too */
        cr_assert_eq(rfi_dataset_with_checksums(d, NULL, NULL, &with, &err), 0, "%s", err.text);
        rfi_dataset_close(d);
        d = with;
        for (uint64_t i = 0; i < SAMPLES; i++) {
            size_t n;
            char key[16];
            cr_assert(rfi_dataset_checksum(d, i, &crc));
            if (i < 60 || i % 50 == 0)
                cr_assert_eq(crc, slow_crc(data + offsets[i], bytes[i]), "sample %llu", (unsigned long long)i);
            snprintf(key, sizeof key, "k%llu", (unsigned long long)i);
            cr_assert_str_eq(rfi_dataset_key(d, i, &n), key);
        }
    }
    cr_assert_eq(truncate(path, FILE_BYTES / 2), 0);
    cr_assert_eq(rfi_dataset_with_checksums(d, NULL, NULL, &with, &err), -ESTALE);
    cr_assert(strstr(err.text, path), "%s", err.text);
    unlink(path);
    cr_assert_eq(rfi_dataset_with_checksums(d, NULL, NULL, &with, &err), -ENOENT);
    rfi_dataset_close(d);
    free(data);
}
