/* The facts about a dataset that `index` and `inspect` both print, named once. */
#pragma once

#include "cli.h"

static inline void emit_dataset_facts(struct cli_emit *e, rf_dataset *d, const rf_dataset_info *info)
{
    cli_emit_str(e, "format", info->format);
    cli_emit_u64(e, "files", info->files);
    cli_emit_u64(e, "samples", info->samples);
    cli_emit_bytes(e, "bytes", info->bytes);
    cli_emit_bytes(e, "min_bytes", info->min_bytes);
    cli_emit_f64(e, "mean_bytes", info->mean_bytes, 3);
    cli_emit_bytes(e, "max_bytes", info->max_bytes);
    cli_emit_u64(e, "classes", info->classes);
    cli_emit_u64(e, "unlabeled", info->unlabeled);
    cli_emit_str(e, "dtype", info->dtype[0] ? info->dtype : NULL);
    if (info->dtype[0]) {
        cli_emit_array(e, "shape");
        for (uint32_t i = 0; i < info->n_dims; i++)
            cli_emit_u64(e, NULL, info->shape[i]);
        cli_emit_close(e);
    } else {
        cli_emit_null(e, "shape");
    }
    cli_emit_array(e, "fields");
    for (uint32_t f = 0; f < info->n_fields; f++)
        cli_emit_str(e, NULL, rf_dataset_field_name(d, f));
    cli_emit_close(e);
    cli_emit_bool(e, "checksums", info->checksums != 0);
    cli_emit_str(e, "fingerprint", info->fingerprint);
    cli_emit_bytes(e, "index_bytes", info->index_bytes);
}
