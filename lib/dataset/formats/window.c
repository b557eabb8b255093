/* See window.h. */
#include "dataset/formats/window.h"

#include "base/bytes.h"
#include "dataset/formats/format.h"

#include <errno.h>
#include <stdlib.h>

enum { JUMP_BYTES = 4096 }; /* read after a jump: about one header and what goes with it */

int rfi_window_open(struct rfi_window *w, int fd, const char *path, uint64_t file_bytes, struct rfi_error *err)
{
    *w = (struct rfi_window){.fd = fd, .path = path, .file_bytes = file_bytes, .buf = malloc(RFI_WINDOW_BYTES)};
    return w->buf ? 0 : rfi_fail(err, ENOMEM, "%s: out of memory. Free some", path);
}

void rfi_window_close(struct rfi_window *w)
{
    free(w->buf);
    w->buf = NULL;
}

int rfi_window_at(struct rfi_window *w, uint64_t offset, size_t bytes, const unsigned char **ret, struct rfi_error *err)
{
    uint64_t end;
    if (offset >= w->at && offset - w->at <= w->have && bytes <= w->have - (offset - w->at)) {
        *ret = w->buf + (offset - w->at);
        return 0;
    }
    if (rfi_add_over(offset, bytes, &end) || end > w->file_bytes)
        return rfi_fail(err, EBADMSG, "%s: truncated: %zu bytes at offset %llu are not all there. Get it again",
                        w->path, bytes, (unsigned long long)offset);
    /* going on from what was read: small pieces follow each other, read ahead; else a jump */
    bool near = offset >= w->at && offset - w->at <= w->have + JUMP_BYTES;
    uint64_t want = rfi_min(near ? RFI_WINDOW_BYTES : rfi_max(bytes, JUMP_BYTES), w->file_bytes - offset);
    w->have = 0;
    int rc = rfi_read_exact(w->fd, w->path, w->buf, (size_t)want, offset, err);
    if (rc < 0)
        return rc;
    w->at = offset;
    w->have = (size_t)want;
    *ret = w->buf;
    return 0;
}
