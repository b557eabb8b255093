/* Opening an io_uring with queues of a chosen size: tests use it to make the completion queue
 * overflow, which rfi_reader_uring.open() rules out by its sizes. */
#pragma once

#include "reader/reader.h"

/* `sq` and `cq` entries, rounded up to powers of two by the kernel; cq >= sq. */
int rfi_uring_open_sized(struct rfi_reader *r, uint32_t depth, uint32_t sq, uint32_t cq, struct rfi_error *err);

/* Shows the queued entries to the kernel without handing them over: the state of a worker that is killed
 * between the two. For tests. */
void rfi_uring_publish(struct rfi_reader *r);
