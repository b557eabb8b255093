/* Machines that forbid io_uring: every reason is told, `auto` takes pread and says so once, an explicit
 * engine fails. Each Criterion test is a process of its own, so it may put itself under a filter. */
#include "pattern.h"

#include "reader/reader.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int notes;
static char note[2048];

static void take_note(void *ctx, int level, const char *text)
{
    (void)ctx;
    (void)level;
    notes++;
    strncpy(note, text, sizeof note - 1);
}

/* Makes one syscall fail with `code` for the rest of this process's life. */
static void deny(int nr, unsigned code)
{
    struct sock_filter code_of[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = 4, .filter = code_of};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0), 0);
}

static void check_fallback(int code, const char *word)
{
    struct rfi_reader r, second;
    struct rfi_error err = {0};
    unsigned char buf[512];
    struct rfi_completion c;
    int fd = pattern_file(4096, 0);

    rf_set_log(take_note, NULL);
    cr_assert_eq(rfi_reader_uring_probe(&err), -code);
    cr_assert(strstr(err.text, word), "%s", err.text);
    cr_assert(strstr(err.text, "--engine pread"), "%s", err.text);

    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_URING, 4, &err), -code, "an explicit engine has no fallback");
    cr_assert_eq(notes, 0);

    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_AUTO, 4, &err), 0);
    cr_assert_eq(rfi_reader_open(&second, RF_ENGINE_AUTO, 4, &err), 0);
    cr_assert_str_eq(r.ops->name, "pread");
    cr_assert_eq(notes, 1, "%d notes", notes);
    cr_assert(strstr(note, word) && strstr(note, "pread"), "%s", note);

    r.ops->queue(&r, &(struct rfi_read){.fd = fd, .dest = buf, .offset = 99, .bytes = 512, .tag = 1});
    cr_assert_eq(r.ops->reap(&r, &c, 1, 0), 1);
    cr_assert(c.result == 512 && pattern_is(buf, 99, 512));
    r.ops->close(&r);
    second.ops->close(&second);
}

Test(fallback, setup_denied_by_seccomp)
{
    deny(SYS_io_uring_setup, EPERM);
    check_fallback(EPERM, "seccomp");
}

Test(fallback, enter_denied_by_seccomp)
{
    deny(SYS_io_uring_enter, EPERM);
    check_fallback(EPERM, "seccomp");
}

Test(fallback, a_kernel_without_it)
{
    deny(SYS_io_uring_setup, ENOSYS);
    check_fallback(ENOSYS, "5.11");
}

Test(fallback, no_memory_for_the_queues)
{
    deny(SYS_io_uring_setup, ENOMEM);
    check_fallback(ENOMEM, "memlock");
}

/* Kernels before 5.12 charge the queues to memlock and refuse; later ones do not. Either way there is a
 * reader that reads. */
Test(fallback, a_memlock_limit_of_nothing_leaves_a_working_reader, .timeout = 60)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct rlimit none = {0, 0};
        struct rfi_reader r;
        unsigned char buf[512];
        struct rfi_completion c = {0};
        int fd = pattern_file(4096, 0);
        if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0))
            _exit(1);
        if (rfi_reader_open(&r, RF_ENGINE_AUTO, 256, NULL) != 0)
            _exit(2);
        r.ops->queue(&r, &(struct rfi_read){.fd = fd, .dest = buf, .offset = 7, .bytes = 512, .tag = 1});
        while (r.in_flight > 0 && c.result == 0)
            if (r.ops->reap(&r, &c, 1, 1000000000u) < 0)
                _exit(3);
        _exit(c.result == 512 && pattern_is(buf, 7, 512) ? 0 : 4);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "ended with %d", WEXITSTATUS(status));
}

Test(fallback, auto_is_uring_where_it_is_allowed)
{
    struct rfi_reader r;
    struct rfi_error err;
    if (rfi_reader_uring_probe(&err) < 0) {
        cr_skip_test("%s", err.text);
        return;
    }
    rf_set_log(take_note, NULL);
    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_AUTO, 4, &err), 0, "%s", err.text);
    cr_assert_str_eq(r.ops->name, "uring");
    cr_assert_eq(notes, 0);
    r.ops->close(&r);
}
