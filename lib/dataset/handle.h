/* The process-local handle of an image. Only the files of this layer that open, read and close
 * images see inside. */
#pragma once

#include "dataset/dataset.h"
#include "dataset/image.h"

#include <stdatomic.h>

enum rfi_owner {
    RFI_BORROWED, /* somebody else's memory */
    RFI_OWNED, /* mapped by us (a scan's result or an index file): unmapped at close */
};

struct rfi_dataset {
    const unsigned char *image;
    size_t bytes; /* of the mapping */
    enum rfi_owner owner;
    struct rfi_image_header h; /* private copy, checked */

    /* Sections, inside the mapping; NULL when empty. */
    const struct rfi_image_root *root;
    const struct rfi_image_file *files;
    const char *names;
    const int64_t *mtimes;
    const struct rfi_image_run *runs;
    const struct rfi_image_entry *entries;
    const uint16_t *layouts;
    const void *sample_layouts;
    const uint32_t *parts;
    const void *labels;
    const uint32_t *checksums; /* NULL: not here */
    const uint64_t *key_offsets; /* NULL: keys are not here */
    const char *keys;

    const char **field_names; /* [n_fields], into the image */
    _Atomic(char *) *paths; /* [n_files], made when first asked for; valid until close */
    enum { KEYS_UNCHECKED, KEYS_GOOD, KEYS_BAD } keys_state;
};

/* Opens an image and, on success, takes it over as `owner` says. `hashes`: check the sections'
 * checksums (not needed for an image that this process just built). */
int rfi_dataset_adopt(const void *image, size_t bytes, enum rfi_owner owner, bool hashes, const char *what,
                      struct rfi_dataset **ret, struct rfi_error *err);

/* Name of file f relative to the root, NUL-terminated. */
const char *rfi_dataset_file_name(const struct rfi_dataset *d, uint32_t f);
