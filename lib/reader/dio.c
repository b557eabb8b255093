/* What O_DIRECT wants of a file, as the kernel says (Linux 6.1 and later). The two words are taken at
 * their fixed place in the kernel's 256-byte record, because older C libraries have no name for them. */
#include "reader/reader.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

enum { STATX_BYTES = 256, STX_MASK_AT = 0, STX_DIO_MEM_AT = 0x98, STX_DIO_OFFSET_AT = 0x9c };

/* Beyond this an "alignment" is a mistake somewhere, and buffered reads are right. */
enum { ALIGN_MAX = 64 << 10 };

static bool usable(uint32_t align)
{
    return align > 0 && align <= ALIGN_MAX && (align & (align - 1)) == 0;
}

bool rfi_dio_align(int fd, struct rfi_dio *ret)
{
    unsigned char record[STATX_BYTES] = {0};
    uint32_t mask;
    *ret = (struct rfi_dio){0};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, record) != 0)
        return false;
    memcpy(&mask, record + STX_MASK_AT, sizeof mask);
    if (!(mask & STATX_DIOALIGN))
        return false;
    memcpy(&ret->memory, record + STX_DIO_MEM_AT, sizeof ret->memory);
    memcpy(&ret->offset, record + STX_DIO_OFFSET_AT, sizeof ret->offset);
    return usable(ret->memory) && usable(ret->offset);
}
