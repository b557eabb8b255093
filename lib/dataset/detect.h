/* Which format a list of files is, by what is in them. */
#pragma once

#include "dataset/formats/format.h"

/* `o->format` (or record_bytes) decides when given; else the content does, by these rules:
 *  - all files of one container format (side files apart): that format;
 *  - a compressed file, or containers mixed with anything else: refused, with one of each named;
 *  - otherwise, a directory whose files all lie in its sub-folders: imagefolder; else: files. A single
 *    file named by itself is not taken for a dataset of one sample unless `--format files` says so.
 * Side files are `index.json`, README*, `*.rfi` and any `*.idx` that is not IDX by content; they are
 * dropped from the sources of containers and of raw records. Names with a leading dot never come here. */
int rfi_detect(const rf_dataset_options *o, struct rfi_sources *s, const struct rfi_format **ret,
               struct rfi_error *err);
