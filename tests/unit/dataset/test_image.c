/* The image against a plain table, and against every kind of damage. */
#include "made.h"

#include "dataset/handle.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t rng_state = 88172645463325252u;

static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

/* A copy of the whole image (or only its core) that ends where its mapping ends: reading past it is a
 * fault even without ASan. */
struct copy {
    unsigned char *map, *image;
    size_t map_bytes, bytes;
};

static struct copy copy_of(const void *image, size_t bytes)
{
    size_t page = 4096, whole = (bytes + page - 1) / page * page;
    struct copy c = {.map_bytes = whole + page, .bytes = bytes};
    c.map = mmap(NULL, c.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(c.map != MAP_FAILED);
    cr_assert_eq(mprotect(c.map + whole, page, PROT_NONE), 0);
    c.image = c.map + (whole - bytes) / 8 * 8; /* at most 7 bytes of slack: images are 8-aligned */
    memcpy(c.image, image, bytes);
    return c;
}

static void drop(struct copy *c)
{
    munmap(c->map, c->map_bytes);
}

static const int kinds[] = {0,
                            MADE_LABELS,
                            MADE_LABELS | MADE_UNLABELED,
                            MADE_KEYS,
                            MADE_FIELDS,
                            MADE_FIELDS | MADE_LABELS | MADE_UNLABELED | MADE_KEYS,
                            MADE_RUNS,
                            MADE_RUNS | MADE_LABELS | MADE_KEYS};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

Test(image, says_what_was_built, .timeout = 60)
{
    static const uint64_t counts[] = {0, 1, 2, 99, 100, 101, 1000};
    for (int k = 0; k < N_KINDS; k++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            struct made m = made_dataset(counts[c], kinds[k], -3, 9, 1000u * (unsigned)k + c);
            cr_assert_eq(made_differences(&m, m.d), 0, "kind %d, %llu samples", k, (unsigned long long)counts[c]);
            made_free(&m);
        }
}

Test(image, core_alone_has_all_but_keys, .timeout = 60)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/rf-core-%d.rfi", getpid());
    for (int k = 0; k < N_KINDS; k++) {
        struct made m = made_dataset(500, kinds[k], 0, 300, 7);
        size_t bytes;
        const void *core = rfi_dataset_core(m.d, &bytes);
        struct copy c = copy_of(core, bytes);
        struct rfi_dataset *d;
        struct rfi_error err = {0};
        cr_assert_eq(rfi_dataset_from_image(c.image, bytes, &d, &err), 0, "%s", err.text);
        cr_assert_not(rfi_dataset_has_keys(d));
        cr_assert_eq(made_differences(&m, d), 0);
        cr_assert_eq(rfi_dataset_write(d, path, &err), kinds[k] & MADE_KEYS ? -EINVAL : 0);
        rfi_dataset_close(d);
        drop(&c);
        made_free(&m);
    }
    unlink(path);
}

Test(image, sizes_are_as_promised)
{
    struct {
        int what;
        uint64_t span, labels, fields;
    } cases[] = {{0, 0, 0, 0},
                 {MADE_LABELS, 254, 1, 0},
                 {MADE_LABELS, 255, 1, 0},
                 {MADE_LABELS, 256, 2, 0},
                 {MADE_LABELS | MADE_UNLABELED, 254, 1, 0},
                 {MADE_LABELS | MADE_UNLABELED, 255, 2, 0},
                 {MADE_LABELS, 65535, 2, 0},
                 {MADE_LABELS, 65536, 4, 0},
                 {MADE_LABELS, UINT32_MAX, 4, 0},
                 {MADE_LABELS, (uint64_t)UINT32_MAX + 1, 8, 0},
                 {MADE_FIELDS, 0, 0, 8 * (6 - 1) + 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made small = made_dataset(1000, cases[i].what, -100, cases[i].span, 3);
        struct made large = made_dataset(21000, cases[i].what, -100, cases[i].span, 3);
        size_t a, b;
        rfi_dataset_core(small.d, &a);
        rfi_dataset_core(large.d, &b);
        uint64_t each = 16 + cases[i].labels + cases[i].fields;
        cr_assert_leq(b - a, 20000 * each + 1024, "case %zu: %zu bytes for 20,000 samples", i, b - a);
        cr_assert_geq(b - a, 20000 * each - 1024, "case %zu: %zu bytes for 20,000 samples", i, b - a);
        cr_assert_eq(made_differences(&large, large.d), 0, "case %zu", i);
        made_free(&small);
        made_free(&large);
    }
}

Test(image, labels_of_the_whole_range)
{
    struct made m = made_dataset(1000, MADE_LABELS, INT64_MIN, UINT64_MAX, 5);
    cr_assert_eq(made_differences(&m, m.d), 0);
    made_free(&m);
}

Test(image, fixed_records_need_no_table)
{
    struct rfi_build *b;
    struct rfi_dataset *d;
    struct rfi_error err = {0};
    struct rfi_extent e;
    size_t bytes;
    uint32_t file;
    const uint64_t n = UINT64_C(1) << 40;
    cr_assert_eq(rfi_build_create("raw", "/d", &b, &err), 0);
    cr_assert_eq(rfi_build_file(b, "x", 16 + n * 128, 0, &file, &err), 0);
    cr_assert_eq(rfi_build_run(b, file, 16, 128, 128, n, &err), 0);
    cr_assert_eq(rfi_build_finish(b, &d, &err), 0, "%s", err.text);
    rfi_build_destroy(b);
    rfi_dataset_core(d, &bytes);
    cr_assert_lt(bytes, 16384);
    cr_assert_eq(rfi_dataset_samples(d), n);
    cr_assert_eq(rfi_dataset_fixed_bytes(d), 128);
    for (uint64_t i = 0; i < n; i += n / 7) {
        cr_assert_eq(rfi_dataset_extent(d, i, &e), 0);
        cr_assert(e.offset == 16 + i * 128 && e.bytes == 128 && e.file == 0);
    }
    rfi_dataset_close(d);
}

Test(image, unequal_runs_become_a_table)
{
    struct rfi_build *b;
    struct rfi_dataset *d;
    struct rfi_error err = {0};
    struct rfi_extent e;
    uint32_t file;
    cr_assert_eq(rfi_build_create("npy", "/d", &b, &err), 0);
    cr_assert_eq(rfi_build_file(b, "x", 1000, 0, &file, &err), 0);
    cr_assert_eq(rfi_build_run(b, file, 10, 20, 20, 5, &err), 0);
    cr_assert_eq(rfi_build_run(b, file, 200, 30, 30, 4, &err), 0);
    cr_assert_eq(rfi_build_run(b, file, 500, 20, 20, 2, &err), 0);
    cr_assert_eq(rfi_build_finish(b, &d, &err), 0);
    rfi_build_destroy(b);
    static const uint64_t offsets[] = {10, 30, 50, 70, 90, 200, 230, 260, 290, 500, 520};
    cr_assert_eq(rfi_dataset_fixed_bytes(d), 0);
    cr_assert_eq(rfi_dataset_samples(d), 11);
    for (uint64_t i = 0; i < 11; i++) {
        cr_assert_eq(rfi_dataset_extent(d, i, &e), 0);
        cr_assert(e.offset == offsets[i] && e.bytes == (i >= 5 && i < 9 ? 30u : 20u));
    }
    rfi_dataset_close(d);
}

Test(image, builder_refuses_what_cannot_be)
{
    struct rfi_build *b;
    struct rfi_dataset *d;
    struct rfi_error err = {0};
    uint32_t file;
    struct rfi_part parts[65];
    cr_assert_eq(rfi_build_create("x", "/d", &b, &err), 0);
    cr_assert_eq(rfi_build_file(b, "x", 100, 0, &file, &err), 0);
    cr_assert_eq(rfi_build_sample(b, file, 90, 11, &err), -EINVAL);
    cr_assert_eq(rfi_build_sample(b, file, UINT64_MAX, 2, &err), -EINVAL);
    cr_assert_eq(rfi_build_run(b, file, 0, 10, 10, 11, &err), -EINVAL);
    cr_assert_eq(rfi_build_run(b, file, 0, 0, 0, UINT64_C(1) << 30, &err), -EINVAL);
    cr_assert_eq(rfi_build_run(b, file, 0, 1, 1, UINT64_MAX, &err), -EINVAL);
    for (uint32_t k = 0; k < 65; k++)
        parts[k] = (struct rfi_part){"f", k, 1};
    cr_assert_eq(rfi_build_parts(b, file, parts, 65, &err), -EINVAL);
    parts[1].offset = 0;
    cr_assert_eq(rfi_build_parts(b, file, parts, 2, &err), -EINVAL, "overlapping fields");
    cr_assert_eq(rfi_build_sample(b, file, 0, 1, &err), 0);
    cr_assert_eq(rfi_build_sample(b, file, 1, 1, &err), 0);
    cr_assert_eq(rfi_build_label(b, true, 1, &err), 0);
    cr_assert_eq(rfi_build_finish(b, &d, &err), -EINVAL, "one label for two samples");
    rfi_build_destroy(b);
}

/* ---- damage ---- */

static int open_copy(const struct copy *c, size_t bytes)
{
    struct rfi_dataset *d;
    struct rfi_error err = {0};
    int rc = rfi_dataset_from_image(c->image, bytes, &d, &err);
    if (rc < 0) {
        cr_assert(strchr(err.text, ':') && strlen(err.text) > 10, "no clear text: \"%s\"", err.text);
        return rc;
    }
    made_touch(d);
    rfi_dataset_close(d);
    return 0;
}

Test(image, every_cut_is_refused, .timeout = 120)
{
    struct made m = made_dataset(200, MADE_FIELDS | MADE_LABELS | MADE_UNLABELED | MADE_KEYS, 0, 5, 11);
    for (size_t n = 0; n < m.d->h.core_bytes; n += n < 4200 ? 1 : 97) {
        struct copy c = copy_of(m.d->image, n);
        cr_assert_eq(open_copy(&c, n), -EBADMSG, "cut at %zu", n);
        drop(&c);
    }
    made_free(&m);
}

Test(image, every_flipped_byte_is_found, .timeout = 120)
{
    struct made m = made_dataset(200, MADE_FIELDS | MADE_LABELS | MADE_UNLABELED | MADE_KEYS, 0, 5, 11);
    struct copy c = copy_of(m.d->image, m.d->h.image_bytes);
    for (size_t at = 0; at < sizeof(struct rfi_image_header); at++) {
        c.image[at] ^= (unsigned char)(1 + rnd() % 255);
        cr_assert_eq(open_copy(&c, c.bytes), -EBADMSG, "header byte %zu", at);
        c.image[at] = m.d->image[at];
    }
    for (int s = 0; s < RFI_SEC_CORE_END; s++)
        for (int k = 0; k < 40 && m.d->h.sections[s].bytes; k++) {
            size_t at = m.d->h.sections[s].offset + rnd() % m.d->h.sections[s].bytes;
            c.image[at] ^= (unsigned char)(1u << rnd() % 8);
            cr_assert_eq(open_copy(&c, c.bytes), -EBADMSG, "section %d, byte %zu", s, at);
            c.image[at] = m.d->image[at];
        }
    cr_assert_eq(open_copy(&c, c.bytes), 0);
    drop(&c);
    made_free(&m);
}

Test(image, damaged_keys_are_found_at_first_use)
{
    struct made m = made_dataset(200, MADE_KEYS, 0, 5, 11);
    for (int s = RFI_SEC_KEY_OFFSETS; s <= RFI_SEC_KEYS; s++) {
        struct copy c = copy_of(m.d->image, m.d->h.image_bytes);
        struct rfi_dataset *d;
        size_t n;
        c.image[m.d->h.sections[s].offset + 17] ^= 4;
        cr_assert_eq(rfi_dataset_from_image(c.image, c.bytes, &d, NULL), 0);
        cr_assert_not(rfi_dataset_keys_damaged(d));
        cr_assert_null(rfi_dataset_key(d, 0, &n));
        cr_assert(rfi_dataset_keys_damaged(d));
        rfi_dataset_close(d);
        drop(&c);
    }
    made_free(&m);
}

/* Makes all checksums right again, as a hostile writer would. */
static void reseal(const struct copy *c)
{
    struct rfi_image_header h;
    memcpy(&h, c->image, sizeof h);
    for (int s = 0; s < RFI_N_SECTIONS; s++) {
        struct rfi_image_section *sec = &h.sections[s];
        if (sec->offset <= c->bytes && sec->bytes <= c->bytes - sec->offset)
            sec->hash = rfi_image_hash(c->image + sec->offset, sec->bytes);
    }
    h.hash = rfi_image_header_hash(&h);
    memcpy(c->image, &h, sizeof h);
}

static void spoil(const struct copy *c)
{
    static const uint64_t nasty[] = {0,     1,     63,         64,        255,        4096,
                                     65535, 65536, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_C(1) << 48};
    uint64_t v = nasty[rnd() % (sizeof nasty / sizeof *nasty)];
    size_t width = rnd() % 2 ? 8 : 4;
    size_t room = rnd() % 2 ? sizeof(struct rfi_image_header) : c->bytes;
    size_t at = rnd() % (room - width) / 4 * 4;
    if (at < 16 && rnd() % 8) /* magic, byte order and version: seldom */
        at = 16 + rnd() % 500 / 4 * 4;
    if (rnd() % 3 == 0) {
        memcpy(&v, c->image + at, width);
        v += rnd() % 3 - 1;
    }
    memcpy(c->image + at, &v, width);
}

Test(image, hostile_images_with_right_checksums_do_no_harm, .timeout = 240)
{
    int rounds = getenv("RF_EXHAUSTIVE") ? 400000 : 20000, opened = 0, refused = 0;
    for (int k = 0; k < N_KINDS; k++) {
        struct made m = made_dataset(150, kinds[k], 0, 5, 11);
        struct copy c = copy_of(m.d->image, m.d->h.image_bytes);
        for (int r = 0; r < rounds / N_KINDS; r++) {
            memcpy(c.image, m.d->image, c.bytes);
            for (uint64_t n = 1 + rnd() % 3; n; n--)
                spoil(&c);
            reseal(&c);
            if (open_copy(&c, c.bytes) < 0)
                refused++;
            else
                opened++;
        }
        drop(&c);
        made_free(&m);
    }
    cr_assert(opened > 100 && refused > 100, "the damage is too weak or too strong: %d opened, %d refused", opened,
              refused);
}

/* ---- index files ---- */

Test(index_file, same_image_after_write_and_open, .timeout = 60)
{
    char folder[] = "/tmp/rf-index-XXXXXX", path[64], data[64];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.rfi", folder);
    snprintf(data, sizeof data, "%s/data", folder);
    int fd = open(data, O_CREAT | O_WRONLY, 0600);
    cr_assert(fd >= 0 && write(fd, "0123456789", 10) == 10 && close(fd) == 0);
    const char *paths[] = {data};
    rf_dataset_options o;
    rf_dataset *d, *again;
    rf_dataset_info a, b;
    rf_dataset_options_init(&o);
    o.paths = paths;
    o.n_paths = 1;
    o.record_bytes = 5;
    cr_assert_eq(rf_dataset_open(&o, &d), 0, "%s", rf_last_error());
    cr_assert_eq(rf_dataset_write_index(d, path), 0, "%s", rf_dataset_error(d));
    paths[0] = path;
    o.record_bytes = 0;
    cr_assert_eq(rf_dataset_open(&o, &again), 0, "%s", rf_last_error());
    rf_dataset_get_info(d, &a);
    rf_dataset_get_info(again, &b);
    cr_assert_eq(memcmp(&a, &b, sizeof a), 0);
    rf_dataset_close(d);
    rf_dataset_close(again);
    unlink(path);
    unlink(data);
    rmdir(folder);
}
