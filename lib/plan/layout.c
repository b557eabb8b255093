#include "plan/layout.h"

#include "base/bytes.h"

#include <errno.h>

/* Runs of fewer bytes are packed: rounding them to A would waste more than 1/8 of the arena. */
enum { IN_PLACE_BLOCKS = 16 };

/* No file and no arena is larger; sums below it cannot wrap. */
static const uint64_t limit = (uint64_t)1 << 62;

int rfi_cursor_place(struct rfi_cursor *c, uint64_t offset, uint64_t bytes, uint64_t *ret_place, bool *ret_in_place)
{
    if (offset >= limit || bytes >= limit || c->at >= limit)
        return -EOVERFLOW;
    *ret_in_place = bytes >= IN_PLACE_BLOCKS * c->align;
    if (!*ret_in_place) {
        *ret_place = rfi_align_up(c->at, RFI_PACK_ALIGN);
        c->at = *ret_place + bytes;
        return 0;
    }
    uint64_t start = rfi_align_up(c->at, c->align);
    *ret_place = start + offset % c->align;
    c->at = rfi_align_up(*ret_place + bytes, c->align);
    return 0;
}
