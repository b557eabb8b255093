/* Which files a dataset consists of: path arguments (files, directories, globs) turned into one list
 * of regular files with names relative to a common root, in index order. */
#pragma once

#include "dataset/grow.h"

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct rfi_source {
    uint64_t name; /* offset in names */
    uint64_t bytes;
    int64_t mtime_ns;
    bool gone; /* during a drop */
};

struct rfi_sources {
    char root[PATH_MAX]; /* real and absolute */
    int root_fd; /* O_PATH on it, or -1 */
    bool one_directory; /* the whole argument was one directory, which is the root */
    bool one_path; /* the whole argument was one file, named literally */
    struct rfi_grow list; /* struct rfi_source */
    struct rfi_grow names;
};

/* Follows symbolic links (loops end), leaves out names that begin with a dot and whatever is neither
 * a regular file nor a directory. Directories come sorted by path, bytewise. -ENOENT: nothing there. */
int rfi_sources_find(const rf_dataset_options *o, struct rfi_sources *ret, struct rfi_error *err);
void rfi_sources_free(struct rfi_sources *s);

static inline size_t rfi_sources_n(const struct rfi_sources *s)
{
    return s->list.used / sizeof(struct rfi_source);
}

static inline struct rfi_source *rfi_source_at(const struct rfi_sources *s, size_t i)
{
    return (struct rfi_source *)(void *)s->list.data + i;
}

static inline const char *rfi_source_name(const struct rfi_sources *s, size_t i)
{
    return (const char *)s->names.data + rfi_source_at(s, i)->name;
}

/* Removes the files for which `drop` says so; keeps the order. */
void rfi_sources_drop(struct rfi_sources *s, bool (*drop)(const struct rfi_sources *s, size_t i, void *ctx), void *ctx);

/* Opens file i for reading; a text that names it on failure. */
int rfi_source_open(const struct rfi_sources *s, size_t i, int *ret_fd, struct rfi_error *err);

/* Name without its folders. */
const char *rfi_base_name(const char *name);
