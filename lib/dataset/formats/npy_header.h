/* The header of a .npy file (NumPy format 1.0, 2.0, 3.0), parsed without trust. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { RFI_NPY_MAX_DIMS = 32 };

struct rfi_npy {
    char dtype[24]; /* "<f4"; "|V12" for a structured type */
    uint64_t item_bytes;
    uint32_t n_dims;
    uint64_t dims[RFI_NPY_MAX_DIMS];
    uint64_t data_offset;
};

/* -EINVAL malformed, -ENOTSUP Fortran order or objects, -EBADMSG truncated. The array's size is
 * checked against `file_bytes` (-EBADMSG when data are missing, -EINVAL when more follow). */
int rfi_npy_read(int fd, const char *path, uint64_t file_bytes, struct rfi_npy *ret, struct rfi_error *err);

/* Records along the first dimension and the bytes of one; a 0-d array is one record. */
uint64_t rfi_npy_records(const struct rfi_npy *a);
uint64_t rfi_npy_record_bytes(const struct rfi_npy *a);
