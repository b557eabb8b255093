/* The index file (.rfi): an image on disk. */
#pragma once

#include "dataset/dataset.h"

/* True when the file begins with the index magic; no error text, an unreadable file is no index. */
bool rfi_is_index_file(const char *path);

/* Maps an index file, checks it, finds where its dataset lies now, and compares every file's size and
 * time (-ESTALE names the first that differs, -ENOENT one that is gone). */
int rfi_index_open(const char *path, struct rfi_dataset **ret, struct rfi_error *err);
