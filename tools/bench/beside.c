#include "bench/beside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_MS = 100 };

/* What a child leaves behind, in memory that is shared. */
struct left {
    struct bare_result result;
    struct rfi_error err;
    bool done;
};

struct beside {
    unsigned n;
    pid_t *pids;
    struct left *left; /* [n] */
    int ready[2]; /* a byte each child that is set up */
    int go[2]; /* closed by us: begin */
};

static void child(struct beside *b, unsigned i, const struct reads *list, const struct bare_options *o, pid_t parent)
{
    struct left *l = &b->left[i];
    struct bare_loop *loop = NULL;
    char byte = 0;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(b->ready[0]);
    close(b->go[1]);
    if (getppid() != parent || bare_create(list, o, &loop, &l->err) < 0)
        _exit(1);
    if (write(b->ready[1], &byte, 1) != 1)
        _exit(1);
    while (read(b->go[0], &byte, 1) < 0 && errno == EINTR)
        ;
    l->done = bare_run(loop, &l->result, &l->err) == 0;
    bare_destroy(loop);
    _exit(l->done ? 0 : 1);
}

static int start(struct beside *b, const struct reads *lists, const struct bare_options *o, struct rfi_error *err)
{
    pid_t parent = getpid();
    fflush(stdout); /* or every child would have a copy to write */
    for (unsigned i = 0; i < b->n; i++) {
        b->pids[i] = fork();
        if (b->pids[i] < 0)
            return rfi_fail(err, errno, "cannot start a bare loop: %s", strerror(errno));
        if (b->pids[i] == 0)
            child(b, i, &lists[i], o, parent);
    }
    return 0;
}

static void kill_all(const struct beside *b)
{
    for (unsigned i = 0; i < b->n && b->pids; i++)
        if (b->pids[i] > 0)
            kill(b->pids[i], SIGKILL);
}

static bool one_ended(const struct beside *b)
{
    for (unsigned i = 0; i < b->n; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)b->pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
            return true;
    }
    return false;
}

/* A byte of a child, within LOOK_MS. 1, 0: none yet, -1: none will come, all have ended. */
static int hear(const struct beside *b)
{
    struct pollfd p = {.fd = b->ready[0], .events = POLLIN};
    char byte;
    if (poll(&p, 1, LOOK_MS) <= 0)
        return 0;
    return read(b->ready[0], &byte, 1) == 1 ? 1 : -1;
}

/* Until all are set up; false: one has ended instead. */
static bool wait_ready(const struct beside *b, const volatile sig_atomic_t *interrupted)
{
    for (unsigned ready = 0; ready < b->n;) {
        int heard = hear(b);
        if (heard < 0 || *interrupted || (heard == 0 && one_ended(b)))
            return false;
        ready += (unsigned)heard;
    }
    return true;
}

/* Each child's copy of the pipe goes with it. */
static void reap(const struct beside *b, const volatile sig_atomic_t *interrupted)
{
    while (hear(b) >= 0)
        if (*interrupted)
            kill_all(b);
    for (unsigned i = 0; i < b->n; i++)
        while (b->pids[i] > 0 && waitpid(b->pids[i], NULL, 0) < 0 && errno == EINTR)
            ;
}

static int add_up(const struct beside *b, const volatile sig_atomic_t *interrupted, struct bare_result *ret,
                  struct rfi_error *err)
{
    *ret = (struct bare_result){0};
    for (unsigned i = 0; i < b->n; i++) {
        const struct left *l = &b->left[i];
        if (!l->done)
            return *interrupted  ? rfi_fail(err, EINTR, "interrupted")
                   : l->err.code ? rfi_fail(err, -l->err.code, "%s", l->err.text)
                                 : rfi_fail(err, EIO, "a bare loop ended before it was done");
        ret->reads += l->result.reads;
        ret->bytes += l->result.bytes;
        ret->syscalls += l->result.syscalls;
        ret->cpu_seconds += l->result.cpu_seconds;
        if (l->result.seconds > ret->seconds)
            ret->seconds = l->result.seconds;
    }
    return 0;
}

static int open_beside(struct beside *b, struct rfi_error *err)
{
    b->ready[0] = b->ready[1] = b->go[0] = b->go[1] = -1;
    b->pids = calloc(b->n, sizeof *b->pids);
    b->left = mmap(NULL, b->n * sizeof *b->left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->left == MAP_FAILED)
        b->left = NULL;
    if (!b->pids || !b->left || pipe2(b->ready, O_CLOEXEC) < 0 || pipe2(b->go, O_CLOEXEC) < 0)
        return rfi_fail(err, ENOMEM, "no memory or descriptors for %u bare loops", b->n);
    return 0;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int bench_beside(const struct reads *lists, unsigned n, const struct bare_options *o,
                 const volatile sig_atomic_t *interrupted, struct bare_result *ret, struct rfi_error *err)
{
    struct beside b = {.n = n};
    int rc = open_beside(&b, err);
    if (rc == 0)
        rc = start(&b, lists, o, err);
    close_one(&b.ready[1]);
    close_one(&b.go[0]);
    if (rc < 0 || !wait_ready(&b, interrupted))
        kill_all(&b);
    close_one(&b.go[1]);
    if (b.pids && b.ready[0] >= 0)
        reap(&b, interrupted);
    if (rc == 0)
        rc = add_up(&b, interrupted, ret, err);
    close_one(&b.ready[0]);
    free(b.pids);
    if (b.left)
        munmap(b.left, n * sizeof *b.left);
    return rc;
}
