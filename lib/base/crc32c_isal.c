/* See crc32c.h: Intel's ISA-L. */
#include "base/crc32c.h"

#include <isa-l/crc.h>

bool rfi_crc32c_available(void)
{
    return true;
}

uint32_t rfi_crc32c(uint32_t crc, const void *data, size_t bytes)
{
    unsigned char *p = (unsigned char *)(uintptr_t)data; /* the library's prototype lacks the const */
    const size_t most = 1u << 30; /* it counts in an int */
    crc = ~crc;
    for (; bytes > most; bytes -= most, p += most)
        crc = crc32_iscsi(p, (int)most, crc);
    return ~crc32_iscsi(p, (int)bytes, crc);
}
