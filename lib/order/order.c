/* Creation of an order, and what is the same in every epoch: how many samples and batches each rank
 * has. */
#include "order/order.h"

#include "base/bytes.h"
#include "order/classes.h"
#include "order/membership.h"
#include "order/order_private.h"
#include "order/past_private.h"
#include "order/subset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_WINDOW_BLOCKS = 16 };
#define DEFAULT_BLOCK_BYTES ((uint64_t)4 << 20)

static bool needs_grouping(const rf_order_options *o)
{
    rf_strategy s = o->strategy == RF_ADAPTIVE ? o->base : o->strategy;
    return s == RF_HASH || s == RF_STRATIFIED;
}

static int check_source(const rf_order_options *o, const struct rfi_order_source *src, struct rfi_error *err)
{
    int rc = rfi_order_validate(o, err);
    if (rc < 0)
        return rc;
    if (src->samples > (uint64_t)1 << 63)
        return rfi_fail(err, EINVAL, "dataset: %" PRIu64 " samples are more than can be ordered. Use fewer",
                        src->samples);
    if (needs_grouping(o) && src->samples > (uint64_t)UINT32_MAX + 1)
        return rfi_fail(err, EINVAL,
                        "--strategy %s: %" PRIu64
                        " samples, but its table holds indices up to 4294967295. Use round-robin, "
                        "contiguous or range, which need no table",
                        o->strategy == RF_STRATIFIED || o->base == RF_STRATIFIED ? "stratified" : "hash", src->samples);
    return 0;
}

/* Adaptive deals as its base does; what is moved later stands in the log. */
static rf_order_options dealt_as(const rf_order_options *o)
{
    rf_order_options plain = *o;
    if (plain.strategy == RF_ADAPTIVE)
        plain.strategy = plain.base;
    return plain;
}

int rfi_order_table_bytes(const rf_order_options *given, const struct rfi_order_source *src, uint64_t *ret,
                          struct rfi_error *err)
{
    struct rfi_subset subset;
    int rc = check_source(given, src, err);
    if (rc < 0)
        return rc;
    rf_order_options plain = dealt_as(given), *o = &plain;
    rc = rfi_subset_load(o, src->samples, false, &subset, err);
    if (rc == 0)
        *ret = needs_grouping(o) || subset.listed ? subset.n * sizeof(uint32_t) : 0;
    return rc;
}

static int check_classes(const rf_order_options *o, const struct rfi_order_source *src, struct rfi_error *err)
{
    struct rfi_classes classes;
    int64_t label;
    int rc = 0;
    if (o->classes == 0)
        return 0;
    rfi_classes_init(&classes);
    for (uint64_t i = 0; src->label && i < src->samples && rc == 0; i++)
        if (src->label(src->ctx, i, &label))
            rc = rfi_classes_count(&classes, label, err);
    if (rc == 0 && classes.n != o->classes)
        rc = rfi_fail(err, EINVAL,
                      "--classes %" PRIu64 ": the samples have %" PRIu64
                      " distinct labels. Check --labels and the dataset, or "
                      "leave --classes out",
                      o->classes, classes.n);
    rfi_classes_fini(&classes);
    return rc;
}

/* Where the table lies: the caller's memory, which must be large enough, or our own. */
static int place_table(struct rfi_order *order, uint64_t n, void *table, uint64_t room, uint32_t **ret,
                       struct rfi_error *err)
{
    if (table && room && room < n * sizeof(uint32_t))
        return rfi_fail(err, ESTALE,
                        "--subset: the list grew to %" PRIu64 " indices while the run was starting. Start again", n);
    if (!table) {
        table = order->own_table = aligned_alloc(64, rfi_align_up((n ? n : 1) * sizeof(uint32_t), 64));
        if (!table)
            return rfi_fail(err, ENOMEM, "order: no memory for a table of %" PRIu64 " indices", n);
    }
    *ret = table;
    order->table = table;
    return 0;
}

static int make_table(struct rfi_order *order, const rf_order_options *o, const struct rfi_order_source *src,
                      const struct rfi_subset *subset, void *place, struct rfi_error *err)
{
    uint32_t *table = NULL;
    if (!needs_grouping(o) && !subset->listed) {
        order->offset = subset->offset;
        return 0;
    }
    int rc = place_table(order, subset->n, place, src->table_bytes, &table, err);
    if (rc < 0)
        return rc;
    if (!needs_grouping(o)) {
        if (subset->n)
            memcpy(table, subset->table, subset->n * sizeof *table);
        return 0;
    }
    order->grouped = true;
    order->starts = calloc((size_t)order->world_size + 1, sizeof *order->starts);
    if (!order->starts)
        return rfi_fail(err, ENOMEM, "order: no memory for %" PRIu32 " ranks", order->world_size);
    if (o->strategy == RF_HASH)
        return rfi_membership_hash(o, src, subset, table, order->starts, err);
    return rfi_membership_stratified(o, src, subset, table, order->starts, err);
}

static int make_ranges(struct rfi_order *order, const rf_order_options *o, struct rfi_error *err)
{
    uint32_t w = order->world_size;
    if (order->strategy != RF_RANGE)
        return 0;
    int rc = rfi_ranges_parse(o->ranges, w, &order->ranges, err);
    if (rc == 0)
        rc = rfi_ranges_check_cover(order->ranges, w, order->samples, o->allow_gaps, err);
    if (rc < 0)
        return rc;
    order->starts = calloc((size_t)w + 1, sizeof *order->starts);
    if (!order->starts)
        return rfi_fail(err, ENOMEM, "--ranges: no memory for %" PRIu32 " ranks", w);
    for (uint32_t r = 0; r < w; r++)
        if (rfi_add_over(order->starts[r], order->ranges[r].hi - order->ranges[r].lo, &order->starts[r + 1]))
            return rfi_fail(err, EINVAL, "--ranges: together they have more than 2^64 samples. Let them overlap less");
    return 0;
}

static void sum_up(struct rfi_order *order)
{
    order->total = 0;
    order->min_rank = UINT64_MAX;
    order->max_rank = 0;
    for (uint32_t r = 0; r < order->world_size; r++) {
        uint64_t n = rfi_order_rank_samples(order, r);
        order->total += n;
        order->min_rank = rfi_min(order->min_rank, n);
        order->max_rank = rfi_max(order->max_rank, n);
    }
}

static void set_options(struct rfi_order *order, const rf_order_options *o, const struct rfi_order_source *src)
{
    uint64_t mean = rfi_max(src->mean_bytes, 1);
    uint64_t blocks = o->window_blocks ? o->window_blocks : DEFAULT_WINDOW_BLOCKS;
    order->dataset_samples = src->samples;
    order->world_size = o->world_size;
    order->batch = o->batch;
    order->strategy = o->strategy;
    order->shuffle = o->shuffle;
    order->tail = o->tail;
    order->seed = o->seed;
    order->repeat_order = o->repeat_order != 0;
    order->sequence = o->subset_sequence != 0;
    order->block = o->block_samples ? o->block_samples : rfi_max(DEFAULT_BLOCK_BYTES / mean, 1);
    if (rfi_mul_over(order->block, blocks, &order->window))
        order->window = UINT64_MAX; /* one window holds everything */
}

static int fill_order(struct rfi_order *order, const rf_order_options *o, const struct rfi_order_source *src,
                      void *table, struct rfi_error *err)
{
    struct rfi_subset subset;
    int rc = rfi_subset_load(o, src->samples, true, &subset, err);
    if (rc < 0)
        return rc;
    order->samples = subset.n;
    rc = make_table(order, o, src, &subset, table, err);
    rfi_subset_fini(&subset);
    if (rc == 0)
        rc = make_ranges(order, o, err);
    if (rc == 0)
        sum_up(order);
    return rc;
}

int rfi_order_create(const rf_order_options *given, const struct rfi_order_source *src, void *table,
                     struct rfi_order **ret, struct rfi_error *err)
{
    int rc = check_source(given, src, err);
    if (rc == 0)
        rc = check_classes(given, src, err);
    if (rc < 0)
        return rc;
    rf_order_options plain = dealt_as(given), *o = &plain;
    struct rfi_order *order = calloc(1, sizeof *order);
    if (!order)
        return rfi_fail(err, ENOMEM, "order: no memory");
    set_options(order, o, src);
    rc = fill_order(order, o, src, table, err);
    if (rc < 0) {
        rfi_order_destroy(order);
        return rc;
    }
    *ret = order;
    return 0;
}

void rfi_order_move_table(struct rfi_order *o, void *table)
{
    if (!o->own_table)
        return;
    memcpy(table, o->own_table, o->samples * sizeof *o->own_table);
    free(o->own_table);
    o->own_table = NULL;
    o->table = table;
}

void rfi_order_destroy(struct rfi_order *o)
{
    if (!o)
        return;
    rfi_past_destroy(o->past);
    free(o->own_table);
    free(o->ranges);
    free(o->starts);
    free(o);
}

uint64_t rfi_order_samples(const struct rfi_order *o)
{
    return o->samples;
}

uint64_t rfi_order_window_samples(const struct rfi_order *o)
{
    return o->window;
}

uint64_t rfi_order_block_samples(const struct rfi_order *o)
{
    return o->block;
}

bool rfi_order_is_sequence(const struct rfi_order *o)
{
    return o->sequence;
}

uint64_t rfi_order_batch_samples(const struct rfi_order *o)
{
    return o->batch;
}

uint32_t rfi_order_world_size(const struct rfi_order *o)
{
    return o->world_size;
}

uint64_t rfi_order_rank_samples(const struct rfi_order *o, uint32_t rank)
{
    if (rank >= o->world_size)
        return 0;
    if (o->starts)
        return o->starts[rank + 1] - o->starts[rank];
    return o->samples / o->world_size + (rank < o->samples % o->world_size);
}

uint64_t rfi_order_len(const struct rfi_order *o, uint32_t rank)
{
    if (rank >= o->world_size)
        return 0;
    if (o->tail == RF_TAIL_DROP)
        return o->min_rank / o->batch;
    return rfi_div_up(o->tail == RF_TAIL_PAD ? o->max_rank : rfi_order_rank_samples(o, rank), o->batch);
}
