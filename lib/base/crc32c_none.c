/* See crc32c.h: a build without a library for it. */
#include "base/crc32c.h"

#include <stdlib.h>

bool rfi_crc32c_available(void)
{
    return false;
}

uint32_t rfi_crc32c(uint32_t crc, const void *data, size_t bytes)
{
    (void)crc;
    (void)data;
    (void)bytes;
    abort(); /* callers ask first */
}
