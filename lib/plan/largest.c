/* The bound of all batches' footprints, from which arenas are sized. Exact for fixed-size samples; for
 * others the B largest samples, each with the most that the layout rules can add to it:
 *   - a sample that begins a run rounded to A: less than 3A (A before, A on each side of the extent);
 *     there are at most as many of those as 16A goes into all bytes and gaps;
 *   - a sample that joins a run: the gap, at most RFI_JOIN_GAP;
 *   - a sample that begins a packed run: less than RFI_PACK_ALIGN, which is less than the gap. */
#include "plan/plan.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

/* The largest sizes seen, as a heap with the smallest of them on top. */
struct largest {
    uint64_t *sizes;
    uint64_t n, cap;
};

static void sift_down(struct largest *h, uint64_t i)
{
    uint64_t size = h->sizes[i];
    for (uint64_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->sizes[child + 1] < h->sizes[child])
            child++;
        if (h->sizes[child] >= size)
            break;
        h->sizes[i] = h->sizes[child];
    }
    h->sizes[i] = size;
}

static void sift_up(struct largest *h, uint64_t i)
{
    uint64_t size = h->sizes[i];
    for (; i > 0 && h->sizes[(i - 1) / 2] > size; i = (i - 1) / 2)
        h->sizes[i] = h->sizes[(i - 1) / 2];
    h->sizes[i] = size;
}

static void offer(struct largest *h, uint64_t size)
{
    if (h->n < h->cap) {
        h->sizes[h->n++] = size;
        sift_up(h, h->n - 1);
    } else if (size > h->sizes[0]) {
        h->sizes[0] = size;
        sift_down(h, 0);
    }
}

static int collect(const struct rfi_dataset *d, struct largest *h, struct rfi_error *err)
{
    uint64_t n = rfi_dataset_samples(d);
    for (uint64_t i = 0; i < n; i++) {
        struct rfi_extent e;
        int rc = rfi_dataset_extent(d, i, &e);
        if (rc < 0)
            return rfi_fail(
                err, -rc,
                "dataset: the entry of sample %llu is damaged (it points outside its file). Make the index again",
                (unsigned long long)i);
        offer(h, e.bytes);
    }
    return 0;
}

static int too_large(uint64_t batch, struct rfi_error *err)
{
    return rfi_fail(
        err, EOVERFLOW,
        "plan: a batch of %llu samples of this dataset can need more than 2^62 bytes. Use a smaller --batch",
        (unsigned long long)batch);
}

/* What the layout can add to `count` samples of `bytes` in all. */
static bool with_overhead(uint64_t bytes, uint64_t count, uint64_t align, uint64_t *ret)
{
    uint64_t gaps, total, blocks;
    uint64_t start = rfi_max(3 * align, RFI_JOIN_GAP);
    if (rfi_mul_over(count, RFI_JOIN_GAP, &gaps) || rfi_add_over(bytes, gaps, &total))
        return false;
    uint64_t rounded = rfi_min(count, total / (16 * align));
    return !rfi_mul_over(rounded, start - RFI_JOIN_GAP, &blocks) && !rfi_add_over(total, blocks, ret);
}

static int compare_down(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* `batch` samples out of the largest ones, each taken up to `repeats` times. */
static bool sum_largest(struct largest *h, uint64_t batch, uint64_t repeats, uint64_t *ret_bytes, uint64_t *ret_count)
{
    *ret_bytes = *ret_count = 0;
    if (repeats > 1 && h->n > 0)
        qsort(h->sizes, h->n, sizeof *h->sizes, compare_down);
    for (uint64_t i = 0; i < h->n && *ret_count < batch; i++) {
        uint64_t times = rfi_min(repeats, batch - *ret_count), bytes;
        if (rfi_mul_over(h->sizes[i], times, &bytes) || rfi_add_over(*ret_bytes, bytes, ret_bytes))
            return false;
        *ret_count += times;
    }
    return true;
}

static int largest_variable(const struct rfi_dataset *d, uint64_t align, uint64_t batch, uint64_t repeats,
                            uint64_t *ret, struct rfi_error *err)
{
    uint64_t cap = rfi_min(rfi_div_up(batch, repeats), rfi_dataset_samples(d));
    struct largest h = {.cap = cap};
    uint64_t bytes, count;
    if (cap <= SIZE_MAX / sizeof *h.sizes)
        h.sizes = malloc((cap ? cap : 1) * sizeof *h.sizes);
    if (!h.sizes)
        return rfi_fail(err, ENOMEM, "plan: no memory for the %llu largest samples. Use a smaller --batch",
                        (unsigned long long)cap);
    int rc = cap ? collect(d, &h, err) : 0;
    if (rc == 0 && (!sum_largest(&h, batch, repeats, &bytes, &count) || !with_overhead(bytes, count, align, ret)))
        rc = too_large(batch, err);
    free(h.sizes);
    return rc;
}

int rfi_plan_largest_repeated(const struct rfi_dataset *d, uint64_t align, uint64_t batch, uint64_t repeats,
                              uint64_t *ret, struct rfi_error *err)
{
    uint64_t fixed = rfi_dataset_fixed_bytes(d), n = rfi_dataset_samples(d), all, bytes = 0;
    if (rfi_mul_over(n, repeats, &all))
        all = UINT64_MAX;
    if (fixed) {
        if (rfi_mul_over(fixed, rfi_min(batch, all), &bytes))
            return too_large(batch, err);
    } else {
        int rc = largest_variable(d, align, batch, repeats, &bytes, err);
        if (rc < 0)
            return rc;
    }
    if (bytes >= (uint64_t)1 << 62)
        return too_large(batch, err);
    *ret = rfi_max(align, rfi_align_up(bytes, align));
    return 0;
}

int rfi_plan_largest(const struct rfi_dataset *d, uint64_t align, uint64_t batch, uint64_t *ret, struct rfi_error *err)
{
    return rfi_plan_largest_repeated(d, align, batch, 1, ret, err);
}
