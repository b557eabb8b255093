/* The pread engine: for machines that forbid io_uring. Reads inside queue(), one call a read and at
 * most RFI_READ_MAX bytes, so that the worker can beat in between. */
#include "reader/done.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

static int32_t read_once(struct rfi_reader *r, const struct rfi_read *read)
{
    ssize_t n;
    if (read->offset > INT64_MAX)
        return -EINVAL;
    do {
        n = pread(read->fd, read->dest, read->bytes, (off_t)read->offset);
        r->submits++;
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n;
}

static void pread_queue(struct rfi_reader *r, const struct rfi_read *read)
{
    assert(read->bytes <= RFI_READ_MAX);
    rfi_done_push(r, read->tag, read_once(r, read));
}

const struct rfi_reader_ops rfi_reader_pread = {
    .name = "pread",
    .open = rfi_done_open,
    .queue = pread_queue,
    .submit = rfi_done_submit,
    .reap = rfi_done_reap,
    .drain = rfi_done_drain,
    .drain_fd = rfi_done_drain_fd,
    .abandon = rfi_done_close,
    .close = rfi_done_close,
};
