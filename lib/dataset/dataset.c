/* Reading an image: the hot look-ups and the handle's life. Entries are checked where they are used:
 * a damaged or hostile table gives -EBADMSG, never an address outside the mapping. */
#include "dataset/handle.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const void *section(const struct rfi_dataset *d, enum rfi_section s)
{
    const struct rfi_image_section *sec = &d->h.sections[s];
    return sec->bytes ? d->image + sec->offset : NULL;
}

static void find_sections(struct rfi_dataset *d)
{
    d->root = section(d, RFI_SEC_ROOT);
    d->files = section(d, RFI_SEC_FILES);
    d->names = section(d, RFI_SEC_NAMES);
    d->mtimes = section(d, RFI_SEC_MTIMES);
    d->runs = section(d, RFI_SEC_RUNS);
    d->entries = section(d, RFI_SEC_ENTRIES);
    d->layouts = section(d, RFI_SEC_LAYOUTS);
    d->sample_layouts = section(d, RFI_SEC_SAMPLE_LAYOUTS);
    d->parts = section(d, RFI_SEC_PARTS);
    d->labels = section(d, RFI_SEC_LABELS);
    d->checksums = section(d, RFI_SEC_CHECKSUMS);
    if ((d->h.flags & RFI_IMAGE_KEYS) && d->bytes >= d->h.image_bytes) {
        d->key_offsets = section(d, RFI_SEC_KEY_OFFSETS);
        d->keys = section(d, RFI_SEC_KEYS);
    }
}

static int find_field_names(struct rfi_dataset *d)
{
    const char *name = section(d, RFI_SEC_FIELDS);
    d->field_names = calloc(d->h.n_fields + 1u, sizeof *d->field_names);
    if (!d->field_names)
        return -ENOMEM;
    for (uint32_t f = 0; f < d->h.n_fields; f++, name += strlen(name) + 1)
        d->field_names[f] = name;
    return 0;
}

int rfi_dataset_adopt(const void *image, size_t bytes, enum rfi_owner owner, bool hashes, const char *what,
                      struct rfi_dataset **ret, struct rfi_error *err)
{
    struct rfi_dataset *d = calloc(1, sizeof *d);
    if (!d)
        return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", what);
    int rc = rfi_image_check(image, bytes, hashes, what, &d->h, err);
    if (rc < 0) {
        free(d);
        return rc;
    }
    d->image = image;
    d->bytes = bytes;
    find_sections(d);
    d->paths = calloc(d->h.n_files + 1u, sizeof *d->paths);
    if (!d->paths || find_field_names(d) < 0) {
        rc = rfi_fail(err, ENOMEM, "%s: out of memory for a table of %u files. Free some", what, d->h.n_files);
        rfi_dataset_close(d); /* still borrowed: the caller keeps the bytes on failure */
        return rc;
    }
    d->owner = owner;
    *ret = d;
    return 0;
}

int rfi_dataset_from_image(const void *image, size_t bytes, struct rfi_dataset **ret, struct rfi_error *err)
{
    if ((uintptr_t)image % 8)
        return rfi_fail(err, EINVAL, "dataset image: its address is not a multiple of 8. Align it");
    return rfi_dataset_adopt(image, bytes, RFI_BORROWED, true, "dataset image", ret, err);
}

void rfi_dataset_close(struct rfi_dataset *d)
{
    if (!d)
        return;
    for (uint32_t f = 0; d->paths && f < d->h.n_files; f++)
        free(atomic_load_explicit(&d->paths[f], memory_order_relaxed)); /* no other user any more */
    free((void *)d->paths);
    free(d->field_names);
    if (d->owner == RFI_OWNED)
        munmap((void *)(uintptr_t)d->image, d->bytes);
    free(d);
}

const void *rfi_dataset_core(const struct rfi_dataset *d, size_t *ret_bytes)
{
    *ret_bytes = d->h.core_bytes;
    return d->image;
}

uint64_t rfi_dataset_samples(const struct rfi_dataset *d)
{
    return d->h.samples;
}

uint64_t rfi_dataset_fixed_bytes(const struct rfi_dataset *d)
{
    return d->h.record_bytes;
}

uint64_t rfi_dataset_mean_bytes(const struct rfi_dataset *d)
{
    return d->h.samples ? rfi_max(1, d->h.extent_bytes / d->h.samples) : 1;
}

uint32_t rfi_dataset_n_files(const struct rfi_dataset *d)
{
    return d->h.n_files;
}

uint32_t rfi_dataset_n_fields(const struct rfi_dataset *d)
{
    return d->h.n_fields;
}

bool rfi_dataset_has_labels(const struct rfi_dataset *d)
{
    return d->h.label_width != 0;
}

bool rfi_dataset_has_keys(const struct rfi_dataset *d)
{
    return (d->h.flags & RFI_IMAGE_FILE_KEYS) || d->key_offsets;
}

const char *rfi_dataset_field_name(const struct rfi_dataset *d, uint32_t field)
{
    return field < d->h.n_fields ? d->field_names[field] : NULL;
}

/* ---- files ---- */

const char *rfi_dataset_file_name(const struct rfi_dataset *d, uint32_t f)
{
    uint64_t name = d->files[f].name; /* read again after the check at open: checked again */
    return name < d->h.sections[RFI_SEC_NAMES].bytes ? d->names + name : "";
}

int rfi_dataset_path(const struct rfi_dataset *d, uint32_t f, char *buf, size_t cap)
{
    return rfi_dataset_path_below(d, f, d->root->absolute, buf, cap);
}

int rfi_dataset_path_below(const struct rfi_dataset *d, uint32_t f, const char *root, char *buf, size_t cap)
{
    if (!*root)
        return -EINVAL;
    int n = snprintf(buf, cap, "%s%s%s", root, root[strlen(root) - 1] == '/' ? "" : "/", rfi_dataset_file_name(d, f));
    return n < 0 || (size_t)n >= cap ? -ENAMETOOLONG : 0;
}

/* Threads may race to make the same path: the first pointer stays, the loser frees its own. */
static const char *path_of(const struct rfi_dataset *d, uint32_t f)
{
    /* acquire pairs with the release of whoever stored the pointer: the text is complete */
    char *path = atomic_load_explicit(&d->paths[f], memory_order_acquire);
    if (path)
        return path;
    size_t cap = strlen(d->root->absolute) + strlen(rfi_dataset_file_name(d, f)) + 2;
    char *mine = malloc(cap);
    if (!mine || rfi_dataset_path(d, f, mine, cap) < 0) {
        free(mine);
        return ""; /* cannot be opened: the caller's open fails and says so */
    }
    if (atomic_compare_exchange_strong_explicit(&d->paths[f], &path, mine, memory_order_acq_rel, memory_order_acquire))
        return mine;
    free(mine);
    return path;
}

void rfi_dataset_file(const struct rfi_dataset *d, uint32_t f, struct rfi_file *ret)
{
    *ret = (struct rfi_file){.path = path_of(d, f), .bytes = d->files[f].bytes, .mtime_ns = d->mtimes[f]};
}

uint64_t rfi_dataset_file_bytes(const struct rfi_dataset *d, uint32_t f)
{
    return d->files[f].bytes;
}

/* ---- extents ---- */

static int checked(const struct rfi_dataset *d, uint32_t file, uint64_t offset, uint64_t bytes, struct rfi_extent *ret)
{
    uint64_t end;
    if (file >= d->h.n_files || rfi_add_over(offset, bytes, &end) || end > d->files[file].bytes)
        return -EBADMSG;
    *ret = (struct rfi_extent){.file = file, .offset = offset, .bytes = bytes};
    return 0;
}

static int run_extent(const struct rfi_dataset *d, uint64_t i, struct rfi_extent *ret)
{
    uint64_t lo = 0, hi = d->h.n_runs;
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (d->runs[mid].first <= i)
            lo = mid;
        else
            hi = mid;
    }
    const struct rfi_image_run *r = &d->runs[lo];
    uint64_t first = r->first, offset;
    if (first > i || rfi_mul_over(i - first, r->stride, &offset) || rfi_add_over(offset, r->offset, &offset))
        return -EBADMSG;
    return checked(d, r->file, offset, d->h.record_bytes, ret);
}

int rfi_dataset_extent(const struct rfi_dataset *d, uint64_t i, struct rfi_extent *ret)
{
    if (d->h.flags & RFI_IMAGE_FIXED)
        return run_extent(d, i, ret);
    struct rfi_image_entry e = d->entries[i];
    return checked(d, rfi_entry_file(e), e.offset_file & RFI_ENTRY_MAX, e.bytes_file & RFI_ENTRY_MAX, ret);
}

/* Records of one run: where the last one lies inside its file, all do. */
static int single_run(const struct rfi_dataset *d, const uint64_t *ids, uint32_t n, struct rfi_extent *ret)
{
    const struct rfi_image_run r = d->runs[0];
    const uint64_t samples = d->h.samples, bytes = d->h.record_bytes;
    struct rfi_extent last;
    if (r.first != 0 || samples == 0 || run_extent(d, samples - 1, &last) < 0)
        return -EBADMSG;
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] >= samples)
            return -EBADMSG;
        ret[i] = (struct rfi_extent){.file = r.file, .offset = r.offset + ids[i] * r.stride, .bytes = bytes};
    }
    return 0;
}

int rfi_dataset_extents(const struct rfi_dataset *d, const uint64_t *ids, uint32_t n, struct rfi_extent *ret)
{
    int rc = 0;
    if (d->h.record_bytes && d->h.n_runs == 1)
        return single_run(d, ids, n, ret);
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = ids[i] < d->h.samples ? rfi_dataset_extent(d, ids[i], &ret[i]) : -EBADMSG;
    return rc;
}

/* ---- labels ---- */

bool rfi_dataset_label(const struct rfi_dataset *d, uint64_t i, int64_t *ret)
{
    uint64_t code, none;
    switch (d->h.label_width) {
    case 1:
        code = ((const uint8_t *)d->labels)[i];
        none = UINT8_MAX;
        break;
    case 2:
        code = ((const uint16_t *)d->labels)[i];
        none = UINT16_MAX;
        break;
    case 4:
        code = ((const uint32_t *)d->labels)[i];
        none = UINT32_MAX;
        break;
    case 8:
        code = ((const uint64_t *)d->labels)[i];
        none = UINT64_MAX;
        break;
    default:
        return false;
    }
    if (code == none && d->h.unlabeled)
        return false;
    *ret = (int64_t)((uint64_t)d->h.label_base + code);
    return true;
}

/* ---- checksums ---- */

bool rfi_dataset_has_checksums(const struct rfi_dataset *d)
{
    return d->h.flags & RFI_IMAGE_CHECKSUMS;
}

bool rfi_dataset_checksum(const struct rfi_dataset *d, uint64_t i, uint32_t *ret)
{
    if (!d->checksums)
        return false;
    *ret = d->checksums[i];
    return true;
}

/* ---- keys ---- */

/* A few milliseconds per 100 MB, once; keys are not in the core, so most processes never pay it. */
static bool keys_good(struct rfi_dataset *d)
{
    if (d->keys_state == KEYS_UNCHECKED) {
        const struct rfi_image_section *o = &d->h.sections[RFI_SEC_KEY_OFFSETS], *k = &d->h.sections[RFI_SEC_KEYS];
        bool good = rfi_image_hash(d->key_offsets, o->bytes) == o->hash && rfi_image_hash(d->keys, k->bytes) == k->hash;
        d->keys_state = good ? KEYS_GOOD : KEYS_BAD;
    }
    return d->keys_state == KEYS_GOOD;
}

const char *rfi_dataset_key(struct rfi_dataset *d, uint64_t i, size_t *ret_bytes)
{
    struct rfi_extent e;
    if (d->h.flags & RFI_IMAGE_FILE_KEYS) {
        if (rfi_dataset_extent(d, i, &e) < 0)
            return NULL;
        const char *name = rfi_dataset_file_name(d, e.file);
        *ret_bytes = strlen(name);
        return name;
    }
    if (!d->key_offsets || !keys_good(d))
        return NULL;
    uint64_t from = d->key_offsets[i], to = d->key_offsets[i + 1];
    if (from >= to || to > d->h.sections[RFI_SEC_KEYS].bytes || d->keys[to - 1])
        return NULL;
    *ret_bytes = to - from - 1;
    return d->keys + from;
}

bool rfi_dataset_keys_damaged(const struct rfi_dataset *d)
{
    return d->keys_state == KEYS_BAD;
}

/* ---- fields ---- */

static const uint16_t *layout_of(const struct rfi_dataset *d, uint64_t i)
{
    uint32_t l = 0;
    if (d->h.layout_width == 1)
        l = ((const uint8_t *)d->sample_layouts)[i];
    else if (d->h.layout_width == 2)
        l = ((const uint16_t *)d->sample_layouts)[i];
    return l < d->h.n_layouts ? d->layouts + (size_t)l * (1 + d->h.max_parts) : NULL;
}

/* Offset and length of part k of n: see image.h for the words. */
static void part(const uint32_t *w, uint32_t n, uint32_t k, uint64_t extent, struct rfi_span *ret)
{
    ret->offset = k ? w[k] : 0;
    if (k + 1 == n)
        ret->bytes = extent - rfi_min(extent, ret->offset);
    else
        ret->bytes = k ? w[n - 1 + k] : w[0];
}

int rfi_dataset_spans(const struct rfi_dataset *d, uint64_t i, struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE])
{
    struct rfi_extent e;
    const uint16_t *layout = layout_of(d, i);
    int rc = rfi_dataset_extent(d, i, &e);
    if (rc < 0 || !layout)
        return -EBADMSG;
    uint32_t n = layout[0];
    if (n < 1 || n > d->h.max_parts)
        return -EBADMSG;
    const uint32_t *w = d->parts ? d->parts + i * 2 * (d->h.max_parts - 1) : NULL;
    for (uint32_t k = 0; k < n; k++) {
        part(w, n, k, e.bytes, &spans[k]);
        spans[k].field = layout[1 + k];
        if (spans[k].field >= d->h.n_fields || spans[k].offset > e.bytes || spans[k].bytes > e.bytes - spans[k].offset)
            return -EBADMSG;
    }
    return (int)n;
}

/* ---- facts ---- */

void rfi_dataset_info(const struct rfi_dataset *d, rf_dataset_info *ret)
{
    const struct rfi_image_header *h = &d->h;
    *ret = (rf_dataset_info){.files = h->n_files,
                             .samples = h->samples,
                             .bytes = h->payload_bytes,
                             .min_bytes = h->min_bytes,
                             .max_bytes = h->max_bytes,
                             .mean_bytes = h->samples ? (double)h->payload_bytes / (double)h->samples : 0,
                             .fixed_bytes = h->record_bytes,
                             .classes = h->classes,
                             .unlabeled = h->unlabeled,
                             .index_bytes = h->image_bytes,
                             .n_fields = h->n_fields,
                             .n_dims = h->n_dims,
                             .checksums = (h->flags & RFI_IMAGE_CHECKSUMS) != 0};
    memcpy(ret->format, h->format, sizeof ret->format);
    memcpy(ret->dtype, h->dtype, sizeof ret->dtype);
    memcpy(ret->shape, h->shape, sizeof ret->shape);
    for (int i = 0; i < 16; i++)
        snprintf(ret->fingerprint + 2 * i, 3, "%02x", h->fingerprint[i]);
}
