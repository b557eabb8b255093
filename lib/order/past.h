/* An order that goes on from an earlier one: what is left of the epochs that were unfinished when the world
 * size changed, and the batches that were moved between ranks since an epoch began.
 *
 * What is left of an epoch after an earlier stage is the concatenation, by rank, of what each rank had not
 * released, without padding; of W ranks now, rank r takes elements r, r + W, r + 2W, … of it. Later epochs
 * are plain. Stages form a chain (an order's past has an order, which may have a past); nothing is stored
 * but W positions and the moves, so seeking stays arithmetic: one search a stage.
 *
 * A move takes the last `count` batches of the donor's epoch, which has `cut` left, and appends them to the
 * recipient's. Entries of one epoch take effect in the order of the log; a batch keeps its content, and is
 * numbered on at its new place. */
#pragma once

#include "order/order.h"

#include <stdbool.h>

enum { RFI_STAGES_MAX = 16, RFI_UNFINISHED_MAX = 8 };

struct rfi_move {
    uint64_t epoch;
    uint32_t donor, recipient; /* global ranks */
    uint64_t cut, count;
};

/* Every batch before it was released. */
struct rfi_position {
    uint64_t epoch, batch;
};

/* `o` goes on where `before` stood: at[r] for each rank of `before`, whose epochs had these moves. Takes
 * `before` over, also on failure; copies the rest. -EINVAL: a position or a move that cannot be, or more than
 * RFI_UNFINISHED_MAX unfinished epochs. */
int rfi_order_continue(struct rfi_order *o, struct rfi_order *before, const struct rfi_position *at,
                       const struct rfi_move *moves, uint64_t n_moves, struct rfi_error *err);

/* Which moves the order has: `log` is read again by each seek, up to the length given there (it may be memory
 * that somebody appends to). rfi_view_seek uses the first n of it. */
void rfi_order_set_moves(struct rfi_order *o, const struct rfi_move *log, uint64_t n);

/* Epochs [*ret_first, *ret_first + *ret_n) are what earlier stages left; *ret_n 0: every epoch is plain. Epochs
 * before *ret_first are finished. */
void rfi_order_unfinished(const struct rfi_order *o, uint64_t *ret_first, uint64_t *ret_n);

/* As rfi_order_rank_samples and rfi_order_len, for one epoch, before moves. */
uint64_t rfi_order_rank_samples_in(const struct rfi_order *o, uint64_t epoch, uint32_t rank);
uint64_t rfi_order_len_in(const struct rfi_order *o, uint64_t epoch, uint32_t rank);

/* Batches of `rank` in `epoch` after the first n_moves entries of the log. */
uint64_t rfi_moves_len(const struct rfi_order *o, uint64_t epoch, uint32_t rank, const struct rfi_move *log,
                       uint64_t n_moves);

/* Checks that the log can be: ranks, and that each donor had what was taken. -EINVAL names the entry. */
int rfi_moves_check(const struct rfi_order *o, const struct rfi_move *log, uint64_t n, struct rfi_error *err);

/* Moves the view, with the first `n_moves` entries of the order's log in effect. -ENOMEM, or -EINVAL for a log
 * that cannot be. */
int rfi_view_seek_moved(struct rfi_view *v, uint64_t epoch, uint32_t rank, uint64_t n_moves, struct rfi_error *err);

/* Batches of the view's rank in its epoch, moves included. */
uint64_t rfi_view_len(const struct rfi_view *v);

/* Whether the view's rank has just its own batches: then positions are samples in one sequence, and
 * rfi_view_fill_tail serves them. */
bool rfi_view_is_own(const struct rfi_view *v);
