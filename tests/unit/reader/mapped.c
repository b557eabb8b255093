/* What only the mapped engine can get wrong: pages that are not in memory, files that are cut while they are mapped,
 * signals that are not its business, mappings that outlive their file. */
#include "pattern.h"

#include "reader/reader.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, FILE_BYTES = 5 * MIB + 777, PAGE = 4096, ENOUGH_READS = 4, MANY_LOOKS = 60 };

static void open_mapped(struct rfi_reader *r)
{
    struct rfi_error err;
    cr_assert_eq(rfi_reader_open(r, RF_ENGINE_MAPPED, 8, &err), 0, "%s", err.text);
}

/* The result of one read, made at once or refused. */
static int32_t at_once(struct rfi_reader *r, int fd, void *dest, uint64_t offset, uint32_t bytes)
{
    int32_t result = (int32_t)bytes;
    struct rfi_read read = {.fd = fd, .dest = dest, .offset = offset, .bytes = bytes};
    uint32_t refused = r->ops->at_once(r, &read, 1, &result);
    cr_assert_eq(refused, result != (int32_t)bytes);
    return result;
}

static int32_t queued(struct rfi_reader *r, int fd, void *dest, uint64_t offset, uint32_t bytes)
{
    struct rfi_completion c;
    r->ops->queue(r, &(struct rfi_read){.fd = fd, .dest = dest, .offset = offset, .bytes = bytes});
    for (int n = 0; n == 0;) {
        n = r->ops->reap(r, &c, 1, 1000000000u);
        cr_assert_geq(n, 0);
    }
    return c.result;
}

/* Mappings of the file: its inode's lines in /proc/self/maps. */
static int mappings(int fd, uintptr_t *ret_first)
{
    char path[64], name[4096], line[5000];
    int n = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, name, sizeof name - 1);
    cr_assert_gt(length, 0);
    name[length] = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof line, f))
        if (strstr(line, name) && ++n == 1 && ret_first)
            *ret_first = strtoul(line, NULL, 16);
    fclose(f);
    return n;
}

/* Reads the start of the file until it is mapped: from then on what is in memory is copied. */
static void make_mapped(struct rfi_reader *r, int fd)
{
    unsigned char buf[512];
    for (int i = 0; i < ENOUGH_READS; i++)
        if (at_once(r, fd, buf, 0, sizeof buf) == -EAGAIN)
            cr_assert_eq(queued(r, fd, buf, 0, sizeof buf), sizeof buf);
    cr_assert_eq(mappings(fd, NULL), 1);
}

static int writable(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int w = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(w, 0);
    return w;
}

static int resident_pages(int fd)
{
    unsigned char vec[FILE_BYTES / PAGE + 1];
    void *p = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    int n = 0;
    cr_assert(p != MAP_FAILED && mincore(p, FILE_BYTES, vec) == 0);
    for (size_t i = 0; i < sizeof vec; i++)
        n += vec[i] & 1;
    munmap(p, FILE_BYTES);
    return n;
}

/* A file none of whose pages is in memory; -1: not to be had here (a tmpfs). */
static int cold_file(void)
{
    int fd = pattern_file(FILE_BYTES, 0);
    cr_assert_geq(fd, 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    if (resident_pages(fd) == 0)
        return fd;
    close(fd);
    return -1;
}

Test(mapped, pages_in_memory_are_copied_without_a_read)
{
    struct rfi_reader r;
    unsigned char *buf = malloc(FILE_BYTES);
    int fd = pattern_file(FILE_BYTES, 0);
    open_mapped(&r);
    cr_assert_eq(pread(fd, buf, FILE_BYTES, 0), FILE_BYTES);
    make_mapped(&r, fd);
    uint64_t calls = r.submits;
    for (uint64_t at = 0; at + 300000 < FILE_BYTES; at += 123457) {
        memset(buf, 0, 300000);
        cr_assert_eq(at_once(&r, fd, buf, at, 300000), 300000);
        cr_assert(pattern_is(buf, at, 300000));
    }
    cr_assert_eq(r.submits, calls, "system calls for data that is mapped");
    r.ops->close(&r);
    cr_assert_eq(mappings(fd, NULL), 0);
    free(buf);
}

static void check_cold(struct rfi_reader *r, int fd)
{
    unsigned char buf[3 * PAGE];
    int32_t now = at_once(r, fd, buf, 3 * MIB + 100, 2 * PAGE);
    cr_assert_eq(now, -EAGAIN, "%d: it waited for the device", now);
    cr_assert_eq(queued(r, fd, buf, 3 * MIB + 100, 2 * PAGE), 2 * PAGE);
    cr_assert(pattern_is(buf, 3 * MIB + 100, 2 * PAGE));
    memset(buf, 0, sizeof buf);
    cr_assert_eq(at_once(r, fd, buf, 3 * MIB + 100, 2 * PAGE), 2 * PAGE, "it is in memory now");
    cr_assert(pattern_is(buf, 3 * MIB + 100, 2 * PAGE));
    cr_assert_eq(at_once(r, fd, buf, 4 * MIB, PAGE), -EAGAIN, "the same chunk, but not there");
}

Test(mapped, pages_that_are_not_in_memory_are_left_to_the_queue)
{
    struct rfi_reader r;
    int fd = cold_file();
    if (fd < 0) {
        cr_skip_test("no temporary folder here has a page cache that can be emptied");
        return;
    }
    open_mapped(&r);
    make_mapped(&r, fd);
    check_cold(&r, fd);
    r.ops->close(&r);
}

static int64_t major_faults(void)
{
    struct rusage u;
    cr_assert_eq(getrusage(RUSAGE_THREAD, &u), 0);
    return u.ru_majflt;
}

/* mincore tells everybody else that all is there: the engine must notice that it does not know. */
Test(mapped, a_file_of_somebody_else_is_judged_in_another_way, .timeout = 60)
{
    int status, fd = cold_file();
    if (geteuid() != 0 || fd < 0) {
        cr_skip_test("needs root, to become nobody, and a page cache that can be emptied");
        return;
    }
    cr_assert_eq(fchmod(fd, 0644), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rfi_reader r;
        unsigned char buf[2 * PAGE];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (setresuid(65534, 65534, 65534) != 0 || rfi_reader_open(&r, RF_ENGINE_MAPPED, 8, NULL) != 0)
            _exit(1);
        for (int i = 0; i < ENOUGH_READS; i++) {
            struct rfi_read read = {.fd = fd, .dest = buf, .offset = 0, .bytes = 512};
            int32_t result = 512;
            if (r.ops->at_once(&r, &read, 1, &result) && pread(fd, buf, 512, 0) != 512)
                _exit(2);
        }
        /* A look at such a file asks for its page, which may even come meanwhile: it is refused, or it was there. Touching what
         * is not there is a major fault. */
        struct rfi_read far = {.fd = fd, .dest = buf, .bytes = 2 * PAGE};
        int64_t before = major_faults();
        for (int i = 0; i < MANY_LOOKS; i++) {
            int32_t result = 2 * PAGE;
            far.offset = MIB + (uint64_t)i * 16 * PAGE;
            if (r.ops->at_once(&r, &far, 1, &result) == 1 ? result != -EAGAIN : !pattern_is(buf, far.offset, 2 * PAGE))
                _exit(3);
        }
        if (major_faults() != before)
            _exit(6);
        int32_t result = 2 * PAGE;
        if (pread(fd, buf, 2 * PAGE, (off_t)far.offset) != 2 * PAGE || (memset(buf, 0, sizeof buf), false))
            _exit(4);
        _exit(r.ops->at_once(&r, &far, 1, &result) == 0 && pattern_is(buf, far.offset, 2 * PAGE) ? 0 : 5);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "step %d", WEXITSTATUS(status));
}

/* A chunk that was whole and is not any more costs a slow copy or two (the kernel does not count every fault as a major
 * one), and then it is known. */
Test(mapped, pages_that_leave_are_noticed)
{
    struct rfi_reader r;
    unsigned char buf[PAGE];
    uintptr_t base = 0;
    int fd = cold_file();
    if (fd < 0) {
        cr_skip_test("no temporary folder here has a page cache that can be emptied");
        return;
    }
    open_mapped(&r);
    unsigned char *all = malloc(FILE_BYTES);
    cr_assert_eq(pread(fd, all, FILE_BYTES, 0), FILE_BYTES);
    free(all);
    make_mapped(&r, fd);
    cr_assert_eq(at_once(&r, fd, buf, 0, PAGE), PAGE);
    cr_assert_eq(at_once(&r, fd, buf, 2 * MIB, PAGE), PAGE);
    /* Mapped pages cannot be dropped: first out of its page tables, then out of memory. */
    cr_assert_eq(mappings(fd, &base), 1);
    cr_assert_eq(madvise((void *)base, FILE_BYTES, MADV_DONTNEED), 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (resident_pages(fd) != 0) {
        cr_skip_test("the page cache keeps the file");
        return;
    }
    for (uint64_t i = 0; i < 8; i++) {
        int32_t now = at_once(&r, fd, buf, MIB + 16 * i * PAGE, PAGE);
        cr_assert(now == PAGE ? pattern_is(buf, MIB + 16 * i * PAGE, PAGE) : i > 0 && now == -EAGAIN);
    }
    int32_t now = at_once(&r, fd, buf, 3 * MIB, PAGE);
    cr_assert_eq(now, -EAGAIN, "%d: it still believes that the chunk is there", now);
    r.ops->close(&r);
}

Test(mapped, a_file_that_is_cut_is_refused_and_the_queue_tells_where_it_ends)
{
    struct rfi_reader r;
    unsigned char buf[2 * PAGE];
    const uint64_t cuts[] = {2 * MIB + 5000, 2 * MIB + PAGE, 2 * MIB + 1, 0};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        int fd = pattern_file(FILE_BYTES, 0), w = writable(fd);
        open_mapped(&r);
        make_mapped(&r, fd);
        cr_assert_eq(at_once(&r, fd, buf, 2 * MIB, sizeof buf), sizeof buf);
        cr_assert_eq(ftruncate(w, (off_t)cuts[i]), 0);
        memset(buf, 0xAA, sizeof buf);
        cr_assert_eq(at_once(&r, fd, buf, 2 * MIB, sizeof buf), -EAGAIN, "cut to %lu", (unsigned long)cuts[i]);
        int32_t left = cuts[i] > 2 * MIB ? (int32_t)(cuts[i] - 2 * MIB) : 0;
        cr_assert_eq(queued(&r, fd, buf, 2 * MIB, sizeof buf), left);
        cr_assert(pattern_is(buf, 2 * MIB, (size_t)left));
        r.ops->close(&r);
        close(w);
        close(fd);
    }
}

/* In a list only the reads of the file that was cut are refused, however samples of this size are copied. */
static void spoil_one(uint32_t bytes)
{
    enum { N = 10 };
    struct rfi_reader r;
    unsigned char *buf = calloc(N, bytes);
    struct rfi_read reads[N];
    int32_t results[N] = {0};
    int good = pattern_file(FILE_BYTES, 0), cut = pattern_file(FILE_BYTES, 0), w = writable(cut);
    open_mapped(&r);
    make_mapped(&r, good);
    make_mapped(&r, cut);
    for (uint32_t i = 0; i < N; i++)
        reads[i] = (struct rfi_read){.fd = i % 2 ? cut : good,
                                     .dest = buf + (size_t)i * bytes,
                                     .offset = 4 * MIB + i * bytes,
                                     .bytes = bytes,
                                     .tag = i};
    cr_assert_eq(r.ops->at_once(&r, reads, N, results), 0);
    cr_assert_eq(ftruncate(w, PAGE), 0);
    memset(buf, 0, (size_t)N * bytes);
    cr_assert_eq(r.ops->at_once(&r, reads, N, results), N / 2, "%u bytes", bytes);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(results[i], i % 2 ? -EAGAIN : (int32_t)bytes);
        cr_assert(i % 2 || pattern_is(reads[i].dest, reads[i].offset, bytes));
    }
    r.ops->close(&r);
    close(w);
    close(cut);
    close(good);
    free(buf);
}

Test(mapped, one_cut_file_of_a_list_spoils_no_other)
{
    const uint32_t sizes[] = {500, PAGE, 80 << 10};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        spoil_one(sizes[i]);
}

Test(mapped, memory_that_cannot_be_written_is_efault)
{
    struct rfi_reader r;
    unsigned char buf[PAGE];
    int fd = pattern_file(FILE_BYTES, 0), memory = memfd_create("target", MFD_CLOEXEC);
    void *forbidden = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(ftruncate(memory, PAGE), 0);
    void *cut = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    open_mapped(&r);
    make_mapped(&r, fd);
    cr_assert_eq(at_once(&r, fd, forbidden, 0, PAGE), -EFAULT);
    cr_assert_eq(ftruncate(memory, 0), 0);
    cr_assert_eq(at_once(&r, fd, cut, 0, PAGE), -EFAULT);
    cr_assert_eq(at_once(&r, fd, buf, 0, PAGE), PAGE, "unharmed afterwards");
    cr_assert(pattern_is(buf, 0, PAGE));
    r.ops->close(&r);
}

static void leave(int sig)
{
    _exit(sig == SIGBUS ? 77 : 1);
}

/* A fault that is none of the engine's is fatal, or goes to whoever cared before. */
static int fault_of_our_own(bool handled)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct rfi_reader r;
        unsigned char buf[512];
        int fd = pattern_file(FILE_BYTES, 0), memory = memfd_create("ours", MFD_CLOEXEC);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_DUMPABLE, 0);
        signal(SIGBUS, handled ? leave : SIG_DFL);
        if (rfi_reader_open(&r, RF_ENGINE_MAPPED, 8, NULL) != 0)
            _exit(1);
        for (int i = 0; i <= ENOUGH_READS; i++) {
            struct rfi_read read = {.fd = fd, .dest = buf, .bytes = sizeof buf};
            int32_t result;
            r.ops->at_once(&r, &read, 1, &result);
        }
        volatile char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        p[0] = 1; /* behind the end of an empty file */
        _exit(2);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

Test(mapped, signals_of_others_are_passed_on, .timeout = 60)
{
    int status = fault_of_our_own(false);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
    status = fault_of_our_own(true);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 77, "status %x", status);
}

Test(mapped, a_closed_file_takes_no_address_space_and_its_number_may_come_again)
{
    struct rfi_reader r;
    unsigned char buf[PAGE];
    int fd = pattern_file(FILE_BYTES, 0);
    open_mapped(&r);
    make_mapped(&r, fd);
    r.ops->forget(&r, fd);
    cr_assert_eq(mappings(fd, NULL), 0);
    int second = pattern_file(PAGE, 0);
    cr_assert_eq(dup2(second, fd), fd);
    for (int i = 0; i <= ENOUGH_READS; i++)
        cr_assert_eq(at_once(&r, fd, buf, 0, PAGE), PAGE);
    cr_assert_eq(at_once(&r, fd, buf, MIB, PAGE), -EAGAIN, "the old file's length");
    r.ops->close(&r);
}
