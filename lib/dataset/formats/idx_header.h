/* The header of an IDX file (the format of MNIST): two zero bytes, element type, number of
 * dimensions, then each dimension as a big-endian 32-bit number; big-endian elements follow. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFI_IDX_MAX_DIMS = 17 };

struct rfi_idx {
    const char *dtype; /* ">f4" */
    uint32_t item_bytes;
    bool integer;
    uint32_t n_dims;
    uint64_t dims[RFI_IDX_MAX_DIMS];
    uint64_t data_offset, record_bytes;
};

/* True when the first bytes are those of an IDX header: type and dimensions possible. */
bool rfi_idx_match(const unsigned char *head, size_t n);

/* Reads and checks the header and the file's size. */
int rfi_idx_read(int fd, const char *path, uint64_t file_bytes, struct rfi_idx *ret, struct rfi_error *err);
