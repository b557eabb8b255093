/* Tar members: whatever the archive says, every member lies inside it, each step goes forward, and an
 * error comes with a text. */
#include "fuzz.h"

#include "dataset/formats/tar_reader.h"

#include <string.h>

static void walk(const uint8_t *data, size_t size)
{
    struct rfi_tar t;
    struct rfi_tar_member m;
    struct rfi_error err = {0};
    uint64_t last = 0, members = 0;
    int rc;
    (void)rfi_tar_match(data, size < 1024 ? size : 1024, size);
    if (rfi_tar_open(&t, fuzz_file(data, size), "fuzz.tar", size, &err) < 0) {
        FUZZ_CHECK(size == 0 && err.text[0]);
        return;
    }
    while ((rc = rfi_tar_next(&t, &m, &err)) > 0) {
        FUZZ_CHECK(m.offset >= last + RFI_TAR_BLOCK && m.offset <= size && m.bytes <= size - m.offset);
        FUZZ_CHECK(strlen(m.name) < (1u << 20) + 1);
        FUZZ_CHECK(++members <= size / RFI_TAR_BLOCK);
        last = m.offset + m.bytes; /* the next header begins at or after it */
    }
    FUZZ_CHECK(rc == 0 || (rc < 0 && err.text[0]));
    rfi_tar_close(&t);
}

/* Mutations hardly ever hit a right checksum: every block that looks like a header gets one. */
static void repair_checksums(uint8_t *data, size_t size)
{
    for (uint8_t *b = data; size >= 512; b += 512, size -= 512) {
        unsigned sum = 0;
        if (memcmp(b + 257, "ustar", 5) != 0)
            continue;
        memset(b + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += b[i];
        snprintf((char *)b + 148, 8, "%06o", sum);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    FUZZ_CHECK(copy);
    walk(data, size);
    if (size)
        memcpy(copy, data, size);
    repair_checksums(copy, size);
    walk(copy, size);
    free(copy);
    return 0;
}
