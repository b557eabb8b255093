/* Making an image: the scans of all formats, and tests that need a dataset without files, add files
 * and samples in index order and finish. Memory is what the image needs, in growing arrays.
 *
 *     rfi_build_create("tar", "/data", &b, err);
 *     rfi_build_file(b, "a.tar", bytes, mtime_ns, &file, err);
 *     rfi_build_sample(b, file, offset, bytes, err);           for each sample
 *     rfi_build_key(b, "name", 4, err);                        all samples or none
 *     rfi_build_label(b, true, 7, err);                        all samples or none
 *     rfi_build_finish(b, &dataset, err);
 *     rfi_build_destroy(b);
 *
 * Calls return 0 or a negative errno with the text in err. Nothing looks at the files themselves. */
#pragma once

#include "dataset/dataset.h"

struct rfi_build;

/* `root`: absolute path of the folder that file names are relative to. */
int rfi_build_create(const char *format, const char *root, struct rfi_build **ret, struct rfi_error *err);
void rfi_build_destroy(struct rfi_build *b);

int rfi_build_file(struct rfi_build *b, const char *name, uint64_t bytes, int64_t mtime_ns, uint32_t *ret_file,
                   struct rfi_error *err);

/* Element type (NumPy type string) and shape of one sample; without it both stay empty. */
void rfi_build_array(struct rfi_build *b, const char *dtype, uint32_t n_dims, const uint64_t *shape);

/* `count` records of `bytes` each, the first at `offset`, the next `stride` further on. While all
 * runs of a dataset have equal `bytes` and there is nothing but runs, no per-sample table is made. */
int rfi_build_run(struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t stride, uint64_t bytes, uint64_t count,
                  struct rfi_error *err);

/* One sample with the one field "data". */
int rfi_build_sample(struct rfi_build *b, uint32_t file, uint64_t offset, uint64_t bytes, struct rfi_error *err);

/* One sample of several fields, in file order and not overlapping; at most RFI_MAX_FIELDS_PER_SAMPLE. */
struct rfi_part {
    const char *field; /* NUL-terminated; copied */
    uint64_t offset, bytes; /* in the file */
};
int rfi_build_parts(struct rfi_build *b, uint32_t file, const struct rfi_part *parts, uint32_t n,
                    struct rfi_error *err);

/* Label of the next sample that has none yet: called once a sample, in order, at any time. */
int rfi_build_label(struct rfi_build *b, bool has, int64_t label, struct rfi_error *err);
void rfi_build_drop_labels(struct rfi_build *b);

/* Key of the next sample that has none yet. `key` must not contain a NUL byte. */
int rfi_build_key(struct rfi_build *b, const char *key, size_t bytes, struct rfi_error *err);
/* Every sample's key is the name of its file (no key is stored). */
void rfi_build_keys_are_files(struct rfi_build *b);

uint64_t rfi_build_samples(const struct rfi_build *b);

/* The image as an open dataset. The builder is empty afterwards, success or not: destroy it. */
int rfi_build_finish(struct rfi_build *b, struct rfi_dataset **ret, struct rfi_error *err);
