/* How well an order mixes, before anybody trains with it. Everything is relative to a full shuffle, which is 1. */
#pragma once

#include "order/order.h"

#include <stdbool.h>

struct rfi_mixing {
    uint64_t batches, samples; /* that were looked at: all, or evenly spaced ones */
    uint32_t parts; /* equal stretches of the dataset, by index */
    /* What batches are made of: squared deviation of a part's share of a batch from its share of the whole, over that of
     * a draw without replacement (the hypergeometric distribution's variance). Batches of one part each: near the
     * batch's size. Below 1: more even than chance. Negative: it cannot be said (a single part or batch). */
    double by_part, by_class;
    /* Mean distance of a sample's place in its rank's epoch from its place in the dataset, as a part of the whole, over the
     * third that it is in a full shuffle. */
    double displacement;
    /* Mean distance in time, in places of a rank's epoch, of two samples that are neighbours in the dataset, over the third
     * of the epoch that it is in a full shuffle: how far apart neighbours come. */
    double neighbours;
};

/* Of the ranks [first, first + ranks) in one epoch. `labels` may be NULL. 0, or a negative errno. */
int rfi_mixing_measure(const struct rfi_order *o, const struct rfi_order_source *labels, uint64_t dataset_samples,
                       uint64_t epoch, uint32_t first, uint32_t ranks, struct rfi_mixing *ret, struct rfi_error *err);
