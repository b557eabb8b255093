/* .npy headers: what is accepted fits the file exactly. */
#include "fuzz.h"

#include "dataset/formats/npy_header.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rfi_npy a;
    struct rfi_error err = {0};
    int rc = rfi_npy_read(fuzz_file(data, size), "fuzz.npy", size, &a, &err);
    if (rc < 0) {
        FUZZ_CHECK(err.text[0] && err.code == rc);
        return 0;
    }
    FUZZ_CHECK(a.n_dims <= RFI_NPY_MAX_DIMS && memchr(a.dtype, 0, sizeof a.dtype));
    unsigned __int128 bytes = (unsigned __int128)rfi_npy_records(&a) * rfi_npy_record_bytes(&a);
    FUZZ_CHECK(a.data_offset + bytes == size);
    return 0;
}
