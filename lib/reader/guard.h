/* Copies out of mapped files that survive what happens to the file: a page behind a new end, or one that the device
 * cannot give, is a signal (SIGBUS) in the middle of memcpy. The handler goes back to the copy that was running when the
 * address lies in the source or the destination of that very copy, and passes everything else on to whoever had the
 * signal before. It is installed by the first guarded copy of a process: workers have it, nobody else does. */
#pragma once

#include "reader/reader.h"

/* Where a copy comes from, and instead of that what became of it. NULL: nothing is to be copied. */
extern const unsigned char rfi_copy_no_source[], rfi_copy_no_target[]; /* the one that could not be touched */

/* Copies reads[i].bytes from from[i] to reads[i].dest. Returns how many failed (their from[i] says why), or a negative
 * errno when the handler cannot be installed: then nothing was done. */
int rfi_guard_copy(const struct rfi_read *reads, const unsigned char **from, uint32_t n);
