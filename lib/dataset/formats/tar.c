/* tar: every regular member is a sample; its key is the member's name. An archive whose neighbours
 * share keys is taken for a webdataset (see webdataset.c). */
#include "dataset/formats/format.h"
#include "dataset/formats/tar_reader.h"
#include "dataset/formats/webdataset.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool match(const struct rfi_probe *p)
{
    return rfi_tar_match(p->head, p->n_head, p->bytes);
}

static int scan_members(struct rfi_scan *s, size_t i, struct rfi_tar *t, uint32_t file, struct rfi_error *err)
{
    struct rfi_tar_member m;
    int rc;
    while ((rc = rfi_tar_next(t, &m, err)) > 0) {
        rc = rfi_build_sample(s->build, file, m.offset, m.bytes, err);
        if (rc == 0)
            rc = rfi_build_key(s->build, m.name, strlen(m.name), err);
        if (rc == 0)
            rc = rfi_scan_tick(s, i, err);
        if (rc < 0)
            break;
    }
    return rc;
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++) {
        struct rfi_tar t;
        uint32_t file;
        uint64_t bytes;
        int fd;
        rc = rfi_scan_open(s, i, &file, &fd, &bytes, err);
        if (rc < 0)
            break;
        rc = rfi_tar_open(&t, fd, s->path, bytes, err);
        if (rc == 0) {
            rc = scan_members(s, i, &t, file, err);
            rfi_tar_close(&t);
        }
        close(fd);
    }
    return rc;
}

/* ---- webdataset or not ---- */

/* 1: neighbours share a key; 0: no; *ret_members: how many regular members were seen. Errors are left
 * to the scan, which reports them with the same words. */
static int shares_keys(struct rfi_tar *t, size_t *ret_members)
{
    struct rfi_tar_member m;
    struct rfi_grow before = {0};
    int found = 0;
    *ret_members = 0;
    while (!found && rfi_tar_next(t, &m, NULL) > 0) {
        size_t n = rfi_webdataset_key_bytes(m.name);
        ++*ret_members;
        found = n && before.used == n && !memcmp(before.data, m.name, n);
        rfi_grow_cut(&before, 0);
        if (rfi_grow_add(&before, m.name, n) < 0)
            break;
    }
    rfi_grow_free(&before);
    return found;
}

/* Looks through the first archive that has members. */
static int refine(const struct rfi_sources *s, const struct rfi_format **ret, struct rfi_error *err)
{
    size_t members = 0;
    for (size_t i = 0; i < rfi_sources_n(s) && !members; i++) {
        const struct rfi_source *f = rfi_source_at(s, i);
        struct rfi_tar t;
        int fd, rc = rfi_source_open(s, i, &fd, err);
        if (rc < 0)
            return rc;
        if (rfi_tar_open(&t, fd, rfi_source_name(s, i), f->bytes, NULL) == 0) {
            if (shares_keys(&t, &members))
                *ret = &rfi_format_webdataset;
            rfi_tar_close(&t);
        }
        close(fd);
    }
    return 0;
}

const struct rfi_format rfi_format_tar = {.name = "tar", .match = match, .refine = refine, .scan = scan};
