/* See idx_header.h. */
#include "dataset/formats/idx_header.h"

#include "base/bytes.h"
#include "dataset/formats/format.h"

#include <errno.h>
#include <string.h>

static const struct idx_type {
    unsigned char code;
    unsigned char bytes;
    bool integer;
    const char *dtype;
} types[] = {
    {0x08, 1, true, "|u1"}, {0x09, 1, true, "|i1"},  {0x0b, 2, true, ">i2"},
    {0x0c, 4, true, ">i4"}, {0x0d, 4, false, ">f4"}, {0x0e, 8, false, ">f8"},
};

static const struct idx_type *type_of(unsigned char code)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].code == code)
            return &types[i];
    return NULL;
}

bool rfi_idx_match(const unsigned char *head, size_t n)
{
    return n >= 8 && !head[0] && !head[1] && type_of(head[2]) && head[3] >= 1 && head[3] <= RFI_IDX_MAX_DIMS;
}

int rfi_idx_read(int fd, const char *path, uint64_t file_bytes, struct rfi_idx *ret, struct rfi_error *err)
{
    unsigned char head[4 + 4 * RFI_IDX_MAX_DIMS];
    uint64_t end, total;
    bool over = false;
    *ret = (struct rfi_idx){0};
    int rc = rfi_read_exact(fd, path, head, 4, 0, err);
    if (rc < 0)
        return rc;
    const struct idx_type *t = type_of(head[2]);
    if (head[0] || head[1] || !t || head[3] < 1 || head[3] > RFI_IDX_MAX_DIMS)
        return rfi_fail(err, EINVAL, "%s: not an IDX file: its first bytes are %02x %02x %02x %02x. Check the format",
                        path, head[0], head[1], head[2], head[3]);
    rc = rfi_read_exact(fd, path, head + 4, 4u * head[3], 4, err);
    if (rc < 0)
        return rc;
    *ret = (struct rfi_idx){.dtype = t->dtype, .item_bytes = t->bytes, .integer = t->integer, .n_dims = head[3]};
    ret->data_offset = 4 + 4 * (uint64_t)head[3];
    ret->record_bytes = t->bytes;
    for (uint32_t i = 0; i < ret->n_dims; i++) {
        const unsigned char *d = head + 4 + 4 * i;
        ret->dims[i] = (uint64_t)d[0] << 24 | (uint64_t)d[1] << 16 | (uint64_t)d[2] << 8 | d[3];
        if (i)
            over = over || rfi_mul_over(ret->record_bytes, ret->dims[i], &ret->record_bytes);
    }
    over = over || rfi_mul_over(ret->record_bytes, ret->dims[0], &total) || rfi_add_over(total, ret->data_offset, &end);
    if (over || end > file_bytes)
        return rfi_fail(err, EBADMSG,
                        "%s: truncated: its header claims more data than its %llu bytes hold. Get it again", path,
                        (unsigned long long)file_bytes);
    if (end < file_bytes)
        return rfi_fail(err, EINVAL, "%s: %llu bytes follow the data that its header describes. Get it again", path,
                        (unsigned long long)(file_bytes - end));
    return 0;
}
