/* The builder's adding half: see build.h. */
#include "dataset/build_internal.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPAND_MAX (UINT64_C(1) << 31) /* records that may get an entry of their own: 32 GiB of table */

int rfi_build_no_memory(const struct rfi_build *b, struct rfi_error *err)
{
    return rfi_fail(err, ENOMEM, "%s: out of memory after %llu samples. Free some, or index a part of the dataset",
                    b->root, (unsigned long long)b->h.samples);
}

int rfi_build_create(const char *format, const char *root, struct rfi_build **ret, struct rfi_error *err)
{
    struct rfi_build *b = calloc(1, sizeof *b);
    if (!b)
        return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", root);
    if (strlen(root) >= sizeof b->root || strlen(format) >= sizeof b->h.format) {
        free(b);
        return rfi_fail(err, ENAMETOOLONG, "%.200s: the path is too long. Move the dataset nearer to the root", root);
    }
    memcpy(b->root, root, strlen(root));
    memcpy(b->h.format, format, strlen(format));
    b->fixed = true;
    b->h.min_bytes = UINT64_MAX;
    b->h.max_parts = 1;
    *ret = b;
    return 0;
}

void rfi_build_destroy(struct rfi_build *b)
{
    if (!b)
        return;
    struct rfi_grow *all[] = {
        &b->files,        &b->names,          &b->mtimes, &b->runs,   &b->entries,   &b->fields,      &b->layouts,
        &b->layout_slots, &b->sample_layouts, &b->parts,  &b->labels, &b->unlabeled, &b->key_offsets, &b->keys};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        rfi_grow_free(all[i]);
    free(b);
}

uint64_t rfi_build_samples(const struct rfi_build *b)
{
    return b->h.samples;
}

int rfi_build_file(struct rfi_build *b, const char *name, uint64_t bytes, int64_t mtime_ns, uint32_t *ret_file,
                   struct rfi_error *err)
{
    struct rfi_image_file f = {.name = b->names.used, .bytes = bytes};
    if (b->h.n_files == UINT32_MAX || bytes > RFI_FILE_MAX)
        return rfi_fail(err, EFBIG, "%s/%s: more than %u files, or a file of more than 2^63 bytes. Split the dataset",
                        b->root, name, UINT32_MAX);
    if (rfi_grow_add(&b->names, name, strlen(name) + 1) < 0 || rfi_grow_add(&b->files, &f, sizeof f) < 0 ||
        rfi_grow_add(&b->mtimes, &mtime_ns, sizeof mtime_ns) < 0)
        return rfi_build_no_memory(b, err);
    *ret_file = b->h.n_files++;
    return 0;
}

void rfi_build_array(struct rfi_build *b, const char *dtype, uint32_t n_dims, const uint64_t *shape)
{
    memset(b->h.dtype, 0, sizeof b->h.dtype);
    memset(b->h.shape, 0, sizeof b->h.shape);
    memcpy(b->h.dtype, dtype, rfi_min(strlen(dtype), sizeof b->h.dtype - 1));
    b->h.n_dims = n_dims < RFI_MAX_DIMS ? n_dims : RFI_MAX_DIMS;
    if (n_dims)
        memcpy(b->h.shape, shape, b->h.n_dims * sizeof *shape);
}

/* ---- extents ---- */

static const char *file_name(const struct rfi_build *b, uint32_t file)
{
    const struct rfi_image_file *f = (const struct rfi_image_file *)(const void *)b->files.data;
    return (const char *)b->names.data + f[file].name;
}

static int check_extent(const struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t bytes,
                        struct rfi_error *err)
{
    uint64_t end;
    const struct rfi_image_file *f = (const struct rfi_image_file *)(const void *)b->files.data;
    if (rfi_add_over(offset, bytes, &end) || end > f[file].bytes)
        return rfi_fail(
            err, EINVAL,
            "%s/%s: a sample of %llu bytes at offset %llu ends behind the file's end (%llu). Repair the file", b->root,
            file_name(b, file), (unsigned long long)bytes, (unsigned long long)offset,
            (unsigned long long)f[file].bytes);
    return 0;
}

static void count(struct rfi_build *b, uint64_t n, uint64_t payload, uint64_t extent)
{
    if (!n)
        return;
    b->h.samples += n;
    b->h.payload_bytes += n * payload;
    b->h.extent_bytes += n * extent;
    b->h.min_bytes = rfi_min(b->h.min_bytes, payload);
    b->h.max_bytes = rfi_max(b->h.max_bytes, payload);
}

static int add_entry(struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t bytes, struct rfi_error *err)
{
    struct rfi_image_entry e = rfi_entry_pack(file, offset, bytes);
    if (offset > RFI_ENTRY_MAX || bytes > RFI_ENTRY_MAX)
        return rfi_fail(err, EFBIG, "%s/%s: a sample of variable size lies beyond 2^48 bytes. Split the file", b->root,
                        file_name(b, file));
    return rfi_grow_add(&b->entries, &e, sizeof e) < 0 ? rfi_build_no_memory(b, err) : 0;
}

static int expand(struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t stride, uint64_t bytes, uint64_t n,
                  struct rfi_error *err)
{
    int rc = 0;
    if (n > EXPAND_MAX)
        return rfi_fail(err, EFBIG,
                        "%s/%s: %llu records of unequal sizes are too many for one table. Index the files apart",
                        b->root, file_name(b, file), (unsigned long long)n);
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = add_entry(b, file, offset + i * stride, bytes, err);
    return rc;
}

/* Records of different sizes, or single samples after runs: every record gets its entry. */
static int leave_fixed(struct rfi_build *b, struct rfi_error *err)
{
    int rc = 0;
    const struct rfi_image_run *r = (const struct rfi_image_run *)(const void *)b->runs.data;
    size_t n = b->runs.used / sizeof *r;
    if (!b->fixed)
        return 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        uint64_t next = i + 1 < n ? r[i + 1].first : b->h.samples;
        rc = expand(b, r[i].file, r[i].offset, r[i].stride, b->h.record_bytes, next - r[i].first, err);
    }
    rfi_grow_free(&b->runs);
    b->fixed = false;
    b->h.record_bytes = 0;
    return rc;
}

/* ---- layouts ---- */

static int field_number(struct rfi_build *b, const char *name, uint16_t *ret, struct rfi_error *err)
{
    const char *p = (const char *)b->fields.data;
    for (uint32_t f = 0; f < b->h.n_fields; f++, p += strlen(p) + 1)
        if (!strcmp(p, name)) {
            *ret = (uint16_t)f;
            return 0;
        }
    if (b->h.n_fields == RFI_MAX_FIELDS)
        return rfi_fail(err, EINVAL,
                        "%s: more than %d different field names (\"%.60s\" is one too many). If the members are single "
                        "samples, say --format tar",
                        b->root, RFI_MAX_FIELDS, name);
    *ret = (uint16_t)b->h.n_fields;
    if (rfi_grow_add(&b->fields, name, strlen(name) + 1) < 0)
        return rfi_build_no_memory(b, err);
    b->h.n_fields++;
    return 0;
}

static uint16_t *layout_words(const struct rfi_build *b, uint32_t l)
{
    return (uint16_t *)(void *)b->layouts.data + (size_t)l * RFI_BUILD_LAYOUT_WORDS;
}

/* Open addressing over twice as many slots as there may be layouts; made with the second layout. */
static uint32_t *find_slot(struct rfi_build *b, const uint16_t *words)
{
    enum { SLOTS = 2 * RFI_MAX_LAYOUTS };
    size_t bytes = RFI_BUILD_LAYOUT_WORDS * sizeof *words;
    if (!b->layout_slots.data && !rfi_grow_take(&b->layout_slots, SLOTS * sizeof(uint32_t)))
        return NULL;
    uint32_t *slots = (uint32_t *)(void *)b->layout_slots.data;
    for (uint64_t s = rfi_image_hash(words, bytes);; s++)
        if (!slots[s % SLOTS] || !memcmp(layout_words(b, slots[s % SLOTS] - 1), words, bytes))
            return &slots[s % SLOTS];
}

/* Number of the layout, new or known. `words` has zeros behind its last field. */
static int layout_number(struct rfi_build *b, const uint16_t words[RFI_BUILD_LAYOUT_WORDS], uint32_t hint,
                         uint32_t *ret, struct rfi_error *err)
{
    size_t bytes = RFI_BUILD_LAYOUT_WORDS * sizeof *words;
    *ret = hint;
    if (hint < b->h.n_layouts && !memcmp(layout_words(b, hint), words, bytes))
        return 0;
    uint32_t *slot = find_slot(b, words);
    if (!slot)
        return rfi_build_no_memory(b, err);
    if (!*slot) {
        if (b->h.n_layouts == RFI_MAX_LAYOUTS)
            return rfi_fail(err, EINVAL,
                            "%s: more than %d different sequences of fields. Sort the members of each sample", b->root,
                            RFI_MAX_LAYOUTS);
        if (rfi_grow_add(&b->layouts, words, bytes) < 0)
            return rfi_build_no_memory(b, err);
        *slot = ++b->h.n_layouts;
    }
    *ret = *slot - 1;
    return 0;
}

static uint32_t last_layout(const struct rfi_build *b)
{
    const uint16_t *l = (const uint16_t *)(const void *)b->sample_layouts.data;
    return b->sample_layouts.used ? l[b->sample_layouts.used / 2 - 1] : 0;
}

/* Before the samples are counted: `n` more samples of layout l. */
static int add_layout(struct rfi_build *b, uint32_t l, uint64_t n, struct rfi_error *err)
{
    if (!l && !b->sample_layouts.used)
        return 0;
    if (!b->sample_layouts.used && !rfi_grow_take(&b->sample_layouts, b->h.samples * sizeof(uint16_t)))
        return rfi_build_no_memory(b, err);
    uint16_t *p = rfi_grow_take(&b->sample_layouts, n * sizeof(uint16_t));
    if (!p)
        return rfi_build_no_memory(b, err);
    for (uint64_t i = 0; i < n; i++)
        p[i] = (uint16_t)l;
    return 0;
}

static int data_layout(struct rfi_build *b, uint32_t *ret, struct rfi_error *err)
{
    uint16_t words[RFI_BUILD_LAYOUT_WORDS] = {1};
    *ret = 0;
    if (b->h.n_fields == 1 && b->h.n_layouts == 1 && !strcmp((const char *)b->fields.data, "data"))
        return 0;
    int rc = field_number(b, "data", &words[1], err);
    return rc < 0 ? rc : layout_number(b, words, last_layout(b), ret, err);
}

/* ---- samples ---- */

int rfi_build_run(struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t stride, uint64_t bytes, uint64_t n,
                  struct rfi_error *err)
{
    uint64_t last, total;
    uint32_t layout;
    if (!n)
        return 0;
    if (stride < bytes || rfi_mul_over(n - 1, stride, &last) || rfi_add_over(last, offset, &last) ||
        rfi_add_over(b->h.samples, n, &total) || total > RFI_FILE_MAX || (!bytes && total > RFI_EMPTY_RECORDS_MAX))
        return rfi_fail(err, EINVAL, "%s/%s: it claims %llu records of %llu bytes, which cannot be. Repair the file",
                        b->root, file_name(b, file), (unsigned long long)n, (unsigned long long)bytes);
    int rc = check_extent(b, file, last, bytes, err);
    if (rc == 0 && b->h.samples && b->fixed && bytes != b->h.record_bytes)
        rc = leave_fixed(b, err);
    if (rc == 0)
        rc = data_layout(b, &layout, err);
    if (rc == 0)
        rc = add_layout(b, layout, n, err);
    if (rc < 0)
        return rc;
    if (b->fixed) {
        struct rfi_image_run r = {.first = b->h.samples, .offset = offset, .stride = stride, .file = file};
        b->h.record_bytes = bytes;
        rc = rfi_grow_add(&b->runs, &r, sizeof r) < 0 ? rfi_build_no_memory(b, err) : 0;
    } else {
        rc = expand(b, file, offset, stride, bytes, n, err);
    }
    if (rc == 0)
        count(b, n, bytes, bytes);
    return rc;
}

int rfi_build_sample(struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t bytes, struct rfi_error *err)
{
    uint32_t layout;
    int rc = check_extent(b, file, offset, bytes, err);
    if (rc == 0)
        rc = leave_fixed(b, err);
    if (rc == 0)
        rc = data_layout(b, &layout, err);
    if (rc == 0)
        rc = add_layout(b, layout, 1, err);
    if (rc == 0)
        rc = add_entry(b, file, offset, bytes, err);
    if (rc == 0)
        count(b, 1, bytes, bytes);
    return rc;
}

/* The 2F-2 words of image.h. */
static int add_part_words(struct rfi_build *b, uint32_t file, const struct rfi_part *p, uint32_t n,
                          struct rfi_error *err)
{
    if (n < 2)
        return 0;
    if (p[n - 1].offset - p[0].offset > UINT32_MAX)
        return rfi_fail(err, EFBIG,
                        "%s/%s: the sample at offset %llu spans more than 4 GiB, too much for fields. Say --format tar",
                        b->root, file_name(b, file), (unsigned long long)p[0].offset);
    uint32_t *w = rfi_grow_take(&b->parts, (2 * (size_t)n - 2) * sizeof *w);
    if (!w)
        return rfi_build_no_memory(b, err);
    w[0] = (uint32_t)p[0].bytes;
    for (uint32_t k = 1; k < n; k++)
        w[k] = (uint32_t)(p[k].offset - p[0].offset);
    for (uint32_t k = 1; k + 1 < n; k++)
        w[n - 1 + k] = (uint32_t)p[k].bytes;
    return 0;
}

int rfi_build_parts(struct rfi_build *b, uint32_t file, const struct rfi_part *parts, uint32_t n, struct rfi_error *err)
{
    uint16_t words[RFI_BUILD_LAYOUT_WORDS] = {(uint16_t)n};
    uint64_t payload = 0;
    uint32_t layout;
    int rc = 0;
    if (n < 1 || n > RFI_MAX_FIELDS_PER_SAMPLE)
        return rfi_fail(err, EINVAL, "%s/%s: a sample with %u fields, the limit is %d. Say --format tar", b->root,
                        file_name(b, file), n, RFI_MAX_FIELDS_PER_SAMPLE);
    for (uint32_t k = 0; k < n && rc == 0; k++) {
        payload += parts[k].bytes;
        rc = check_extent(b, file, parts[k].offset, parts[k].bytes, err);
        if (rc == 0 && k && parts[k].offset < parts[k - 1].offset + parts[k - 1].bytes)
            rc = rfi_fail(err, EINVAL, "%s/%s: fields \"%s\" and \"%s\" overlap. Repair the file", b->root,
                          file_name(b, file), parts[k - 1].field, parts[k].field);
        if (rc == 0)
            rc = field_number(b, parts[k].field, &words[1 + k], err);
    }
    if (rc == 0)
        rc = layout_number(b, words, last_layout(b), &layout, err);
    uint64_t bytes = parts[n - 1].offset + parts[n - 1].bytes - parts[0].offset;
    if (rc == 0)
        rc = leave_fixed(b, err);
    if (rc == 0)
        rc = add_part_words(b, file, parts, n, err);
    if (rc == 0)
        rc = add_layout(b, layout, 1, err);
    if (rc == 0)
        rc = add_entry(b, file, parts[0].offset, bytes, err);
    if (rc == 0) {
        b->h.max_parts = (uint32_t)rfi_max(b->h.max_parts, n);
        count(b, 1, payload, bytes);
    }
    return rc;
}

/* ---- labels and keys ---- */

int rfi_build_label(struct rfi_build *b, bool has, int64_t label, struct rfi_error *err)
{
    uint64_t i = b->n_labels;
    if (!has) {
        label = 0;
        while (b->unlabeled.used / 8 <= i / 64)
            if (!rfi_grow_take(&b->unlabeled, 8 * rfi_max(1, i / 64 + 1 - b->unlabeled.used / 8)))
                return rfi_build_no_memory(b, err);
        ((uint64_t *)(void *)b->unlabeled.data)[i / 64] |= UINT64_C(1) << (i % 64);
        b->n_unlabeled++;
    }
    if (rfi_grow_add(&b->labels, &label, sizeof label) < 0)
        return rfi_build_no_memory(b, err);
    b->n_labels++;
    return 0;
}

void rfi_build_drop_labels(struct rfi_build *b)
{
    rfi_grow_free(&b->labels);
    rfi_grow_free(&b->unlabeled);
    b->n_labels = b->n_unlabeled = 0;
}

int rfi_build_key(struct rfi_build *b, const char *key, size_t bytes, struct rfi_error *err)
{
    uint64_t at = b->keys.used;
    if (rfi_grow_add(&b->key_offsets, &at, sizeof at) < 0 || rfi_grow_add(&b->keys, key, bytes) < 0 ||
        rfi_grow_add(&b->keys, "", 1) < 0)
        return rfi_build_no_memory(b, err);
    b->n_keys++;
    return 0;
}

void rfi_build_keys_are_files(struct rfi_build *b)
{
    b->file_keys = true;
}
