/* What the tests of the order share: an order and a view from options, or the text of its refusal. */
#pragma once

#include "order/order.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct rfi_order *order;
    struct rfi_view *view;
};

static inline rf_order_options some_options(uint32_t world_size)
{
    return (rf_order_options){.size = sizeof(rf_order_options), .world_size = world_size, .batch = 1};
}

static inline struct fixture open_fixture(const rf_order_options *o, const struct rfi_order_source *source)
{
    struct fixture f;
    struct rfi_error err = {0};
    cr_assert_eq(rfi_order_create(o, source, NULL, &f.order, &err), 0, "%s", err.text);
    cr_assert_eq(rfi_view_create(f.order, &f.view, &err), 0, "%s", err.text);
    return f;
}

static inline void close_fixture(struct fixture *f)
{
    rfi_view_destroy(f->view);
    rfi_order_destroy(f->order);
}

/* The sequence of a rank in epoch 0, malloced. */
static inline uint64_t *sequence_of(struct fixture *f, uint32_t rank, uint64_t *ret_n)
{
    uint64_t n = rfi_order_rank_samples(f->order, rank);
    uint64_t *ids = malloc((n + 1) * sizeof *ids);
    rfi_view_seek(f->view, 0, rank);
    *ret_n = rfi_view_fill(f->view, 0, n + 1, ids);
    cr_assert_eq(*ret_n, n);
    return ids;
}

/* Creation must fail with this errno and a text that has all of the words. */
static inline void refused(const rf_order_options *o, const struct rfi_order_source *source, int code,
                           const char *word1, const char *word2)
{
    struct rfi_order *order = NULL;
    struct rfi_error err = {0};
    int rc = rfi_order_create(o, source, NULL, &order, &err);
    cr_assert_eq(rc, -code, "gave %d (%s), not %d", rc, err.text, -code);
    cr_assert_eq(err.code, -code);
    cr_assert(strstr(err.text, word1), "\"%s\" is not in: %s", word1, err.text);
    cr_assert(strstr(err.text, word2), "\"%s\" is not in: %s", word2, err.text);
    cr_assert_null(order);
}
