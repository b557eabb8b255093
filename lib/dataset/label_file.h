/* Label files: IDX, integer .npy, or text with one integer a line. */
#pragma once

#include "dataset/build.h"

/* The integer that is all of a text but for white space around it. */
bool rfi_label_text(const char *text, size_t n, int64_t *ret);

/* Adds the labels of `path` for the `samples` samples of `whose` (named in messages). The count must
 * be equal. Of a matrix the first column counts. A line without an integer: a sample without a label;
 * a file without any integer is refused. */
int rfi_label_file_add(struct rfi_build *b, const char *path, uint64_t samples, const char *whose,
                       struct rfi_error *err);
