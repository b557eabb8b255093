/* The builder's other half: lays the growing arrays out as one image, hashes it and opens it. Each
 * array is freed as soon as it is copied, so the peak is one image and its largest section. */
#include "dataset/build_internal.h"
#include "dataset/handle.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#define XXH_STATIC_LINKING_ONLY /* the state's size, to have it on the stack */
#include <xxhash.h>

static int check_counts(const struct rfi_build *b, struct rfi_error *err)
{
    unsigned long long n = b->h.samples;
    if (b->n_labels && b->n_labels != n)
        return rfi_fail(err, EINVAL, "%s: %llu samples, but %llu labels. Give one label a sample", b->root, n,
                        (unsigned long long)b->n_labels);
    if (b->n_keys && b->n_keys != n)
        return rfi_fail(err, EINVAL, "%s: %llu samples, but %llu keys. Give one key a sample", b->root, n,
                        (unsigned long long)b->n_keys);
    return 0;
}

/* Sections whose size does not follow from the header's counts. */
static uint64_t free_size(const struct rfi_build *b, enum rfi_section s)
{
    switch (s) {
    case RFI_SEC_NAMES:
        return b->names.used;
    case RFI_SEC_FIELDS:
        return b->fields.used;
    case RFI_SEC_KEYS:
        return b->keys.used;
    default:
        return 0;
    }
}

static int place_sections(struct rfi_build *b, struct rfi_error *err)
{
    uint64_t at = RFI_IMAGE_HEADER_BYTES;
    for (int s = 0; s < RFI_N_SECTIONS; s++) {
        struct rfi_image_section *sec = &b->h.sections[s];
        if (s == RFI_SEC_CORE_END)
            b->h.core_bytes = at;
        if (!rfi_image_section_bytes(&b->h, (enum rfi_section)s, &sec->bytes))
            return rfi_build_no_memory(b, err);
        if (sec->bytes == UINT64_MAX)
            sec->bytes = free_size(b, (enum rfi_section)s);
        sec->offset = at;
        if (rfi_add_over(at, rfi_align_up(sec->bytes, RFI_IMAGE_ALIGN), &at) || at > SIZE_MAX / 2)
            return rfi_build_no_memory(b, err);
    }
    b->h.image_bytes = at;
    return 0;
}

static void settle_header(struct rfi_build *b)
{
    memcpy(b->h.magic, RFI_IMAGE_MAGIC, sizeof b->h.magic);
    b->h.endian = RFI_IMAGE_ENDIAN;
    b->h.version = RFI_IMAGE_VERSION;
    b->h.min_bytes = b->h.samples ? b->h.min_bytes : 0;
    b->h.n_runs = b->runs.used / sizeof(struct rfi_image_run);
    b->h.layout_width = b->h.n_layouts <= 1 ? 0 : b->h.n_layouts <= 256 ? 1 : 2;
    b->h.flags = (b->fixed ? RFI_IMAGE_FIXED : 0) | (b->n_keys ? RFI_IMAGE_KEYS : 0) |
                 (b->file_keys && !b->n_keys ? RFI_IMAGE_FILE_KEYS : 0);
}

/* ---- sections ---- */

static void put_layouts(const struct rfi_build *b, uint16_t *to)
{
    const uint16_t *from = (const uint16_t *)(const void *)b->layouts.data;
    for (uint32_t l = 0; l < b->h.n_layouts; l++)
        memcpy(to + (size_t)l * (1 + b->h.max_parts), from + (size_t)l * RFI_BUILD_LAYOUT_WORDS,
               (1 + (size_t)b->h.max_parts) * sizeof *to);
}

static uint32_t layout_at(const struct rfi_build *b, uint64_t i)
{
    const uint16_t *l = (const uint16_t *)(const void *)b->sample_layouts.data;
    return b->sample_layouts.used ? l[i] : 0;
}

static void put_sample_layouts(const struct rfi_build *b, void *to)
{
    for (uint64_t i = 0; b->h.layout_width && i < b->h.samples; i++)
        if (b->h.layout_width == 1)
            ((uint8_t *)to)[i] = (uint8_t)layout_at(b, i);
        else
            ((uint16_t *)to)[i] = (uint16_t)layout_at(b, i);
}

static void put_parts(const struct rfi_build *b, uint32_t *to)
{
    const uint32_t *from = (const uint32_t *)(const void *)b->parts.data;
    const uint16_t *layouts = (const uint16_t *)(const void *)b->layouts.data;
    size_t stride = 2 * ((size_t)b->h.max_parts - 1);
    for (uint64_t i = 0; stride && i < b->h.samples; i++, to += stride) {
        size_t words = 2 * (size_t)layouts[(size_t)layout_at(b, i) * RFI_BUILD_LAYOUT_WORDS] - 2;
        if (words)
            memcpy(to, from, words * sizeof *to);
        from += words;
    }
}

static void move(struct rfi_grow *from, void *to)
{
    if (from->used)
        memcpy(to, from->data, from->used);
    rfi_grow_free(from);
}

static void put_sections(struct rfi_build *b, unsigned char *image)
{
    void *at[RFI_N_SECTIONS];
    for (int s = 0; s < RFI_N_SECTIONS; s++)
        at[s] = image + b->h.sections[s].offset;
    struct rfi_image_root *root = at[RFI_SEC_ROOT];
    memcpy(root->absolute, b->root, strlen(b->root));
    move(&b->files, at[RFI_SEC_FILES]);
    move(&b->names, at[RFI_SEC_NAMES]);
    move(&b->mtimes, at[RFI_SEC_MTIMES]);
    move(&b->runs, at[RFI_SEC_RUNS]);
    move(&b->entries, at[RFI_SEC_ENTRIES]);
    move(&b->fields, at[RFI_SEC_FIELDS]);
    put_layouts(b, at[RFI_SEC_LAYOUTS]);
    put_sample_layouts(b, at[RFI_SEC_SAMPLE_LAYOUTS]);
    put_parts(b, at[RFI_SEC_PARTS]);
    rfi_grow_free(&b->parts);
    if (b->h.label_width)
        rfi_build_encode_labels(b, at[RFI_SEC_LABELS]);
    rfi_build_drop_labels(b);
    move(&b->key_offsets, at[RFI_SEC_KEY_OFFSETS]);
    if (b->h.flags & RFI_IMAGE_KEYS)
        memcpy((uint64_t *)at[RFI_SEC_KEY_OFFSETS] + b->h.samples, &b->keys.used, 8);
    move(&b->keys, at[RFI_SEC_KEYS]);
}

/* ---- identity ---- */

/* Everything that says which bytes sample i is, and nothing that changes when the dataset is copied
 * to another place: no root, no times. */
static void fingerprint(const unsigned char *image, struct rfi_image_header *h)
{
    static const enum rfi_section parts[] = {RFI_SEC_FILES,          RFI_SEC_NAMES,  RFI_SEC_RUNS,
                                             RFI_SEC_ENTRIES,        RFI_SEC_FIELDS, RFI_SEC_LAYOUTS,
                                             RFI_SEC_SAMPLE_LAYOUTS, RFI_SEC_PARTS,  RFI_SEC_LABELS};
    const uint64_t words[] = {h->samples,   h->record_bytes, (uint64_t)h->label_base,
                              h->unlabeled, h->label_width,  h->n_dims};
    XXH3_state_t state, *x = &state;
    XXH3_128bits_reset(x);
    XXH3_128bits_update(x, h->format, sizeof h->format);
    XXH3_128bits_update(x, h->dtype, sizeof h->dtype);
    XXH3_128bits_update(x, words, sizeof words);
    XXH3_128bits_update(x, h->shape, sizeof h->shape);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const struct rfi_image_section *s = &h->sections[parts[i]];
        XXH3_128bits_update(x, &s->bytes, sizeof s->bytes);
        XXH3_128bits_update(x, image + s->offset, s->bytes);
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(x));
    memcpy(h->fingerprint, &canonical, sizeof h->fingerprint);
}

static void seal(unsigned char *image, struct rfi_image_header *h)
{
    for (int s = 0; s < RFI_N_SECTIONS; s++)
        h->sections[s].hash = rfi_image_hash(image + h->sections[s].offset, h->sections[s].bytes);
    fingerprint(image, h);
    h->hash = rfi_image_header_hash(h);
    memcpy(image, h, sizeof *h);
}

int rfi_build_finish(struct rfi_build *b, struct rfi_dataset **ret, struct rfi_error *err)
{
    int rc = check_counts(b, err);
    if (rc == 0)
        rc = rfi_build_measure_labels(b, err);
    settle_header(b);
    if (rc == 0)
        rc = place_sections(b, err);
    if (rc < 0)
        return rc;
    size_t bytes = (size_t)b->h.image_bytes;
    void *image = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (image == MAP_FAILED)
        return rfi_build_no_memory(b, err);
    put_sections(b, image);
    seal(image, &b->h);
    rc = rfi_dataset_adopt(image, bytes, RFI_OWNED, false, b->root, ret, err);
    if (rc < 0)
        munmap(image, bytes);
    return rc;
}
