/* Copies out of mapped files that survive what happens to the file: a page behind a new end, or one that the device
 * cannot give, is a signal (SIGBUS) in the middle of memcpy. The handler goes back to the copy that was running when the
 * address lies in the source or the destination of that very copy, and passes everything else on to whoever had the
 * signal before. It is installed by the first guarded copy of a process: workers have it, nobody else does. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct rfi_copy {
    const unsigned char *from; /* NULL: nothing is to be copied */
    unsigned char *to;
    uint32_t bytes;
    int32_t result; /* bytes, RFI_COPY_SOURCE or RFI_COPY_TARGET */
};

enum { RFI_COPY_SOURCE = -1, RFI_COPY_TARGET = -2 }; /* which of the two could not be touched */

/* Makes every copy of the list and sets its result. 0, or a negative errno when the handler cannot be installed. */
int rfi_guard_copy(struct rfi_copy *copies, uint32_t n);
