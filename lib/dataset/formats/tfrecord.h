/* What a TFRecord puts around a payload: see tfrecord.c. */
#pragma once

#include <stdint.h>

enum { RFI_TFRECORD_HEAD = 12, RFI_TFRECORD_TAIL = 4, RFI_TFRECORD_FRAME = RFI_TFRECORD_HEAD + RFI_TFRECORD_TAIL };

/* A CRC-32C as it is stored: rotated and moved, so that a CRC over stored CRCs means something. */
uint32_t rfi_tfrecord_mask(uint32_t crc);
