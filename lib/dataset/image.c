/* Checks of an image that may be hostile: after rfi_image_check every section lies inside the
 * mapping, has exactly the size that the counts ask for, and the small tables refer to nothing
 * outside. Entries of samples are checked where they are used. */
#include "dataset/image.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define AGAIN "Make the index again with 'ringfeed index'"

uint64_t rfi_image_hash(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

uint64_t rfi_image_header_hash(const struct rfi_image_header *h)
{
    return rfi_image_hash(h, offsetof(struct rfi_image_header, hash));
}

bool rfi_image_section_bytes(const struct rfi_image_header *h, enum rfi_section s, uint64_t *ret)
{
    uint64_t n = h->samples, each = 0;
    *ret = UINT64_MAX;
    switch (s) {
    case RFI_SEC_ROOT:
        *ret = sizeof(struct rfi_image_root);
        return true;
    case RFI_SEC_FILES:
        return !rfi_mul_over(h->n_files, sizeof(struct rfi_image_file), ret);
    case RFI_SEC_MTIMES:
        return !rfi_mul_over(h->n_files, sizeof(int64_t), ret);
    case RFI_SEC_RUNS:
        return !rfi_mul_over(h->n_runs, sizeof(struct rfi_image_run), ret);
    case RFI_SEC_LAYOUTS:
        return !rfi_mul_over(h->n_layouts, 2 * (1 + (uint64_t)h->max_parts), ret);
    case RFI_SEC_ENTRIES:
        each = h->flags & RFI_IMAGE_FIXED ? 0 : sizeof(struct rfi_image_entry);
        break;
    case RFI_SEC_SAMPLE_LAYOUTS:
        each = h->layout_width;
        break;
    case RFI_SEC_PARTS:
        each = 8 * ((uint64_t)h->max_parts - 1);
        break;
    case RFI_SEC_LABELS:
        each = h->label_width;
        break;
    case RFI_SEC_CHECKSUMS:
        each = h->flags & RFI_IMAGE_CHECKSUMS ? sizeof(uint32_t) : 0;
        break;
    case RFI_SEC_KEY_OFFSETS:
        each = h->flags & RFI_IMAGE_KEYS ? 8 : 0;
        n += each ? 1 : 0;
        break;
    default: /* names, fields, keys: as long as they are */
        return true;
    }
    return !rfi_mul_over(n, each, ret);
}

/* The words of the header that are not sizes of sections. */
static const char *check_words(const struct rfi_image_header *h)
{
    if (!memchr(h->format, 0, sizeof h->format) || !memchr(h->dtype, 0, sizeof h->dtype))
        return "its names are not terminated";
    if (h->n_dims > RFI_MAX_DIMS)
        return "it has too many dimensions";
    if (h->flags & ~(uint32_t)(RFI_IMAGE_FIXED | RFI_IMAGE_KEYS | RFI_IMAGE_FILE_KEYS | RFI_IMAGE_CHECKSUMS))
        return "it has unknown flags";
    if (h->max_parts < 1 || h->max_parts > 64 || h->n_fields > RFI_MAX_FIELDS || h->n_layouts > RFI_MAX_LAYOUTS)
        return "its field tables are out of range";
    if (h->layout_width > 2 || (h->n_layouts > 1 && !h->layout_width) || (h->samples && !h->n_layouts))
        return "its layout table is out of range";
    if (h->label_width > 8 || (h->label_width & (h->label_width - 1)))
        return "its labels are of an impossible width";
    if (h->samples > RFI_FILE_MAX || h->core_bytes > h->image_bytes || h->core_bytes < RFI_IMAGE_HEADER_BYTES)
        return "its sizes are out of range";
    if (!(h->flags & RFI_IMAGE_FIXED) && (h->n_runs || h->record_bytes))
        return "it has extents of fixed size and others";
    if ((h->flags & RFI_IMAGE_FIXED) && (h->max_parts != 1 || !h->n_runs != !h->samples))
        return "its extents do not fit its samples";
    if ((h->flags & RFI_IMAGE_FIXED) && !h->record_bytes && h->samples > RFI_EMPTY_RECORDS_MAX)
        return "it claims too many records of zero bytes";
    return NULL;
}

static const char *check_places(const struct rfi_image_header *h)
{
    for (int s = 0; s < RFI_N_SECTIONS; s++) {
        const struct rfi_image_section *sec = &h->sections[s];
        uint64_t limit = s < RFI_SEC_CORE_END ? h->core_bytes : h->image_bytes, want, end;
        if (sec->offset % RFI_IMAGE_ALIGN || sec->offset < RFI_IMAGE_HEADER_BYTES ||
            rfi_add_over(sec->offset, sec->bytes, &end) || end > limit)
            return "a section lies outside";
        if (!rfi_image_section_bytes(h, (enum rfi_section)s, &want) || (want != UINT64_MAX && want != sec->bytes))
            return "a section has the wrong size";
    }
    if (h->sections[RFI_SEC_ROOT].offset != RFI_IMAGE_HEADER_BYTES)
        return "its root is not where it must be";
    return NULL;
}

static const void *at(const void *image, const struct rfi_image_header *h, enum rfi_section s)
{
    return (const unsigned char *)image + h->sections[s].offset;
}

static const char *check_hashes(const void *image, const struct rfi_image_header *h)
{
    for (int s = 0; s < RFI_SEC_CORE_END; s++)
        if (rfi_image_hash(at(image, h, (enum rfi_section)s), h->sections[s].bytes) != h->sections[s].hash)
            return "a checksum does not match: it is damaged";
    return NULL;
}

static const char *check_files(const void *image, const struct rfi_image_header *h)
{
    const struct rfi_image_root *root = at(image, h, RFI_SEC_ROOT);
    const struct rfi_image_file *f = at(image, h, RFI_SEC_FILES);
    const char *names = at(image, h, RFI_SEC_NAMES);
    uint64_t bytes = h->sections[RFI_SEC_NAMES].bytes;
    if (!memchr(root->absolute, 0, sizeof root->absolute) || !memchr(root->relative, 0, sizeof root->relative))
        return "its root is not terminated";
    if (h->n_files && (!bytes || names[bytes - 1]))
        return "its file names are not terminated";
    for (uint32_t i = 0; i < h->n_files; i++)
        if (f[i].name >= bytes || f[i].bytes > RFI_FILE_MAX)
            return "its file table points outside";
    return NULL;
}

static const char *check_runs(const void *image, const struct rfi_image_header *h)
{
    const struct rfi_image_run *r = at(image, h, RFI_SEC_RUNS);
    const struct rfi_image_file *files = at(image, h, RFI_SEC_FILES);
    for (uint64_t i = 0; i < h->n_runs; i++) {
        uint64_t next = i + 1 < h->n_runs ? r[i + 1].first : h->samples, end;
        if ((i == 0 && r[i].first != 0) || next <= r[i].first || next > h->samples || r[i].file >= h->n_files)
            return "its extents are out of order";
        if (r[i].stride < h->record_bytes)
            return "its extents overlap";
        if (rfi_mul_over(next - r[i].first - 1, r[i].stride, &end) || rfi_add_over(end, r[i].offset, &end) ||
            rfi_add_over(end, h->record_bytes, &end) || end > files[r[i].file].bytes)
            return "an extent points outside its file";
    }
    return NULL;
}

static const char *check_fields(const void *image, const struct rfi_image_header *h)
{
    const char *names = at(image, h, RFI_SEC_FIELDS);
    const uint16_t *layout = at(image, h, RFI_SEC_LAYOUTS);
    uint64_t bytes = h->sections[RFI_SEC_FIELDS].bytes, n = 0;
    for (uint64_t i = 0; i < bytes; i++)
        n += !names[i];
    if (n != h->n_fields || (bytes && names[bytes - 1]))
        return "its field names are damaged";
    for (uint32_t i = 0; i < h->n_layouts; i++, layout += 1 + h->max_parts) {
        if (layout[0] < 1 || layout[0] > h->max_parts)
            return "a layout has an impossible number of fields";
        for (uint32_t k = 1; k <= layout[0]; k++)
            if (layout[k] >= h->n_fields)
                return "a layout names a field that is not there";
    }
    return NULL;
}

int rfi_image_check(const void *image, size_t bytes, bool hashes, const char *what, struct rfi_image_header *ret,
                    struct rfi_error *err)
{
    const char *why;
    if (bytes < RFI_IMAGE_HEADER_BYTES)
        return rfi_fail(err, EBADMSG, "%s: truncated (%zu bytes are less than a header). " AGAIN, what, bytes);
    memcpy(ret, image, sizeof *ret);
    if (memcmp(ret->magic, RFI_IMAGE_MAGIC, sizeof ret->magic))
        return rfi_fail(err, EBADMSG, "%s: not a ringfeed index. " AGAIN, what);
    if (ret->endian != RFI_IMAGE_ENDIAN)
        return rfi_fail(err, EBADMSG, "%s: made on a machine of the other byte order, or damaged. " AGAIN " here",
                        what);
    if (ret->version != RFI_IMAGE_VERSION)
        return rfi_fail(err, EBADMSG, "%s: index version %u, this ringfeed reads version %d. " AGAIN, what,
                        ret->version, RFI_IMAGE_VERSION);
    if (ret->hash != rfi_image_header_hash(ret))
        return rfi_fail(err, EBADMSG, "%s: the header's checksum does not match: it is damaged. " AGAIN, what);
    why = check_words(ret);
    if (!why && bytes < ret->core_bytes)
        return rfi_fail(err, EBADMSG, "%s: truncated (%zu of %llu bytes). " AGAIN, what, bytes,
                        (unsigned long long)ret->image_bytes);
    why = why ? why : check_places(ret);
    if (!why && hashes)
        why = check_hashes(image, ret);
    why = why ? why : check_files(image, ret);
    why = why ? why : check_runs(image, ret);
    why = why ? why : check_fields(image, ret);
    if (why)
        return rfi_fail(err, EBADMSG, "%s: %s. " AGAIN, what, why);
    return 0;
}
