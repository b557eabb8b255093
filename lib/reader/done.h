/* Finished reads that wait to be reaped: the whole state of the engines that read (or pretend to)
 * inside queue(). A first-in first-out array of `depth` entries. */
#pragma once

#include "reader/reader.h"

/* State of a reader of a synchronous engine; 0 or -ENOMEM. */
int rfi_done_open(struct rfi_reader *r, uint32_t depth, struct rfi_error *err);
void rfi_done_push(struct rfi_reader *r, uint32_t tag, int32_t result);

/* The operations that both synchronous engines share. */
int rfi_done_submit(struct rfi_reader *r);
int rfi_done_reap(struct rfi_reader *r, struct rfi_completion *ret, uint32_t cap, uint64_t wait_ns);
int rfi_done_drain(struct rfi_reader *r, void (*seen)(void *ctx, uint32_t tag, int32_t result), void *ctx);
int rfi_done_drain_fd(const struct rfi_reader *r);
void rfi_done_close(struct rfi_reader *r);
