#include "child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILL_WAIT_MS = 10000 };

static int pidfd_open_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* ---- in the child ---- */

static void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(126);
}

static void default_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
}

static void exec_child(const char *const *argv, const char *const *environment)
{
    for (; environment && *environment; environment++)
        putenv((char *)(uintptr_t)*environment);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* ---- in the test ---- */

static int stream_open(struct child_stream *s, int fd)
{
    s->fd = fd;
    s->text = calloc(1, 1);
    return s->text ? 0 : -ENOMEM;
}

static void stream_close(struct child_stream *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* One read; closes at the end of the stream. */
static int stream_read(struct child_stream *s)
{
    char buffer[65536];
    ssize_t n = read(s->fd, buffer, sizeof buffer);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -errno;
    if (n == 0) {
        stream_close(s);
        return 0;
    }
    char *grown = realloc(s->text, s->bytes + (size_t)n + 1);
    if (!grown)
        return -ENOMEM;
    memcpy(grown + s->bytes, buffer, (size_t)n);
    s->text = grown;
    s->bytes += (size_t)n;
    s->text[s->bytes] = 0;
    return 0;
}

static int left_ms(uint64_t deadline_ns)
{
    uint64_t now = rfi_now_ns();
    uint64_t ms = now < deadline_ns ? (deadline_ns - now + 999999) / 1000000 : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static uint64_t deadline_of(int timeout_ms)
{
    return rfi_now_ns() + (uint64_t)timeout_ms * 1000000u;
}

/* Reads what there is, or sees the child's end: 0, or -ETIMEDOUT. */
static int pump(struct child *c, uint64_t deadline_ns, bool *ret_dead)
{
    struct pollfd fds[3] = {
        {.fd = c->out.fd, .events = POLLIN}, {.fd = c->err.fd, .events = POLLIN}, {.fd = c->pidfd, .events = POLLIN}};
    int n = poll(fds, 3, left_ms(deadline_ns));
    if (n < 0 && errno != EINTR)
        return -errno;
    if (n <= 0)
        return rfi_now_ns() < deadline_ns ? 0 : -ETIMEDOUT;
    int rc = fds[0].revents ? stream_read(&c->out) : 0;
    if (rc == 0 && fds[1].revents)
        rc = stream_read(&c->err);
    /* A grandchild may hold the pipes: the child's own end counts once they have nothing to say. */
    *ret_dead = fds[2].revents && !fds[0].revents && !fds[1].revents;
    return rc;
}

static int start(struct child *c, const char *const *argv, const char *const *environment, int (*body)(void *),
                 void *ctx)
{
    int out[2], err[2];
    memset(c, 0, sizeof *c);
    c->pidfd = c->out.fd = c->err.fd = -1;
    if (pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    if (pipe2(err, O_CLOEXEC) < 0) {
        close(out[0]);
        close(out[1]);
        return -errno;
    }
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        die_with(parent);
        default_signals();
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        if (argv)
            exec_child(argv, environment);
        int rc = body(ctx);
        fflush(NULL);
        _exit(rc);
    }
    int rc = pid < 0 ? -errno : 0;
    close(out[1]);
    close(err[1]);
    if (stream_open(&c->out, out[0]) < 0 || stream_open(&c->err, err[0]) < 0)
        rc = rc < 0 ? rc : -ENOMEM;
    c->pid = pid > 0 ? pid : 0;
    if (c->pid && (c->pidfd = pidfd_open_of(pid)) < 0)
        rc = -errno;
    if (rc < 0)
        child_end(c);
    return rc;
}

int child_start(struct child *c, const char *const *argv, const char *const *environment)
{
    return start(c, argv, environment, NULL, NULL);
}

int child_fork(struct child *c, int (*body)(void *ctx), void *ctx)
{
    return start(c, NULL, NULL, body, ctx);
}

int child_wait_text(struct child *c, const char *text, int timeout_ms)
{
    uint64_t deadline_ns = deadline_of(timeout_ms);
    bool dead = false;
    while (!strstr(c->out.text, text)) {
        if (c->out.fd < 0 || dead)
            return -EPIPE;
        int rc = pump(c, deadline_ns, &dead);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void reap(struct child *c)
{
    while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR)
        ;
    c->pid = 0;
    close(c->pidfd);
    c->pidfd = -1;
}

int child_wait(struct child *c, int timeout_ms)
{
    uint64_t deadline_ns = deadline_of(timeout_ms);
    bool dead = false;
    while (c->pid && !dead) {
        int rc = pump(c, deadline_ns, &dead);
        if (rc < 0)
            return rc;
    }
    if (c->pid)
        reap(c);
    return 0;
}

int child_signal(struct child *c, int signal_number)
{
    if (!c->pid)
        return -ESRCH;
    return syscall(SYS_pidfd_send_signal, c->pidfd, signal_number, NULL, 0) < 0 ? -errno : 0;
}

void child_end(struct child *c)
{
    if (c->pid) {
        kill(c->pid, SIGKILL); /* not reaped yet: the pid is still its own */
        if (c->pidfd < 0 || child_wait(c, KILL_WAIT_MS) < 0)
            while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR)
                ;
    }
    if (c->pidfd > 0)
        close(c->pidfd);
    if (c->out.text)
        stream_close(&c->out);
    if (c->err.text)
        stream_close(&c->err);
    free(c->out.text);
    free(c->err.text);
    int status = c->status;
    memset(c, 0, sizeof *c);
    c->pidfd = c->out.fd = c->err.fd = -1;
    c->status = status;
}

int child_exit_code(const struct child *c)
{
    return WIFSIGNALED(c->status) ? 128 + WTERMSIG(c->status) : WEXITSTATUS(c->status);
}

int child_run(struct child *c, const char *const *argv, const char *const *environment, int timeout_ms)
{
    int rc = child_start(c, argv, environment);
    if (rc < 0)
        return rc;
    rc = child_wait(c, timeout_ms);
    if (rc < 0)
        child_end(c);
    return rc;
}
