/* Labels as codes: base and width so that ten million class labels cost one or two bytes each. */
#include "dataset/build_internal.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const int64_t *values(const struct rfi_build *b)
{
    return (const int64_t *)(const void *)b->labels.data;
}

static bool range(const struct rfi_build *b, int64_t *ret_min, int64_t *ret_max)
{
    bool any = false;
    for (uint64_t i = 0; i < b->n_labels; i++) {
        int64_t v = values(b)[i];
        if (rfi_build_is_unlabeled(b, i))
            continue;
        *ret_min = any && *ret_min < v ? *ret_min : v;
        *ret_max = any && *ret_max > v ? *ret_max : v;
        any = true;
    }
    return any;
}

static int compare(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return a < b ? -1 : a > b;
}

static int distinct_by_sort(const struct rfi_build *b, uint64_t *ret)
{
    uint64_t n = 0, labeled = b->n_labels - b->n_unlabeled;
    int64_t *copy = malloc(labeled * sizeof *copy);
    if (!copy)
        return -ENOMEM;
    for (uint64_t i = 0; i < b->n_labels; i++)
        if (!rfi_build_is_unlabeled(b, i))
            copy[n++] = values(b)[i];
    qsort(copy, n, sizeof *copy, compare);
    *ret = 0;
    for (uint64_t i = 0; i < n; i++)
        *ret += i == 0 || copy[i] != copy[i - 1];
    free(copy);
    return 0;
}

/* `span` = max - min: one bit for each possible label. */
static int distinct_by_bits(const struct rfi_build *b, int64_t base, uint64_t span, uint64_t *ret)
{
    uint64_t *bits = calloc(span / 64 + 1, 8);
    if (!bits)
        return -ENOMEM;
    *ret = 0;
    for (uint64_t i = 0; i < b->n_labels; i++) {
        uint64_t code = (uint64_t)values(b)[i] - (uint64_t)base;
        if (rfi_build_is_unlabeled(b, i))
            continue;
        *ret += !(bits[code / 64] >> (code % 64) & 1);
        bits[code / 64] |= UINT64_C(1) << (code % 64);
    }
    free(bits);
    return 0;
}

int rfi_build_measure_labels(struct rfi_build *b, struct rfi_error *err)
{
    int64_t min = 0, max = 0;
    if (!range(b, &min, &max)) { /* no sample has one: the dataset has no labels */
        rfi_build_drop_labels(b);
        return 0;
    }
    uint64_t span = (uint64_t)max - (uint64_t)min, top = b->n_unlabeled ? span : span - (span != 0);
    if (b->n_unlabeled && span == UINT64_MAX)
        return rfi_fail(err, ERANGE, "%s: labels from %lld to %lld and samples without one. Use smaller labels",
                        b->root, (long long)min, (long long)max);
    b->h.label_base = min;
    b->h.unlabeled = b->n_unlabeled;
    b->h.label_width = top < UINT8_MAX ? 1 : top < UINT16_MAX ? 2 : top < UINT32_MAX ? 4 : 8;
    int rc =
        span / 64 < b->n_labels ? distinct_by_bits(b, min, span, &b->h.classes) : distinct_by_sort(b, &b->h.classes);
    return rc < 0 ? rfi_build_no_memory(b, err) : 0;
}

void rfi_build_encode_labels(const struct rfi_build *b, void *codes)
{
    for (uint64_t i = 0; i < b->n_labels; i++) {
        uint64_t code = (uint64_t)values(b)[i] - (uint64_t)b->h.label_base;
        if (rfi_build_is_unlabeled(b, i))
            code = UINT64_MAX;
        if (b->h.label_width == 1)
            ((uint8_t *)codes)[i] = (uint8_t)code;
        else if (b->h.label_width == 2)
            ((uint16_t *)codes)[i] = (uint16_t)code;
        else if (b->h.label_width == 4)
            ((uint32_t *)codes)[i] = (uint32_t)code;
        else
            ((uint64_t *)codes)[i] = code;
    }
}
