/* The inside of a past and of moved batches. */
#pragma once

#include "order/order_private.h"
#include "order/past.h"

/* Positions [from, from + n) of a rank's sequence in one epoch of the stage before: elements [at, at + n) of
 * what is left. */
struct rfi_rest_span {
    uint64_t at, from, n;
    uint32_t rank;
};

/* What is left of one epoch. */
struct rfi_rest {
    uint64_t samples;
    struct rfi_rest_span *spans; /* ascending by `at` */
    uint64_t n_spans, cap_spans;
};

struct rfi_past {
    struct rfi_order *before; /* owned */
    uint64_t first, n; /* unfinished epochs */
    struct rfi_rest rests[RFI_UNFINISHED_MAX];
};

/* Batches [first, first + n) of a rank's own epoch. */
struct rfi_piece {
    uint32_t rank;
    uint64_t first, n;
};

/* What one rank has in an epoch after moves. */
struct rfi_list {
    uint32_t rank;
    uint64_t batches;
    struct rfi_piece *pieces;
    uint32_t n, cap;
};

/* The lists of all ranks that a log names for one epoch. */
struct rfi_lists {
    struct rfi_list *lists;
    uint32_t n, cap;
};

/* Replays the log's entries for `epoch`. -ENOMEM, -EINVAL. */
int rfi_lists_replay(struct rfi_lists *l, const struct rfi_order *o, uint64_t epoch, const struct rfi_move *log,
                     uint64_t n, struct rfi_error *err);
void rfi_lists_fini(struct rfi_lists *l);
/* NULL: the rank has its own batches and no others. */
const struct rfi_list *rfi_lists_find(const struct rfi_lists *l, uint32_t rank);

/* NULL: a plain epoch. */
const struct rfi_rest *rfi_order_rest(const struct rfi_order *o, uint64_t epoch);

void rfi_past_destroy(struct rfi_past *p);
