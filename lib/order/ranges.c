/* Parsing and checking of ranges. Every refusal names the range by its rank and its numbers. */
#include "order/ranges.h"

#include "order/numbers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int refuse_syntax(const char *item, uint32_t rank, struct rfi_error *err)
{
    size_t n = strcspn(item, ",");
    return rfi_fail(err, EINVAL,
                    "--ranges: the range of rank %" PRIu32 ", \"%.*s\", is not LO:HI in decimal. Write one LO:HI a "
                    "rank, separated by commas, as in 0:250,250:500",
                    rank, (int)(n < 40 ? n : 40), item);
}

static uint32_t count_items(const char *text)
{
    uint64_t n = *text != '\0';
    for (; *text; text++)
        n += *text == ',';
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static int parse_one(const char **text, uint32_t rank, struct rfi_range *ret, struct rfi_error *err)
{
    const char *item = *text;
    if (!rfi_read_u64(text, &ret->lo) || *(*text)++ != ':' || !rfi_read_u64(text, &ret->hi) ||
        (**text != ',' && **text != '\0'))
        return refuse_syntax(item, rank, err);
    if (**text == ',')
        (*text)++;
    if (ret->hi < ret->lo)
        return rfi_fail(err, EINVAL,
                        "--ranges: the range of rank %" PRIu32 ", %" PRIu64 ":%" PRIu64 ", ends before it begins. Give "
                        "LO:HI with LO <= HI; LO = HI is an empty range",
                        rank, ret->lo, ret->hi);
    return 0;
}

int rfi_ranges_parse(const char *text, uint32_t n, struct rfi_range **ret, struct rfi_error *err)
{
    uint32_t n_items = count_items(text);
    if (n_items != n)
        return rfi_fail(err, EINVAL,
                        "--ranges: %" PRIu32 " range%s for a world size of %" PRIu32 ". Give exactly one range a rank",
                        n_items, n_items == 1 ? "" : "s", n);
    struct rfi_range *ranges = calloc(n ? n : 1, sizeof *ranges);
    if (!ranges)
        return rfi_fail(err, ENOMEM, "--ranges: no memory for %" PRIu32 " ranges", n);
    for (uint32_t rank = 0; rank < n; rank++) {
        int rc = parse_one(&text, rank, &ranges[rank], err);
        if (rc < 0) {
            free(ranges);
            return rc;
        }
    }
    *ret = ranges;
    return 0;
}

struct ranked {
    struct rfi_range range;
    uint32_t rank;
};

static int by_start(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->range.lo != y->range.lo)
        return x->range.lo < y->range.lo ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* The ranges that hold samples, sorted by start; NULL without memory. */
static struct ranked *sorted(const struct rfi_range *ranges, uint32_t n, uint32_t *ret_n)
{
    struct ranked *list = calloc(n ? n : 1, sizeof *list);
    uint32_t used = 0;
    if (!list)
        return NULL;
    for (uint32_t rank = 0; rank < n; rank++)
        if (ranges[rank].lo < ranges[rank].hi)
            list[used++] = (struct ranked){ranges[rank], rank};
    qsort(list, used, sizeof *list, by_start);
    *ret_n = used;
    return list;
}

int rfi_ranges_check_overlap(const struct rfi_range *ranges, uint32_t n, int allow_overlap, struct rfi_error *err)
{
    uint32_t used = 0;
    if (allow_overlap)
        return 0;
    struct ranked *list = sorted(ranges, n, &used);
    if (!list)
        return rfi_fail(err, ENOMEM, "--ranges: no memory to check %" PRIu32 " ranges", n);
    int rc = 0;
    for (uint32_t i = 1; i < used && rc == 0; i++) {
        const struct ranked *a = &list[i - 1], *b = &list[i];
        if (b->range.lo < a->range.hi)
            rc = rfi_fail(err, EINVAL,
                          "--ranges: %" PRIu64 ":%" PRIu64 " of rank %" PRIu32 " overlaps %" PRIu64 ":%" PRIu64
                          " of rank %" PRIu32 ". Make them disjoint, or pass --allow-overlap to deliver the shared "
                          "samples more than once",
                          b->range.lo, b->range.hi, b->rank, a->range.lo, a->range.hi, a->rank);
    }
    free(list);
    return rc;
}

static int refuse_gap(uint64_t lo, uint64_t hi, struct rfi_error *err)
{
    return rfi_fail(err, EINVAL,
                    "--ranges: samples %" PRIu64 ":%" PRIu64 " are in no rank's range. Extend a neighbouring range, or "
                    "pass --allow-gaps to leave them out",
                    lo, hi);
}

int rfi_ranges_check_cover(const struct rfi_range *ranges, uint32_t n, uint64_t samples, int allow_gaps,
                           struct rfi_error *err)
{
    for (uint32_t rank = 0; rank < n; rank++)
        if (ranges[rank].hi > samples)
            return rfi_fail(err, EINVAL,
                            "--ranges: %" PRIu64 ":%" PRIu64 " of rank %" PRIu32 " is out of bounds: there are %" PRIu64
                            " samples. End it at %" PRIu64 " or before",
                            ranges[rank].lo, ranges[rank].hi, rank, samples, samples);
    if (allow_gaps)
        return 0;
    uint32_t used = 0;
    struct ranked *list = sorted(ranges, n, &used);
    if (!list)
        return rfi_fail(err, ENOMEM, "--ranges: no memory to check %" PRIu32 " ranges", n);
    uint64_t covered = 0;
    int rc = 0;
    for (uint32_t i = 0; i < used && rc == 0; i++) {
        if (list[i].range.lo > covered)
            rc = refuse_gap(covered, list[i].range.lo, err);
        else if (list[i].range.hi > covered)
            covered = list[i].range.hi;
    }
    if (rc == 0 && covered < samples)
        rc = refuse_gap(covered, samples, err);
    free(list);
    return rc;
}
