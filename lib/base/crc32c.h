/* CRC-32C (Castagnoli), as in iSCSI and ext4, with the processor's own instructions where it has them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False: this build has no library for it (meson feature `checksum`), and rfi_crc32c must not be called. */
bool rfi_crc32c_available(void);

/* Continues `crc` (0 at the start) over the bytes: of "123456789" it is 0xe3069283. */
uint32_t rfi_crc32c(uint32_t crc, const void *data, size_t bytes);
