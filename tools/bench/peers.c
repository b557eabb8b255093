#include "bench/peers.h"

#include "base/clock.h"
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNUSABLE = 77, LOOK_MS = 100, END_MS = 10000, SAID_BYTES = 2048 };
static const uint64_t START_LIMIT_NS = 120000000000, RUN_LIMIT_NS = 900000000000;

const struct bench_peer bench_peers[] = {
    {"torch", "torch_loader.py", NULL},   {"webdataset", "webdataset_loader.py", NULL},
    {"gather", "gather_loader.py", NULL}, {"c-mmap", "c_loader", "mmap"},
    {"c-pread", "c_loader", "pread"},     {0},
};

const struct bench_peer *bench_peer_find(const char *name, size_t n)
{
    for (const struct bench_peer *p = bench_peers; p->name; p++)
        if (strlen(p->name) == n && memcmp(p->name, name, n) == 0)
            return p;
    return NULL;
}

/* One process: its output lines come through `out`, what it complains of through `said`. */
struct child {
    pid_t pid;
    int in, out, err;
    char line[SAID_BYTES], said[SAID_BYTES];
    size_t n_line, n_said;
    bool over; /* its output has ended */
};

/* ---- starting ---- */

/* Installed beside the command, in the build tree, or in the source tree that the build tree lies in. */
static bool find_program(const char *program, char *buf, size_t cap)
{
    static const char *const places[] = {"../libexec/ringfeed/peers", "../bench/peers", "../../../bench/peers"};
    char folder[PATH_MAX];
    const char *given = getenv("RINGFEED_PEERS");
    snprintf(buf, cap, "%s/%s", given ? given : "", program);
    if (given)
        return access(buf, R_OK) == 0;
    snprintf(folder, sizeof folder, "%s", bench_command());
    char *slash = strrchr(folder, '/');
    *(slash ? slash : folder) = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int n = snprintf(buf, cap, "%s/%s/%s", folder, places[i], program);
        if (n > 0 && (size_t)n < cap && access(buf, R_OK) == 0)
            return true;
    }
    return false;
}

static void become(const struct bench_peer *p, const char *program, const char *python,
                   const struct bench_peer_job *job, uint32_t rank)
{
    char text[6][32];
    const char *argv[20];
    int n = 0;
    snprintf(text[0], sizeof text[0], "%u", rank);
    snprintf(text[1], sizeof text[1], "%llu", (unsigned long long)job->batch);
    snprintf(text[2], sizeof text[2], "%u", job->threads);
    snprintf(text[3], sizeof text[3], "%.6f", job->seconds);
    snprintf(text[4], sizeof text[4], "%.3f", (double)job->step_ns * 1e-3);
    if (python)
        argv[n++] = python;
    argv[n++] = program;
    if (p->first)
        argv[n++] = p->first;
    argv[n++] = job->folder;
    static const char *const names[] = {"--rank", "--batch", "--threads", "--seconds", "--step-us"};
    for (int i = 0; i < 5; i++) {
        argv[n++] = names[i];
        argv[n++] = text[i];
    }
    argv[n] = NULL;
    execvp(argv[0], (char *const *)argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(UNUSABLE);
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* In a group of its own, so that its own workers end with it. */
static int start(const struct bench_peer *p, const char *program, const char *python, const struct bench_peer_job *job,
                 uint32_t rank, struct child *c, struct rfi_error *err)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, said[2] = {-1, -1};
    pid_t parent = getpid();
    bool ok = pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(said, O_CLOEXEC) == 0;
    fflush(stdout);
    c->pid = ok ? fork() : -1;
    if (c->pid == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0 || dup2(said[1], 2) < 0)
            _exit(1);
        become(p, program, python, job, rank);
    }
    int code = errno;
    close_one(&in[0]);
    close_one(&out[1]);
    close_one(&said[1]);
    c->in = in[1];
    c->out = out[0];
    c->err = said[0];
    if (c->pid < 0)
        return rfi_fail(err, code, "cannot start %s: %s", p->name, strerror(code));
    setpgid(c->pid, c->pid);
    return 0;
}

/* ---- listening ---- */

/* Appends what there is to read; false: it has ended. What does not fit is lost. */
static bool hear(int fd, char *buf, size_t *n)
{
    char piece[512];
    ssize_t got = read(fd, piece, sizeof piece);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    for (ssize_t i = 0; i < got; i++)
        if (*n + 1 < SAID_BYTES)
            buf[(*n)++] = piece[i];
    buf[*n] = 0;
    return got > 0;
}

static void look(struct child *c, int timeout_ms)
{
    struct pollfd p[] = {{.fd = c->out, .events = POLLIN}, {.fd = c->err, .events = POLLIN}};
    if (poll(p, 2, timeout_ms) <= 0)
        return;
    if (p[0].revents && !hear(c->out, c->line, &c->n_line))
        c->over = true;
    if (p[1].revents && c->err >= 0 && !hear(c->err, c->said, &c->n_said))
        close_one(&c->err);
}

/* Until it has said a whole line, or ended; false: not in time, or interrupted. */
static bool wait_line(struct child *c, uint64_t until, const volatile sig_atomic_t *interrupted)
{
    while (!c->over && !strchr(c->line, '\n') && rfi_now_ns() < until && !*interrupted)
        look(c, LOOK_MS);
    return c->over || strchr(c->line, '\n');
}

/* Whether it ends by itself soon: the answer is there, only its own workers are still to go. */
static void wait_end(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (fd >= 0 && poll(&p, 1, END_MS) < 0 && errno == EINTR)
        ;
    if (fd >= 0)
        close(fd);
}

/* Exit status. Its whole group goes before its number can be anybody else's. */
static int reap(struct child *c)
{
    int status = 0;
    close_one(&c->in);
    while (c->err >= 0 && c->over && hear(c->err, c->said, &c->n_said))
        ;
    wait_end(c->pid);
    kill(-c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close_one(&c->out);
    close_one(&c->err);
    c->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- a run ---- */

static int failed(const struct bench_peer *p, struct child *c, bool in_time, const volatile sig_atomic_t *interrupted,
                  struct rfi_error *err)
{
    if (!in_time)
        kill(-c->pid, SIGKILL);
    int status = reap(c);
    while (c->n_said && c->said[c->n_said - 1] == '\n')
        c->said[--c->n_said] = 0;
    const char *last = strrchr(c->said, '\n') ? strrchr(c->said, '\n') + 1 : c->said;
    if (*interrupted)
        return rfi_fail(err, EINTR, "interrupted");
    if (in_time && status == UNUSABLE) {
        rfi_fail(err, ENOENT, "%.200s", last);
        return 1;
    }
    return rfi_fail(err, EIO, "%s %s: %.300s", p->name, in_time ? "failed" : "did not end in time", last);
}

static int add(const struct bench_peer *p, const char *line, struct bench_peer_result *ret, struct rfi_error *err)
{
    struct json_object *o = json_tokener_parse(line), *member;
    double seconds = json_object_get_double(json_object_object_get(o, "seconds"));
    bool ok = o && json_object_object_get_ex(o, "version", &member);
    if (ok)
        snprintf(ret->version, sizeof ret->version, "%s", json_object_get_string(member));
    ret->samples += json_object_get_double(json_object_object_get(o, "samples"));
    ret->bytes += json_object_get_double(json_object_object_get(o, "bytes"));
    ret->cpu_seconds += json_object_get_double(json_object_object_get(o, "cpu_seconds"));
    ret->cpu_bytes += json_object_get_double(json_object_object_get(o, "cpu_bytes"));
    ret->seconds = seconds > ret->seconds ? seconds : ret->seconds;
    json_object_put(o);
    return ok ? 0 : rfi_fail(err, EPROTO, "%s: does not answer as bench/peers/peer.py says: %.200s", p->name, line);
}

static int go_together(const struct bench_peer *p, const struct bench_peer_job *job, struct child *children,
                       struct bench_peer_result *ret, struct rfi_error *err)
{
    uint64_t until = rfi_now_ns() + START_LIMIT_NS;
    for (uint32_t i = 0; i < job->ranks; i++) {
        bool in_time = wait_line(&children[i], until, job->interrupted);
        if (!in_time || children[i].over)
            return failed(p, &children[i], in_time, job->interrupted, err);
        children[i].n_line = 0;
        children[i].line[0] = 0;
    }
    for (uint32_t i = 0; i < job->ranks; i++)
        if (write(children[i].in, "go\n", 3) != 3)
            return failed(p, &children[i], true, job->interrupted, err);
    until = rfi_now_ns() + RUN_LIMIT_NS;
    for (uint32_t i = 0; i < job->ranks; i++) {
        bool in_time = wait_line(&children[i], until, job->interrupted);
        if (!in_time || !strchr(children[i].line, '\n'))
            return failed(p, &children[i], in_time, job->interrupted, err);
        int rc = add(p, children[i].line, ret, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int run_with(const struct bench_peer *p, const char *program, const char *python,
                    const struct bench_peer_job *job, struct bench_peer_result *ret, struct rfi_error *err)
{
    struct child *children = calloc(job->ranks, sizeof *children);
    int rc = children ? 0 : rfi_fail(err, ENOMEM, "out of memory");
    *ret = (struct bench_peer_result){0};
    for (uint32_t i = 0; i < job->ranks && children; i++)
        children[i].in = children[i].out = children[i].err = -1;
    for (uint32_t i = 0; i < job->ranks && rc == 0; i++)
        rc = start(p, program, python, job, job->first_rank + i, &children[i], err);
    if (rc == 0)
        rc = go_together(p, job, children, ret, err);
    for (uint32_t i = 0; i < job->ranks && children; i++) {
        if (children[i].pid > 0 && rc != 0)
            kill(-children[i].pid, SIGKILL);
        if (children[i].pid > 0)
            reap(&children[i]);
    }
    free(children);
    return rc;
}

int bench_peer_run(const struct bench_peer *p, const struct bench_peer_job *job, struct bench_peer_result *ret,
                   struct rfi_error *err)
{
    char program[PATH_MAX];
    const char *end = strrchr(p->program, '.'), *given = getenv("RINGFEED_PYTHON");
    bool script = end && strcmp(end, ".py") == 0;
    if (!find_program(p->program, program, sizeof program)) {
        rfi_fail(err, ENOENT, "its program %s is not installed (RINGFEED_PEERS names the folder)", p->program);
        return 1;
    }
    if (!script)
        return run_with(p, program, NULL, job, ret, err);
    int rc = run_with(p, program, given ? given : "python3", job, ret, err);
    if (rc == 1 && !given) /* an environment's Python does not know Debian's packages */
        rc = run_with(p, program, "/usr/bin/python3", job, ret, err);
    return rc;
}
