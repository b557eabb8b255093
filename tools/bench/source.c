#include "bench/source.h"

#include "dataset/build.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int bench_temporary(char *buf, size_t cap, struct rfi_error *err)
{
    const char *in = getenv("TMPDIR");
    snprintf(buf, cap, "%s/ringfeed-bench-XXXXXX", in && *in ? in : "/tmp");
    if (mkdtemp(buf))
        return 0;
    int code = errno;
    buf[0] = 0;
    return rfi_fail(err, code, "cannot make a folder for temporary files in %s: %s. Set TMPDIR", in ? in : "/tmp",
                    strerror(code));
}

/* All files below one root "/": their names need not share a folder. */
static int add_blocks(const struct rfi_dataset *d, uint64_t block, struct rfi_build *b, struct rfi_error *err)
{
    int rc = 0;
    for (uint32_t f = 0; f < rfi_dataset_n_files(d) && rc == 0; f++) {
        struct rfi_file file;
        uint32_t number;
        rfi_dataset_file(d, f, &file);
        rc = rfi_build_file(b, file.path + 1, file.bytes, file.mtime_ns, &number, err);
        if (rc == 0 && file.bytes >= block)
            rc = rfi_build_run(b, number, 0, block, block, file.bytes / block, err);
    }
    return rc;
}

static int write_blocks(const struct rfi_dataset *d, uint64_t block, const char *index, struct rfi_error *err)
{
    struct rfi_build *b;
    struct rfi_dataset *made = NULL;
    int rc = rfi_build_create("raw", "/", &b, err);
    if (rc < 0)
        return rc;
    rc = add_blocks(d, block, b, err);
    if (rc == 0)
        rc = rfi_build_finish(b, &made, err);
    rfi_build_destroy(b);
    if (rc == 0)
        rc = rfi_dataset_write(made, index, err);
    rfi_dataset_close(made);
    return rc;
}

static int make(rf_dataset *d, uint64_t block, struct bench_source *s, struct rfi_error *err)
{
    int rc = bench_temporary(s->folder, sizeof s->folder, err);
    if (rc < 0)
        return rc;
    int n = snprintf(s->index, sizeof s->index, "%s/dataset.rfi", s->folder);
    if (n < 0 || (size_t)n >= sizeof s->index)
        return rfi_fail(err, ENAMETOOLONG, "%s: too long a path. Set TMPDIR", s->folder);
    rc = block ? write_blocks(rfi_dataset_of(d), block, s->index, err)
               : rfi_dataset_write(rfi_dataset_of(d), s->index, err);
    if (rc < 0)
        return rc;
    s->paths[0] = s->index;
    rf_dataset_options_init(&s->where);
    s->where.paths = s->paths;
    s->where.n_paths = 1;
    rc = rf_dataset_open(&s->where, &s->dataset);
    return rc < 0 ? rfi_fail(err, -rc, "%s", rf_last_error()) : 0;
}

int bench_source_open(rf_dataset *d, uint64_t block, struct bench_source *ret, struct rfi_error *err)
{
    *ret = (struct bench_source){0};
    int rc = make(d, block, ret, err);
    if (rc < 0)
        bench_source_close(ret);
    return rc;
}

void bench_source_close(struct bench_source *s)
{
    rf_dataset_close(s->dataset);
    if (s->index[0])
        unlink(s->index);
    if (s->folder[0])
        rmdir(s->folder);
    *s = (struct bench_source){0};
}
