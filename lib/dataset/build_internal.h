/* What the builder's files share. */
#pragma once

#include "dataset/build.h"
#include "dataset/grow.h"
#include "dataset/image.h"

/* During the build a layout has room for the most fields; finish packs it. */
enum { RFI_BUILD_LAYOUT_WORDS = 1 + RFI_MAX_FIELDS_PER_SAMPLE };

struct rfi_build {
    struct rfi_image_header h; /* format, dtype, shape, counts and sums so far */
    char root[4096];
    bool fixed; /* nothing but runs of equal size so far */
    bool file_keys;
    uint64_t n_labels, n_unlabeled, n_keys;
    struct rfi_grow files, names, mtimes; /* as in the image */
    struct rfi_grow runs, entries; /* as in the image; one of the two */
    struct rfi_grow fields; /* names, NUL-terminated */
    struct rfi_grow layouts; /* uint16_t[n_layouts][RFI_BUILD_LAYOUT_WORDS] */
    struct rfi_grow layout_slots; /* hash table of layout numbers + 1 */
    struct rfi_grow sample_layouts; /* uint16_t; empty while every sample has layout 0 */
    struct rfi_grow parts; /* uint32_t[2F-2] of each sample, packed */
    struct rfi_grow labels; /* int64_t */
    struct rfi_grow unlabeled; /* uint64_t bit words; empty while every sample has a label */
    struct rfi_grow key_offsets, keys;
};

int rfi_build_no_memory(const struct rfi_build *b, struct rfi_error *err);

static inline bool rfi_build_is_unlabeled(const struct rfi_build *b, uint64_t i)
{
    const uint64_t *words = (const uint64_t *)(const void *)b->unlabeled.data;
    return i / 64 < b->unlabeled.used / 8 && (words[i / 64] >> (i % 64) & 1);
}

/* Chooses base and width, counts the classes: fills label_base, label_width, classes, unlabeled. */
int rfi_build_measure_labels(struct rfi_build *b, struct rfi_error *err);
/* Writes the codes, label_width bytes each. */
void rfi_build_encode_labels(const struct rfi_build *b, void *codes);
