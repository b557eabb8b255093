/* A of real files: what it says must be what the kernel does. */
#include "fake.h"

#include "plan/plan.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static void make_file(const char *dir, char path[PATH_MAX])
{
    static const char block[65536];
    snprintf(path, PATH_MAX, "%s/rf-align-XXXXXX", dir);
    int fd = mkostemp(path, O_CLOEXEC);
    cr_assert_geq(fd, 0);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(write(fd, block, sizeof block), (ssize_t)sizeof block);
    cr_assert_eq(fsync(fd), 0);
    close(fd);
}

static bool reads_directly(const char *path, uint64_t align)
{
    void *buf = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    cr_assert_eq(posix_memalign(&buf, 1 << 17, 1 << 18), 0);
    bool ok = fd >= 0 && pread(fd, (char *)buf + align, align, (off_t)align) == (ssize_t)align;
    free(buf);
    if (fd >= 0)
        close(fd);
    return ok;
}

Test(align, a_file_on_disk_can_be_read_directly_at_a)
{
    char path[PATH_MAX];
    bool direct;
    uint64_t a;
    make_file("/var/tmp", path);
    const char *paths[] = {path};
    struct rfi_dataset d = {.n_files = 1, .paths = paths, .damaged = UINT64_MAX};
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert(a >= 512 && (a & (a - 1)) == 0);
    bool reads = direct && reads_directly(path, a);
    unlink(path);
    if (!direct)
        cr_skip_test("/var/tmp does not take O_DIRECT here");
    cr_assert(reads);
}

Test(align, one_file_in_memory_makes_the_dataset_not_direct)
{
    char disk[PATH_MAX], memory[PATH_MAX];
    struct statfs fs;
    bool direct = true;
    uint64_t a;
    if (statfs("/dev/shm", &fs) != 0 || fs.f_type != 0x01021994) {
        cr_skip_test("/dev/shm is no tmpfs here");
        return;
    }
    make_file("/var/tmp", disk);
    make_file("/dev/shm", memory);
    const char *paths[300];
    struct rfi_dataset d = {.n_files = 2, .paths = (const char *[]){disk, memory}, .damaged = UINT64_MAX};
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert_not(direct);
    cr_assert_geq(a, 512);
    for (int i = 0; i < 300; i++)
        paths[i] = i < 290 ? disk : memory;
    d = (struct rfi_dataset){.n_files = 300, .paths = paths, .damaged = UINT64_MAX};
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert_not(direct, "of many files a spread is looked at");
    unlink(disk);
    unlink(memory);
}

Test(align, files_that_cannot_be_opened_are_left_to_the_reader, .timeout = 30)
{
    char disk[PATH_MAX], fifo[] = "/tmp/rf-align-fifo-XXXXXX";
    bool direct, alone;
    uint64_t a, b;
    make_file("/var/tmp", disk);
    struct rfi_dataset d = {.n_files = 2, .paths = (const char *[]){"/nonexistent/x", disk}, .damaged = UINT64_MAX};
    struct rfi_dataset only = {.n_files = 1, .paths = (const char *[]){disk}, .damaged = UINT64_MAX};
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert_eq(rfi_plan_align(&only, &b, &alone, NULL), 0);
    cr_assert(a == b && direct == alone);
    d.n_files = 1;
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert(a == 512 && !direct);
    cr_assert(mkdtemp(fifo) != NULL && rmdir(fifo) == 0 && mkfifo(fifo, 0600) == 0);
    d.paths = (const char *[]){fifo};
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert_not(direct, "and a FIFO does not hang us");
    d.n_files = 0;
    cr_assert_eq(rfi_plan_align(&d, &a, &direct, NULL), 0);
    cr_assert(a == 512 && !direct);
    unlink(fifo);
    unlink(disk);
}
