/* See made.h. */
#include "made.h"

#include <stdio.h>

enum { N_FILES = 3, SPACE = 1 << 20 };

static uint64_t next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void die(const char *what, const struct rfi_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    abort();
}

static void make_parts(struct made_sample *s, uint64_t *rng)
{
    static const char *const names[] = {"jpg", "cls", "json", "txt", "seg.png", "npy"};
    uint64_t at = 0;
    s->n_parts = 1 + (uint32_t)(next(rng) % 6);
    uint32_t first = (uint32_t)(next(rng) % 6);
    for (uint32_t k = 0; k < s->n_parts; k++) {
        strcpy(s->parts[k], names[(first + k) % 6]);
        s->part_offsets[k] = at;
        s->part_bytes[k] = next(rng) % 200;
        at += s->part_bytes[k] + (k + 1 < s->n_parts ? 512 : 0);
    }
    s->bytes = at;
}

static void make_sample(struct made_sample *s, uint64_t i, int what, int64_t base, uint64_t span, uint64_t *rng)
{
    s->file = (uint32_t)(next(rng) % N_FILES);
    s->offset = next(rng) % SPACE;
    s->bytes = next(rng) % 5000;
    if (what & MADE_RUNS) {
        s->file = (uint32_t)(i / 100 % N_FILES);
        s->offset = 7 + i % 100 * 24 + i / 100 * 4800;
        s->bytes = 20;
    }
    s->n_parts = 1;
    strcpy(s->parts[0], "data");
    s->part_bytes[0] = s->bytes;
    if (what & MADE_FIELDS)
        make_parts(s, rng);
    s->has_label = (what & MADE_LABELS) && !((what & MADE_UNLABELED) && next(rng) % 4 == 0);
    s->label = (int64_t)((uint64_t)base + (span == UINT64_MAX ? next(rng) : next(rng) % (span + 1)));
    if (s->has_label && i < 2) /* both ends occur */
        s->label = i ? (int64_t)((uint64_t)base + span) : base;
    snprintf(s->key, sizeof s->key, "k%llu/%u", (unsigned long long)i, (unsigned)(next(rng) % 1000));
}

static int add_sample(struct rfi_build *b, const struct made_sample *s, int what, struct rfi_error *err)
{
    struct rfi_part parts[8];
    int rc = 0;
    if (what & MADE_FIELDS) {
        for (uint32_t k = 0; k < s->n_parts; k++)
            parts[k] = (struct rfi_part){s->parts[k], s->offset + s->part_offsets[k], s->part_bytes[k]};
        rc = rfi_build_parts(b, s->file, parts, s->n_parts, err);
    } else if (!(what & MADE_RUNS)) {
        rc = rfi_build_sample(b, s->file, s->offset, s->bytes, err);
    }
    if (rc == 0 && (what & MADE_LABELS))
        rc = rfi_build_label(b, s->has_label, s->label, err);
    if (rc == 0 && (what & MADE_KEYS))
        rc = rfi_build_key(b, s->key, strlen(s->key), err);
    return rc;
}

struct made made_dataset(uint64_t n, int what, int64_t base, uint64_t span, uint64_t seed)
{
    struct made m = {.n = n, .samples = calloc(n + 1, sizeof *m.samples)};
    struct rfi_error err = {0};
    struct rfi_build *b;
    uint32_t file;
    if (!m.samples || rfi_build_create(what & MADE_FIELDS ? "webdataset" : "raw", "/nowhere/data", &b, &err) < 0)
        die("create", &err);
    for (int f = 0; f < N_FILES; f++)
        if (rfi_build_file(b, f == 0 ? "a" : f == 1 ? "sub/b" : "c", UINT64_C(1) << 44, 1000 + f, &file, &err) < 0)
            die("file", &err);
    for (uint64_t i = 0; i < n; i++) {
        make_sample(&m.samples[i], i, what, base, span, &seed);
        if (add_sample(b, &m.samples[i], what, &err) < 0)
            die("sample", &err);
        uint64_t left = n - i;
        if ((what & MADE_RUNS) && i % 100 == 0 &&
            rfi_build_run(b, m.samples[i].file, m.samples[i].offset, 24, 20, left < 100 ? left : 100, &err) < 0)
            die("run", &err);
    }
    if (rfi_build_finish(b, &m.d, &err) < 0)
        die("finish", &err);
    rfi_build_destroy(b);
    return m;
}

void made_free(struct made *m)
{
    rfi_dataset_close(m->d);
    free(m->samples);
}

static bool same_parts(const struct made_sample *s, const struct rfi_dataset *d, uint64_t i)
{
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    int n = rfi_dataset_spans(d, i, spans);
    bool same = n == (int)s->n_parts;
    for (int k = 0; k < n && same; k++)
        same = !strcmp(rfi_dataset_field_name(d, spans[k].field), s->parts[k]) &&
               spans[k].offset == s->part_offsets[k] && spans[k].bytes == s->part_bytes[k];
    return same;
}

uint64_t made_differences(const struct made *m, struct rfi_dataset *d)
{
    uint64_t wrong = rfi_dataset_samples(d) != m->n;
    for (uint64_t i = 0; i < m->n && !wrong; i++) {
        const struct made_sample *s = &m->samples[i];
        struct rfi_extent e = {0};
        int64_t label;
        size_t n;
        wrong += rfi_dataset_extent(d, i, &e) != 0 || e.file != s->file || e.offset != s->offset || e.bytes != s->bytes;
        wrong += rfi_dataset_label(d, i, &label) != s->has_label || (s->has_label && label != s->label);
        wrong += !same_parts(s, d, i);
        const char *key = rfi_dataset_key(d, i, &n);
        wrong += !key != !rfi_dataset_has_keys(d) || (key && (n != strlen(s->key) || memcmp(key, s->key, n)));
    }
    return wrong;
}

uint64_t made_touch(struct rfi_dataset *d)
{
    uint64_t sum = 0, n = rfi_dataset_samples(d);
    rf_dataset_info info;
    rfi_dataset_info(d, &info);
    for (uint32_t f = 0; f < rfi_dataset_n_fields(d); f++)
        sum += strlen(rfi_dataset_field_name(d, f));
    for (uint32_t f = 0; f < rfi_dataset_n_files(d) && f < 1000; f++) {
        struct rfi_file file;
        rfi_dataset_file(d, f, &file);
        sum += strlen(file.path) + file.bytes;
    }
    for (uint64_t k = 0; k < n && k < 2000; k++) {
        uint64_t i = n <= 2000 ? k : k < 1000 ? k : n - 1 - (k - 1000);
        struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
        struct rfi_extent e = {0};
        int64_t label = 0;
        size_t key_bytes = 0;
        sum += (uint64_t)rfi_dataset_extent(d, i, &e) + e.bytes + e.file;
        int parts = rfi_dataset_spans(d, i, spans);
        for (int p = 0; p < parts; p++)
            sum += spans[p].bytes + strlen(rfi_dataset_field_name(d, spans[p].field));
        sum += rfi_dataset_label(d, i, &label) + (uint64_t)label;
        const char *key = rfi_dataset_key(d, i, &key_bytes);
        for (size_t c = 0; key && c < key_bytes; c++)
            sum += (unsigned char)key[c];
    }
    return sum + rfi_dataset_mean_bytes(d) + info.samples;
}
