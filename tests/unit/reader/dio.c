/* What the kernel says about O_DIRECT must be what it does: an aligned read works, and files that are
 * not on a disk are not direct. */
#include "pattern.h"

#include "reader/reader.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

Test(dio, reads_at_the_alignment_it_tells_work)
{
    struct rfi_dio dio;
    void *buf;
    int fd = pattern_file(1 << 20, O_DIRECT);
    if (fd < 0 || !rfi_dio_align(fd, &dio)) {
        cr_skip_test("no temporary folder here takes O_DIRECT");
        return;
    }
    cr_assert(dio.memory > 0 && dio.offset > 0);
    cr_assert_eq(posix_memalign(&buf, 1 << 16, 3 << 16), 0);
    unsigned char *at = (unsigned char *)buf + dio.memory;
    cr_assert_eq(pread(fd, at, dio.offset * 8u, dio.offset), (ssize_t)(dio.offset * 8));
    cr_assert(pattern_is(at, dio.offset, dio.offset * 8u));
    free(buf);
}

Test(dio, memory_files_pipes_and_bad_descriptors_are_not_direct)
{
    struct rfi_dio dio;
    int p[2], memory = memfd_create("rf-dio", MFD_CLOEXEC), proc = open("/proc/self/maps", O_RDONLY);
    cr_assert_eq(pipe(p), 0);
    cr_assert_not(rfi_dio_align(memory, &dio));
    cr_assert_not(rfi_dio_align(proc, &dio));
    cr_assert_not(rfi_dio_align(p[0], &dio));
    cr_assert_not(rfi_dio_align(-1, &dio));
}
