/* One directory tree, files only. */
#pragma once

#include "dataset/sources.h"

/* Adds every file below the directory `path` to *s; names get `prefix` in front ("" or "dir/").
 * `progress` of the options is called now and then. */
int rfi_walk(const char *path, const char *prefix, const rf_dataset_options *o, struct rfi_sources *s,
             struct rfi_error *err);

int rfi_sources_add(struct rfi_sources *s, const char *name, uint64_t bytes, int64_t mtime_ns);
