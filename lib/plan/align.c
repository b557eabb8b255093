/* A of a dataset, from what the kernel says of its files: the only part of the plan that looks at the
 * machine, done once by the parent and then fixed in the segment. */
#include "plan/plan.h"

#include "base/bytes.h"
#include "reader/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

/* Files looked at. Usually all lie on one file system, and each look is an open. */
enum { FILES_MAX = 64 };

/* Widens *align by one file; false when that file is not direct. A file that cannot be opened changes
 * nothing: whoever reads it will report it. */
static bool look(const struct rfi_dataset *d, uint32_t f, uint64_t *align, bool *ret_opened)
{
    char path[PATH_MAX];
    struct rfi_dio dio;
    *ret_opened = false;
    if (rfi_dataset_path(d, f, path, sizeof path) < 0)
        return true;
    /* O_NONBLOCK: a FIFO put in the place of a file must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return true;
    *ret_opened = true;
    bool direct = rfi_dio_align(fd, &dio);
    if (direct)
        *align = rfi_max(*align, rfi_max(dio.memory, dio.offset));
    close(fd);
    return direct;
}

int rfi_plan_align(const struct rfi_dataset *d, uint64_t *ret_align, bool *ret_direct, struct rfi_error *err)
{
    uint32_t files = rfi_dataset_n_files(d), looks = (uint32_t)rfi_min(files, FILES_MAX);
    bool direct = true, any = false;
    (void)err;
    *ret_align = RFI_MIN_ALIGN;
    for (uint32_t i = 0; i < looks; i++) {
        bool opened;
        uint32_t f = (uint32_t)((uint64_t)i * files / looks);
        direct &= look(d, f, ret_align, &opened);
        any |= opened;
    }
    *ret_direct = direct && any;
    return 0;
}
