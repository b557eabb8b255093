/* A buffered view of a file for parsers that go forward: small reads cost no syscall each, and a jump
 * over a large piece does not read it. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct rfi_window {
    int fd;
    const char *path;
    uint64_t file_bytes;
    uint64_t at; /* file offset of buf[0] */
    size_t have;
    unsigned char *buf;
};

/* `fd` and `path` are borrowed. */
int rfi_window_open(struct rfi_window *w, int fd, const char *path, uint64_t file_bytes, struct rfi_error *err);
void rfi_window_close(struct rfi_window *w);

enum { RFI_WINDOW_BYTES = 128 << 10 };

/* `bytes` (at most RFI_WINDOW_BYTES) at `offset`; valid until the next call. -EBADMSG "truncated" when
 * the file ends before. */
int rfi_window_at(struct rfi_window *w, uint64_t offset, size_t bytes, const unsigned char **ret,
                  struct rfi_error *err);
