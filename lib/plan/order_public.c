/* rf_order_*: the public face of the order layer. Here because it joins a dataset to an order, which
 * are siblings that do not know each other. */
#include "dataset/dataset.h"
#include "order/order.h"
#include "plan/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct rf_order {
    struct rfi_order *order;
    struct rfi_view *view;
    struct rfi_error error;
};

void rf_order_options_init(rf_order_options *o)
{
    *o = (rf_order_options){.size = sizeof *o, .world_size = 1, .batch = 1};
}

int rf_order_validate(const rf_order_options *o)
{
    return rfi_order_validate(o, rfi_thread_error());
}

static int open_order(rf_order *order, const rf_order_options *o, rf_dataset *d, struct rfi_error *err)
{
    struct rfi_order_source source = {.mean_bytes = 1};
    int rc = rfi_order_validate(o, err);
    if (rc < 0)
        return rc;
    if (d && o->samples)
        return rfi_fail(err, EINVAL,
                        "samples: a dataset was given too. Give a dataset or a number of samples, not both");
    if (d)
        rfi_order_source_of(rfi_dataset_of(d), &source);
    else
        source.samples = o->samples;
    rc = rfi_order_create(o, &source, NULL, &order->order, err);
    return rc == 0 ? rfi_view_create(order->order, &order->view, err) : rc;
}

int rf_order_open(const rf_order_options *o, rf_dataset *d, rf_order **ret)
{
    struct rfi_error *err = rfi_thread_error();
    if (!ret)
        return rfi_fail(err, EINVAL, "rf_order_open: no place for the handle. Pass a pointer to one");
    rf_order *order = calloc(1, sizeof *order);
    if (!order)
        return rfi_fail(err, ENOMEM, "order: no memory");
    int rc = open_order(order, o, d, err);
    if (rc < 0) {
        rf_order_close(order);
        return rc;
    }
    *ret = order;
    return RF_OK;
}

void rf_order_close(rf_order *o)
{
    if (!o)
        return;
    rfi_view_destroy(o->view);
    rfi_order_destroy(o->order);
    free(o);
}

uint64_t rf_order_samples(const rf_order *o)
{
    return rfi_order_samples(o->order);
}

uint64_t rf_order_rank_samples(const rf_order *o, uint32_t rank)
{
    return rfi_order_rank_samples(o->order, rank);
}

uint64_t rf_order_len(const rf_order *o, uint32_t rank)
{
    return rfi_order_len(o->order, rank);
}

static int check_rank(rf_order *o, uint32_t rank, const uint64_t *ids)
{
    uint32_t world = rfi_order_world_size(o->order);
    if (rank >= world)
        return rfi_fail(&o->error, ERANGE, "rank %" PRIu32 ": there are ranks 0 to %" PRIu32 ". Ask for one of these",
                        rank, world - 1);
    if (!ids)
        return rfi_fail(&o->error, EINVAL, "ids: a null pointer. Pass an array for the indices");
    return 0;
}

int64_t rf_order_batch(rf_order *o, uint64_t epoch, uint32_t rank, uint64_t batch, uint64_t *ids, uint8_t *flags)
{
    int rc = check_rank(o, rank, ids);
    if (rc < 0)
        return rc;
    rfi_view_seek(o->view, epoch, rank);
    return (int64_t)rfi_view_batch(o->view, batch, ids, flags);
}

int64_t rf_order_fill(rf_order *o, uint64_t epoch, uint32_t rank, uint64_t from, uint64_t count, uint64_t *ids)
{
    int rc = check_rank(o, rank, ids);
    if (rc < 0)
        return rc;
    rfi_view_seek(o->view, epoch, rank);
    return (int64_t)rfi_view_fill(o->view, from, count, ids);
}

int rf_order_locate(rf_order *o, uint64_t epoch, uint64_t index, uint32_t *ret_rank, uint64_t *ret_position)
{
    if (!ret_rank || !ret_position)
        return rfi_fail(&o->error, EINVAL, "rf_order_locate: a null pointer. Pass a place for rank and position");
    if (rfi_view_locate(o->view, epoch, index, ret_rank, ret_position) == 0)
        return RF_OK;
    return rfi_fail(&o->error, ENOENT,
                    "sample %" PRIu64 ": in no rank's sequence (of %" PRIu64 " samples). Check the subset, "
                    "the split or the ranges",
                    index, rfi_order_samples(o->order));
}

const char *rf_order_error(const rf_order *o)
{
    return o->error.text;
}
