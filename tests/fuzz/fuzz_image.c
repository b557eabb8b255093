/* Images: the input is a list of patches (offset 4 bytes, value 8 bytes) to a good image, whose
 * checksums are then made right again, as a hostile writer would; or, where its first byte is odd, the
 * whole image. Opening either fails with a text, or every accessor works. */
#include "fuzz.h"

#include "../unit/dataset/made.h"
#include "dataset/handle.h"

static void reseal(unsigned char *image, size_t bytes)
{
    struct rfi_image_header h;
    memcpy(&h, image, sizeof h);
    for (int s = 0; s < RFI_N_SECTIONS; s++) {
        struct rfi_image_section *sec = &h.sections[s];
        if (sec->offset <= bytes && sec->bytes <= bytes - sec->offset)
            sec->hash = rfi_image_hash(image + sec->offset, sec->bytes);
    }
    h.hash = rfi_image_header_hash(&h);
    memcpy(image, &h, sizeof h);
}

static const struct made *good(uint8_t which)
{
    static const int kinds[] = {MADE_FIELDS | MADE_LABELS | MADE_UNLABELED | MADE_KEYS, MADE_RUNS | MADE_LABELS,
                                MADE_KEYS, 0};
    static struct made made[4];
    struct made *m = &made[which % 4];
    if (!m->d)
        *m = made_dataset(60, kinds[which % 4], 0, 300, which % 4);
    return m;
}

static void open_image(const void *image, size_t bytes)
{
    struct rfi_dataset *d;
    struct rfi_error err = {0};
    int rc = rfi_dataset_from_image(image, bytes, &d, &err);
    FUZZ_CHECK(rc == 0 || (rc < 0 && err.text[0]));
    if (rc == 0) {
        made_touch(d);
        rfi_dataset_close(d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    const struct made *m = good(data[0] >> 1);
    size_t bytes = data[0] & 1 ? size - 1 : m->d->h.image_bytes;
    unsigned char *image = malloc(bytes + 1); /* exact, so that ASan sees a byte too many */
    FUZZ_CHECK(image);
    memcpy(image, data[0] & 1 ? (const void *)(data + 1) : m->d->image, bytes);
    for (size_t at = 1; !(data[0] & 1) && at + 12 <= size; at += 12) {
        uint32_t where;
        memcpy(&where, data + at, 4);
        memcpy(image + where % (bytes - 8) / 4 * 4, data + at + 4, 8);
    }
    if (bytes >= sizeof(struct rfi_image_header))
        reseal(image, bytes);
    open_image(image, bytes);
    free(image);
    return 0;
}
