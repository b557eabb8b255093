/* What a dataset format is: a name, a look at the first bytes of a file, and a scan that tells the
 * builder where each sample lies. One file a format, one line a format in RFI_FORMATS. */
#pragma once

#include "dataset/build.h"
#include "dataset/sources.h"

#include <ringfeed/ringfeed.h>

enum { RFI_PROBE_BYTES = 1024 };

/* The beginning of a file. */
struct rfi_probe {
    const char *name;
    uint64_t bytes; /* of the file */
    unsigned char head[RFI_PROBE_BYTES];
    size_t n_head;
};

struct rfi_scan {
    const rf_dataset_options *o;
    struct rfi_sources *sources;
    struct rfi_build *build;
    uint64_t ticks;
    char path[2 * PATH_MAX]; /* of the file opened last, for messages */
};

struct rfi_format {
    const char *name;
    bool opaque; /* takes a file's bytes as they are: compressed or of a known format makes no difference */
    /* Whether the content is of this format; NULL: not to be known by content. */
    bool (*match)(const struct rfi_probe *p);
    /* Another format that fits these files better, or NULL; may be NULL. */
    int (*refine)(const struct rfi_sources *s, const struct rfi_format **ret, struct rfi_error *err);
    /* Adds every file and sample. May drop side files from the sources first. */
    int (*scan)(struct rfi_scan *s, struct rfi_error *err);
};

/* THE table: the order in which a file's content is tried. */
#define RFI_FORMATS(X) \
    X(npy)             \
    X(idx)             \
    X(tar)             \
    X(webdataset)      \
    X(tfrecord)        \
    X(imagefolder)     \
    X(files)           \
    X(raw)

#define RFI_FORMAT_DECLARE(name) extern const struct rfi_format rfi_format_##name;
RFI_FORMATS(RFI_FORMAT_DECLARE)
#undef RFI_FORMAT_DECLARE

/* Ends with NULL. */
extern const struct rfi_format *const rfi_formats[];
const struct rfi_format *rfi_format_find(const char *name);

/* ---- helpers for scans ---- */

/* Adds file i of the sources to the builder. */
int rfi_scan_file(struct rfi_scan *s, size_t i, uint32_t *ret_file, struct rfi_error *err);

/* The same, opened for reading: sizes are taken again from the open file, and a compressed file is
 * refused with the reason. Close *ret_fd. */
int rfi_scan_open(struct rfi_scan *s, size_t i, uint32_t *ret_file, int *ret_fd, uint64_t *ret_bytes,
                  struct rfi_error *err);

/* Calls the progress callback every few samples or files; -ECANCELED when it says so. */
int rfi_scan_tick(struct rfi_scan *s, size_t files_done, struct rfi_error *err);

/* Reads exactly `bytes` at `offset`; a short file is -EBADMSG "truncated". */
int rfi_read_exact(int fd, const char *path, void *buf, size_t bytes, uint64_t offset, struct rfi_error *err);

/* Fills *ret from the file; errno text on failure. */
int rfi_probe_fd(int fd, const char *name, struct rfi_probe *ret, struct rfi_error *err);

/* "gzip", "zip", ... or NULL. */
const char *rfi_compressed_kind(const struct rfi_probe *p);

/* An extension that torchvision's ImageFolder takes, in any case. */
bool rfi_is_image_name(const char *name);
