/* Stratified membership: the samples sorted by class (stable) are dealt round the ranks like cards. A
 * class is a run of neighbouring cards, so each rank gets its share of it within one, and its share of
 * the whole within one. Sorting is counting: memory for the classes, not for the samples. */
#include "order/membership.h"
#include "order/order_private.h"

#include "order/classes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int label_of(const struct rfi_order_source *src, uint64_t index, int64_t *ret, struct rfi_error *err)
{
    if (src->label(src->ctx, index, ret))
        return 0;
    return rfi_fail(err, EINVAL,
                    "--strategy stratified: sample %" PRIu64 " has no label. Give every sample one (--labels FILE), or "
                    "leave it out with --subset",
                    index);
}

static int count(const struct rfi_order_source *src, const struct rfi_subset *subset, struct rfi_classes *classes,
                 struct rfi_error *err)
{
    for (uint64_t x = 0; x < subset->n; x++) {
        int64_t label;
        int rc = label_of(src, rfi_subset_member(subset, x), &label, err);
        if (rc == 0)
            rc = rfi_classes_count(classes, label, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* From here on `count` of a class is the place of its next sample in the sorted sequence. */
static void counts_to_places(struct rfi_classes *classes)
{
    uint64_t place = 0;
    rfi_classes_sort(classes);
    for (uint64_t c = 0; c < classes->n; c++) {
        uint64_t n = classes->list[c].count;
        classes->list[c].count = place;
        place += n;
    }
}

static int deal(const struct rfi_order_source *src, const struct rfi_subset *subset, uint32_t world_size,
                struct rfi_classes *classes, uint64_t *next, uint32_t *table, struct rfi_error *err)
{
    for (uint64_t x = 0; x < subset->n; x++) {
        uint64_t index = rfi_subset_member(subset, x);
        int64_t label;
        int rc = label_of(src, index, &label, err);
        if (rc < 0)
            return rc;
        uint64_t place = rfi_classes_find(classes, label)->count++;
        table[next[place % world_size]++] = (uint32_t)index;
    }
    return 0;
}

int rfi_membership_stratified(const rf_order_options *o, const struct rfi_order_source *src,
                              const struct rfi_subset *subset, uint32_t *table, uint64_t *starts, struct rfi_error *err)
{
    uint32_t w = o->world_size;
    struct rfi_classes classes;
    if (!src->label && subset->n)
        return rfi_fail(err, EINVAL,
                        "--strategy stratified: the samples have no labels. Give --labels FILE, or use another "
                        "strategy");
    uint64_t *next = malloc(w * sizeof *next);
    if (!next)
        return rfi_fail(err, ENOMEM, "--strategy stratified: no memory for %" PRIu32 " ranks", w);
    rfi_classes_init(&classes);
    int rc = count(src, subset, &classes, err);
    if (rc == 0) {
        counts_to_places(&classes);
        for (uint32_t r = 0; r <= w; r++)
            starts[r] = rfi_even_start(subset->n, w, r);
        for (uint32_t r = 0; r < w; r++)
            next[r] = starts[r];
        rc = deal(src, subset, w, &classes, next, table, err);
    }
    rfi_classes_fini(&classes);
    free(next);
    return rc;
}
