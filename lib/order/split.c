/* Parsing of splits and their members. */
#include "order/split.h"

#include "order/permutation.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64, DIGITS = 18 };

/* A decimal in [0, 1] with at most 18 digits behind the point, in units of RFI_SPLIT_ONE. */
static bool parse_fraction(const char *p, size_t bytes, uint64_t *ret)
{
    const char *end = p + bytes;
    uint64_t value = 0, unit = RFI_SPLIT_ONE;
    bool any = false;
    for (; p < end && *p >= '0' && *p <= '9'; p++, any = true) {
        value = value * 10 + (uint64_t)(*p - '0');
        if (value > 1)
            return false;
    }
    value *= RFI_SPLIT_ONE;
    if (p < end && *p == '.') {
        for (p++; p < end && *p >= '0' && *p <= '9'; p++, any = true) {
            unit /= 10;
            if (unit == 0)
                return false;
            value += (uint64_t)(*p - '0') * unit;
        }
    }
    *ret = value;
    return any && p == end && value <= RFI_SPLIT_ONE;
}

static bool same_name(const char *a, size_t a_bytes, const char *b)
{
    return strlen(b) == a_bytes && memcmp(a, b, a_bytes) == 0;
}

/* True when a part before `item` has the same name. */
static bool named_before(const char *text, const char *item, size_t name_bytes)
{
    while (text < item) {
        size_t n = strcspn(text, ":,");
        if (n == name_bytes && memcmp(text, item, n) == 0)
            return true;
        text += strcspn(text, ",");
        text += *text == ',';
    }
    return false;
}

static int check_sum(uint64_t sum, struct rfi_error *err)
{
    if (sum == RFI_SPLIT_ONE)
        return 0;
    return rfi_fail(err, EINVAL,
                    "--split: the fractions add up to %" PRIu64 ".%06" PRIu64
                    ", not 1. Change them, or add a split for "
                    "what is left, as in train:0.9,val:0.05,rest:0.05",
                    sum / RFI_SPLIT_ONE, sum % RFI_SPLIT_ONE / (RFI_SPLIT_ONE / 1000000));
}

static int parse_part(const char *text, const char *item, uint64_t *sum, uint64_t *ret_fraction, struct rfi_error *err)
{
    size_t bytes = strcspn(item, ","), name = strcspn(item, ":,");
    int shown = (int)(bytes < 60 ? bytes : 60);
    if (name == 0 || name > NAME_MAX_BYTES || name == bytes ||
        !parse_fraction(item + name + 1, bytes - name - 1, ret_fraction))
        return rfi_fail(
            err, EINVAL,
            "--split: \"%.*s\" is not NAME:FRACTION with a decimal fraction between 0 and 1. Write it as in "
            "train:0.9,val:0.1",
            shown, item);
    if (named_before(text, item, name))
        return rfi_fail(err, EINVAL, "--split: the name \"%.*s\" comes twice. Give each split its own", (int)name,
                        item);
    if (*ret_fraction > 2 * RFI_SPLIT_ONE - *sum)
        return rfi_fail(err, EINVAL, "--split: the fractions up to \"%.*s\" add up to more than 2, not 1. Change them",
                        shown, item);
    *sum += *ret_fraction;
    return 0;
}

int rfi_split_parse(const char *text, const char *use, struct rfi_split *ret, struct rfi_error *err)
{
    uint64_t sum = 0, fraction = 0;
    bool found = false;
    for (const char *item = text;; item++) {
        int rc = parse_part(text, item, &sum, &fraction, err);
        if (rc < 0)
            return rc;
        if (same_name(item, strcspn(item, ":"), use)) {
            *ret = (struct rfi_split){.begin = sum - fraction, .end = sum};
            found = true;
        }
        item += strcspn(item, ",");
        if (!*item)
            break;
    }
    if (check_sum(sum, err) < 0)
        return -EINVAL;
    if (!found)
        return rfi_fail(err, EINVAL, "--use %.64s: --split has no split of that name. Use one of \"%.200s\"", use,
                        text);
    return 0;
}

/* round(n * fraction), in integers. */
static uint64_t cut(uint64_t n, uint64_t cumulative)
{
    unsigned __int128 twice = (unsigned __int128)cumulative * n * 2;
    return (uint64_t)((twice + RFI_SPLIT_ONE) / (2 * (unsigned __int128)RFI_SPLIT_ONE));
}

uint64_t rfi_split_count(const struct rfi_split *s, uint64_t n)
{
    return cut(n, s->end) - cut(n, s->begin);
}

int rfi_split_members(const struct rfi_split *s, uint64_t n, uint32_t *members, struct rfi_error *err)
{
    uint64_t begin = cut(n, s->begin), end = cut(n, s->end), used = 0;
    size_t entries = rfi_permutation_storage(n);
    uint16_t *storage = entries ? malloc(entries * sizeof *storage) : NULL;
    if (entries && !storage)
        return rfi_fail(err, ENOMEM, "--split: no memory for a table of %" PRIu64 " samples", n);
    struct rfi_permutation p;
    rfi_permutation_init(&p, n, rfi_key_make(0, 0, RFI_KEY_SPLIT, RFI_KEY_GLOBAL, 0), storage);
    for (uint64_t x = 0; x < n; x++) {
        uint64_t at = rfi_permutation_inverse(&p, x);
        if (at >= begin && at < end)
            members[used++] = (uint32_t)x;
    }
    free(storage);
    return 0;
}
