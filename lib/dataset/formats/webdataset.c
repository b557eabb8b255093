/* webdataset: neighbours with one key are one sample; each member is a field, called by what follows
 * the first dot of its base name, in lower case. A sample's extent reaches from its first member's
 * data to its last one's, with headers of the members between inside. The label is the integer text
 * of the field "cls" (or the one asked for); a field without an integer is no label. */
#include "dataset/formats/webdataset.h"

#include "dataset/formats/format.h"
#include "dataset/formats/tar_reader.h"
#include "dataset/label_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { LABEL_BYTES = 64 };

/* The sample being collected. */
struct group {
    struct rfi_scan *s;
    struct rfi_tar tar;
    size_t shard;
    uint32_t file;
    struct rfi_grow key; /* NUL-terminated; empty: no sample yet */
    struct rfi_grow names; /* of the fields, NUL-terminated */
    size_t name_at[RFI_MAX_FIELDS_PER_SAMPLE];
    struct rfi_part parts[RFI_MAX_FIELDS_PER_SAMPLE];
    uint32_t n;
    bool has_label, any_field; /* any_field: some sample has the label's field */
    int64_t label;
    const char *label_field;
};

size_t rfi_webdataset_key_bytes(const char *name)
{
    const char *base = rfi_base_name(name), *dot = strchr(base, '.');
    size_t n = strlen(base);
    if (!dot || dot == base)
        return 0;
    if (base == name && n >= 4 && !strncmp(base, "__", 2) && !strcmp(base + n - 2, "__"))
        return 0;
    return (size_t)(dot - name);
}

static int flush(struct group *g, struct rfi_error *err)
{
    if (!g->n)
        return 0;
    for (uint32_t k = 0; k < g->n; k++)
        g->parts[k].field = (const char *)g->names.data + g->name_at[k];
    int rc = rfi_build_parts(g->s->build, g->file, g->parts, g->n, err);
    if (rc == 0)
        rc = rfi_build_key(g->s->build, (const char *)g->key.data, g->key.used - 1, err);
    if (rc == 0)
        rc = rfi_build_label(g->s->build, g->has_label, g->label, err);
    g->n = 0;
    g->has_label = false;
    rfi_grow_cut(&g->names, 0);
    rfi_grow_cut(&g->key, 0);
    return rc < 0 ? rc : rfi_scan_tick(g->s, g->shard, err);
}

static int begin(struct group *g, const char *key, size_t n, struct rfi_error *err)
{
    if (rfi_grow_add(&g->key, key, n) < 0 || rfi_grow_add(&g->key, "", 1) < 0)
        return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", g->s->path);
    return 0;
}

static int take_label(struct group *g, const struct rfi_tar_member *m, struct rfi_error *err)
{
    const unsigned char *text;
    g->any_field = true;
    if (!m->bytes || m->bytes > LABEL_BYTES)
        return 0;
    int rc = rfi_window_at(&g->tar.w, m->offset, (size_t)m->bytes, &text, err);
    if (rc == 0)
        g->has_label = rfi_label_text((const char *)text, (size_t)m->bytes, &g->label);
    return rc;
}

/* Adds the name in lower case; two members of one name are no sample. */
static int add_name(struct group *g, const char *ext, struct rfi_error *err)
{
    size_t at = g->names.used, n = strlen(ext);
    if (rfi_grow_add(&g->names, ext, n + 1) < 0)
        return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", g->s->path);
    char *names = (char *)g->names.data;
    for (size_t i = at; i < at + n; i++)
        if (names[i] >= 'A' && names[i] <= 'Z')
            names[i] = (char)(names[i] - 'A' + 'a');
    for (uint32_t k = 0; k < g->n; k++)
        if (!strcmp(names + g->name_at[k], names + at))
            return rfi_fail(err, EINVAL,
                            "%s: sample \"%.200s\" has field \"%.60s\" twice. Pack it again, or say --format tar",
                            g->s->path, (const char *)g->key.data, names + at);
    g->name_at[g->n] = at;
    return 0;
}

static int take(struct group *g, const struct rfi_tar_member *m, struct rfi_error *err)
{
    size_t n = rfi_webdataset_key_bytes(m->name);
    int rc = 0;
    if (!n)
        return 0;
    bool same = g->n && g->key.used == n + 1 && !memcmp(g->key.data, m->name, n);
    if (!same) {
        rc = flush(g, err);
        if (rc == 0)
            rc = begin(g, m->name, n, err);
    }
    if (rc == 0 && g->n == RFI_MAX_FIELDS_PER_SAMPLE)
        rc = rfi_fail(err, EINVAL, "%s: sample \"%.200s\" has more than %d fields. Say --format tar", g->s->path,
                      (const char *)g->key.data, RFI_MAX_FIELDS_PER_SAMPLE);
    if (rc == 0)
        rc = add_name(g, m->name + n + 1, err);
    if (rc < 0)
        return rc;
    g->parts[g->n] = (struct rfi_part){.offset = m->offset, .bytes = m->bytes};
    bool is_label = !g->s->o->labels && !strcmp((const char *)g->names.data + g->name_at[g->n], g->label_field);
    g->n++;
    return is_label ? take_label(g, m, err) : 0;
}

static int scan_shard(struct group *g, size_t i, struct rfi_error *err)
{
    struct rfi_tar_member m;
    uint64_t bytes;
    int fd, rc = rfi_scan_open(g->s, i, &g->file, &fd, &bytes, err);
    if (rc < 0)
        return rc;
    g->shard = i;
    rc = rfi_tar_open(&g->tar, fd, g->s->path, bytes, err);
    if (rc == 0) {
        while ((rc = rfi_tar_next(&g->tar, &m, err)) > 0)
            if ((rc = take(g, &m, err)) < 0)
                break;
        if (rc == 0)
            rc = flush(g, err);
        rfi_tar_close(&g->tar);
    }
    close(fd);
    return rc;
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    struct group g = {.s = s, .label_field = s->o->label_field ? s->o->label_field : "cls"};
    int rc = 0;
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++)
        rc = scan_shard(&g, i, err);
    rfi_grow_free(&g.key);
    rfi_grow_free(&g.names);
    if (rc == 0 && s->o->label_field && !s->o->labels && !g.any_field && rfi_build_samples(s->build))
        rc = rfi_fail(err, EINVAL, "--label-field %s: no sample of %s has that field. Look at 'ringfeed inspect'",
                      s->o->label_field, s->sources->root);
    return rc;
}

const struct rfi_format rfi_format_webdataset = {.name = "webdataset", .scan = scan};
