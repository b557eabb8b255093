/* files: every file is one sample, in the order of the sources (a directory's: by path, bytewise). The
 * key is the path below the dataset's root. */
#include "dataset/formats/format.h"

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    int rc = 0;
    rfi_build_keys_are_files(s->build);
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++) {
        uint32_t file;
        rc = rfi_scan_file(s, i, &file, err);
        if (rc == 0)
            rc = rfi_build_sample(s->build, file, 0, rfi_source_at(s->sources, i)->bytes, err);
        if (rc == 0)
            rc = rfi_scan_tick(s, i, err);
    }
    return rc;
}

const struct rfi_format rfi_format_files = {.name = "files", .opaque = true, .scan = scan};
