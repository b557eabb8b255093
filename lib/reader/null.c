/* The null engine: every read is complete at once and no byte is moved, so that the rest of ringfeed
 * can be measured by itself. */
#include "reader/done.h"

static void null_queue(struct rfi_reader *r, const struct rfi_read *read)
{
    rfi_done_push(r, read->tag, (int32_t)read->bytes);
}

static uint32_t null_at_once(struct rfi_reader *r, const struct rfi_read *reads, uint32_t n, int32_t *results)
{
    (void)r;
    (void)reads;
    (void)n;
    (void)results;
    return 0;
}

const struct rfi_reader_ops rfi_reader_null = {
    .name = "null",
    .open = rfi_done_open,
    .at_once = null_at_once,
    .queue = null_queue,
    .submit = rfi_done_submit,
    .reap = rfi_done_reap,
    .drain = rfi_done_drain,
    .drain_fd = rfi_done_drain_fd,
    .abandon = rfi_done_close,
    .close = rfi_done_close,
};
