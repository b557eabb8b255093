/* Which samples each rank gets, and in which sequence: pure functions, no I/O (but for a subset file
 * read at creation), no clock, no globals. The only memory is the membership table of the
 * strategies that need one (4 bytes a sample), which the caller may place in the segment.
 *
 * Must not know: files, rings, processes. The dataset comes as a few callbacks. */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

struct rfi_order_source {
    uint64_t samples;
    uint64_t mean_bytes; /* for the default block size; at least 1 */
    void *ctx;
    /* May be NULL when there are none. label: true and *ret. key: NULL when absent. */
    _Bool (*label)(void *ctx, uint64_t i, int64_t *ret);
    const char *(*key)(void *ctx, uint64_t i, size_t *ret_bytes);
    /* Room at the `table` that rfi_order_create is given, as rfi_order_table_bytes said: a --subset file
     * that grew in between is refused (-ESTALE) instead of written past the end. 0: not checked. */
    uint64_t table_bytes;
};

struct rfi_order;

/* Checks the options by themselves, without a dataset. -EINVAL names the option. */
int rfi_order_validate(const rf_order_options *o, struct rfi_error *err);

/* Bytes of membership table that these options need over this source (0: none). Also validates. */
int rfi_order_table_bytes(const rf_order_options *o, const struct rfi_order_source *src, uint64_t *ret,
                          struct rfi_error *err);

/* `table` (of table_bytes, 64-byte aligned, or NULL: malloced) is filled here and must outlive the
 * order. Options and source are copied; the callbacks are not used after creation. */
int rfi_order_create(const rf_order_options *o, const struct rfi_order_source *src, void *table, struct rfi_order **ret,
                     struct rfi_error *err);
void rfi_order_destroy(struct rfi_order *o);

/* Copies the table (created with NULL) to `table`, of table_bytes, and uses it from there: for a caller that
 * needs to know the order before it can make the place. Existing views must not be used any more. */
void rfi_order_move_table(struct rfi_order *o, void *table);

uint64_t rfi_order_samples(const struct rfi_order *o);
uint64_t rfi_order_batch_samples(const struct rfi_order *o); /* B */
/* Whether samples may come several times an epoch, because a list said so. */
bool rfi_order_is_sequence(const struct rfi_order *o);
uint64_t rfi_order_window_samples(const struct rfi_order *o); /* of a window of blocks */
uint64_t rfi_order_block_samples(const struct rfi_order *o); /* of a block */
uint32_t rfi_order_world_size(const struct rfi_order *o);
uint64_t rfi_order_rank_samples(const struct rfi_order *o, uint32_t rank);
uint64_t rfi_order_len(const struct rfi_order *o, uint32_t rank); /* batches an epoch */

/* One (epoch, rank) of the order with its permutation keys and small tables: reusable, private to
 * one thread. Moving it to another epoch or rank costs what building the tables costs (at most
 * 65,536 entries each); moving it to where it stands costs nothing. */
struct rfi_view;

int rfi_view_create(const struct rfi_order *o, struct rfi_view **ret, struct rfi_error *err);
void rfi_view_destroy(struct rfi_view *v);
void rfi_view_seek(struct rfi_view *v, uint64_t epoch, uint32_t rank);

/* Ids of positions [from, from+count) of the rank's sequence (before the tail rule); returns how
 * many there are. */
uint64_t rfi_view_fill(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids);

/* The same under the tail rule: positions [from, from+count) of the rank's epoch with fillers (flagged;
 * `flags` may be NULL) under pad, without the dropped ones under drop. Batch b is the positions from
 * b * B on; this serves batches too large to be held at once. */
uint64_t rfi_view_fill_tail(struct rfi_view *v, uint64_t from, uint64_t count, uint64_t *ids, uint8_t *flags);

/* Batch `batch` under the tail rule into ids[B] and flags[B] (flags may be NULL); returns the count,
 * 0 past the end. */
uint64_t rfi_view_batch(struct rfi_view *v, uint64_t batch, uint64_t *ids, uint8_t *flags);

/* Its count alone, which costs nothing. */
uint64_t rfi_view_batch_size(const struct rfi_view *v, uint64_t batch);

/* Batches from `batch` to the end of its window of blocks, itself included; where there are no windows, to the end of
 * the epoch. */
uint64_t rfi_view_window_left(const struct rfi_view *v, uint64_t batch);

/* Samples [from, from + count) of it, for batches too large to be held; returns how many there are. */
uint64_t rfi_view_batch_part(struct rfi_view *v, uint64_t batch, uint64_t from, uint64_t count, uint64_t *ids,
                             uint8_t *flags);

/* Inverse of the epoch order: 0, or -ENOENT when `index` is in no rank's sequence. Moves the view. */
int rfi_view_locate(struct rfi_view *v, uint64_t epoch, uint64_t index, uint32_t *ret_rank, uint64_t *ret_position);
