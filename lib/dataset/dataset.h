/* The dataset table: where every sample lies. One handle serves three sources of the same bytes: a
 * scan (built in memory), an index file (.rfi, mapped), or the copy in the segment. The bytes are
 * called an *image*: header, file table, extents or 16-byte entries, fields, labels, layouts; keys
 * come last and are not part of the *core* that is copied into the segment.
 *
 * Must not know: order, rings, processes. */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFI_MAX_FIELDS_PER_SAMPLE = 64 };

struct rfi_extent {
    uint32_t file;
    uint64_t offset; /* in the file */
    uint64_t bytes;
};

struct rfi_file {
    const char *path; /* as to be opened; absolute */
    uint64_t bytes; /* size at index time */
    int64_t mtime_ns;
};

/* One field of one sample; `field` numbers the dataset's field names. */
struct rfi_span {
    uint32_t field;
    uint64_t offset; /* from the start of the extent */
    uint64_t bytes;
};

struct rfi_dataset;

int rfi_dataset_open(const rf_dataset_options *o, struct rfi_dataset **ret, struct rfi_error *err);

/* Opens the copy in a segment (or any image in memory). The bytes are borrowed and may be hostile:
 * everything is bounds-checked here or at use. Keys are absent when only the core is given. */
int rfi_dataset_from_image(const void *image, size_t bytes, struct rfi_dataset **ret, struct rfi_error *err);

void rfi_dataset_close(struct rfi_dataset *d);

/* The core of the image, to be copied verbatim; valid until close. */
const void *rfi_dataset_core(const struct rfi_dataset *d, size_t *ret_bytes);

/* Re-stats every file: -ESTALE with the file named when size or mtime differ from the index. */
int rfi_dataset_check_files(struct rfi_dataset *d, struct rfi_error *err);

uint64_t rfi_dataset_samples(const struct rfi_dataset *d);
uint64_t rfi_dataset_fixed_bytes(const struct rfi_dataset *d); /* 0: variable */
uint64_t rfi_dataset_mean_bytes(const struct rfi_dataset *d); /* of an extent, at least 1 */
uint32_t rfi_dataset_n_files(const struct rfi_dataset *d);
uint32_t rfi_dataset_n_fields(const struct rfi_dataset *d);
bool rfi_dataset_has_labels(const struct rfi_dataset *d);
bool rfi_dataset_has_keys(const struct rfi_dataset *d);
const char *rfi_dataset_field_name(const struct rfi_dataset *d, uint32_t field);
void rfi_dataset_info(const struct rfi_dataset *d, rf_dataset_info *ret);

/* `f` < n_files. The path is valid until close; it is kept in private memory from then on (a process
 * that walks over a million files and wants to stay small uses rfi_dataset_path). Thread-safe. */
void rfi_dataset_file(const struct rfi_dataset *d, uint32_t f, struct rfi_file *ret);

/* Its size alone, without resolving the path. */
uint64_t rfi_dataset_file_bytes(const struct rfi_dataset *d, uint32_t f);

/* The same path into `buf`, without keeping anything; -ENAMETOOLONG when it does not fit. */
int rfi_dataset_path(const struct rfi_dataset *d, uint32_t f, char *buf, size_t cap);

/* Where its copy lies below another folder (a mirror): the name it has relative to the dataset's own. */
int rfi_dataset_path_below(const struct rfi_dataset *d, uint32_t f, const char *folder, char *buf, size_t cap);

/* `i` < samples. Hot. -EBADMSG when the entry points outside its file (a damaged table). */
int rfi_dataset_extent(const struct rfi_dataset *d, uint64_t i, struct rfi_extent *ret);

/* The same for many; any number may stand in `ids`, and one that is no sample is -EBADMSG too. */
int rfi_dataset_extents(const struct rfi_dataset *d, const uint64_t *ids, uint32_t n, struct rfi_extent *ret);

/* True and *ret when sample i has a label. */
bool rfi_dataset_label(const struct rfi_dataset *d, uint64_t i, int64_t *ret);

/* Whether the index holds a CRC32C of every sample's extent, and sample i's. */
bool rfi_dataset_has_checksums(const struct rfi_dataset *d);
bool rfi_dataset_checksum(const struct rfi_dataset *d, uint64_t i, uint32_t *ret);

/* A new handle on a copy of the image with a checksum for every sample: reads all of the dataset. -ENOTSUP:
 * built without CRC32C. `progress`: see rf_dataset_add_checksums. */
int rfi_dataset_with_checksums(const struct rfi_dataset *d, int (*progress)(void *ctx, uint64_t done, uint64_t samples),
                               void *ctx, struct rfi_dataset **ret, struct rfi_error *err);

/* Key of sample i (not NUL-terminated), or NULL. First use checks the keys' checksum. */
const char *rfi_dataset_key(struct rfi_dataset *d, uint64_t i, size_t *ret_bytes);
/* After a key was NULL although the dataset has keys: whether their checksum was wrong. */
bool rfi_dataset_keys_damaged(const struct rfi_dataset *d);

/* Writes the image with its keys as an index file: a temporary file beside it, fsync, rename, fsync
 * of the folder. -EINVAL for a handle that has only the core. */
int rfi_dataset_write(const struct rfi_dataset *d, const char *path, struct rfi_error *err);

/* Fields of sample i in file order; returns the count (<= RFI_MAX_FIELDS_PER_SAMPLE), or -EBADMSG. */
int rfi_dataset_spans(const struct rfi_dataset *d, uint64_t i, struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE]);

/* The public API's opaque handle is this one plus the text of its last error. */
struct rfi_dataset *rfi_dataset_of(rf_dataset *d);
