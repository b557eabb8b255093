/* IDX headers: what is accepted fits the file exactly. */
#include "fuzz.h"

#include "dataset/formats/idx_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rfi_idx a;
    struct rfi_error err = {0};
    int rc = rfi_idx_read(fuzz_file(data, size), "fuzz.idx", size, &a, &err);
    if (rc < 0) {
        FUZZ_CHECK(err.text[0] && err.code == rc);
        return 0;
    }
    FUZZ_CHECK(a.n_dims >= 1 && a.n_dims <= RFI_IDX_MAX_DIMS && rfi_idx_match(data, size));
    FUZZ_CHECK(a.data_offset + (unsigned __int128)a.dims[0] * a.record_bytes == size);
    return 0;
}
