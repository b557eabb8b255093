/* raw: records of a fixed size behind an optional header, in files of nothing else. */
#include "dataset/formats/format.h"

#include <errno.h>

static int scan_file(struct rfi_scan *s, size_t i, struct rfi_error *err)
{
    uint64_t record = s->o->record_bytes, header = s->o->header_bytes;
    uint64_t bytes = rfi_source_at(s->sources, i)->bytes;
    const char *name = rfi_source_name(s->sources, i);
    uint32_t file;
    if (bytes < header)
        return rfi_fail(err, EINVAL, "%s/%s: %llu bytes are less than the header of %llu. Check --header-bytes",
                        s->sources->root, name, (unsigned long long)bytes, (unsigned long long)header);
    if ((bytes - header) % record)
        return rfi_fail(err, EINVAL,
                        "%s/%s: %llu bytes behind the header are not a multiple of %llu: %llu are left over. Check "
                        "--record-bytes and --header-bytes, or complete the file",
                        s->sources->root, name, (unsigned long long)(bytes - header), (unsigned long long)record,
                        (unsigned long long)((bytes - header) % record));
    int rc = rfi_scan_file(s, i, &file, err);
    if (rc == 0)
        rc = rfi_build_run(s->build, file, header, record, record, (bytes - header) / record, err);
    return rc < 0 ? rc : rfi_scan_tick(s, i, err);
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++)
        rc = scan_file(s, i, err);
    return rc;
}

const struct rfi_format rfi_format_raw = {.name = "raw", .opaque = true, .scan = scan};
