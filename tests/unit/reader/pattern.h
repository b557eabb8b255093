/* A file whose every byte is known by formula, so that what was read can be checked without reading
 * it in another way. Also the temporary folder of these tests: TMPDIR, /var/tmp or /tmp, whichever
 * takes O_DIRECT. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fills `n` bytes with what the file has at `offset`. */
void pattern_fill(unsigned char *buf, uint64_t offset, size_t n);
/* Whether `n` bytes are what the file has at `offset`. */
bool pattern_is(const unsigned char *buf, uint64_t offset, size_t n);

/* Makes an unlinked file of `bytes` pattern bytes; returns a descriptor opened with `flags` (O_DIRECT or
 * 0), or -1 with errno. */
int pattern_file(uint64_t bytes, int flags);
