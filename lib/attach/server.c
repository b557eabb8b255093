/* Starting `ringfeed serve` from a program: spawned, never forked from the caller; ready and errors come
 * through pipes; ends with its caller unless detached. */
#include "base/clock.h"
#include "base/error.h"
#include "order/names.h"
#include "segment/segment.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <ringfeed/ringfeed.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    DEFAULT_TIMEOUT_MS = 30000,
    STOP_MS = 10000,
    ASK_MS = 100,
    REMOVE_TRIES = 100,
    REMOVE_RETRY_NS = 5000000,
    MAX_ARGS = 512,
    MAX_MIRRORS = 16
};

struct rf_server {
    pid_t pid;
    int pidfd;
    int out, err; /* its stdout and stderr */
    bool reaped;
    int status;
    char said[4096]; /* the tail of its messages */
    struct rfi_error error;
};

struct args {
    char *v[MAX_ARGS];
    size_t n;
    bool full;
};

__attribute__((format(printf, 2, 3))) static void arg(struct args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (a->n + 1 >= MAX_ARGS || vasprintf(&a->v[a->n], fmt, ap) < 0)
        a->full = true;
    else
        a->n++;
    va_end(ap);
}

static void free_args(struct args *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i]);
}

void rf_server_options_init(rf_server_options *o)
{
    *o = (rf_server_options){.size = sizeof *o, .epochs = 1, .heartbeat_ms = 1000, .max_restarts = 100, .spares = -1};
}

static void order_args(struct args *a, const rf_order_options *o)
{
    arg(a, "--world-size=%" PRIu32, o->world_size);
    arg(a, "--batch=%" PRIu64, o->batch);
    arg(a, "--strategy=%s", rfi_strategy_names[o->strategy]);
    if (o->strategy == RF_ADAPTIVE)
        arg(a, "--base=%s", rfi_strategy_names[o->base]);
    arg(a, "--shuffle=%s", rfi_shuffle_names[o->shuffle]);
    arg(a, "--tail=%s", rfi_tail_names[o->tail]);
    arg(a, "--seed=%" PRIu64, o->seed);
    if (o->block_samples)
        arg(a, "--block-samples=%" PRIu64, o->block_samples);
    if (o->window_blocks)
        arg(a, "--window-blocks=%" PRIu64, o->window_blocks);
    if (o->hash_partitions)
        arg(a, "--hash-partitions=%" PRIu64, o->hash_partitions);
    arg(a, "--hash-seed=%" PRIu64, o->hash_seed);
    arg(a, "--hash-key=%s", rfi_hash_key_names[o->hash_key]);
    if (o->ranges)
        arg(a, "--ranges=%s", o->ranges);
    if (o->allow_gaps)
        arg(a, "--allow-gaps");
    if (o->allow_overlap)
        arg(a, "--allow-overlap");
    if (o->subset)
        arg(a, "--subset=%s", o->subset);
    if (o->subset_sequence)
        arg(a, "--subset-sequence");
    if (o->split)
        arg(a, "--split=%s", o->split);
    if (o->use)
        arg(a, "--use=%s", o->use);
    if (o->repeat_order)
        arg(a, "--repeat-order");
    if (o->classes)
        arg(a, "--classes=%" PRIu64, o->classes);
}

static void dataset_args(struct args *a, const rf_dataset_options *d)
{
    if (d->format)
        arg(a, "--format=%s", d->format);
    if (d->record_bytes)
        arg(a, "--record-bytes=%" PRIu64, d->record_bytes);
    if (d->header_bytes)
        arg(a, "--header-bytes=%" PRIu64, d->header_bytes);
    if (d->labels)
        arg(a, "--labels=%s", d->labels);
    if (d->label_field)
        arg(a, "--label-field=%s", d->label_field);
}

static void server_args(struct args *a, const rf_server_options *o)
{
    static const char *const engines[] = {"auto", "uring", "pread", "null", "mapped"};
    static const char *const switches[] = {"auto", "on", "off"};
    static const char *const on_errors[] = {"raise", "skip", "replace"};
    arg(a, "--name=%s", o->name);
    if (o->ranks)
        arg(a, "--ranks=%" PRIu32, o->ranks);
    arg(a, "--first-rank=%" PRIu32, o->first_rank);
    if (o->workers)
        arg(a, "--workers=%" PRIu32, o->workers);
    arg(a, "--epochs=%" PRIu64, o->epochs);
    arg(a, "--start-epoch=%" PRIu64, o->start_epoch);
    if (o->prefetch)
        arg(a, "--prefetch=%" PRIu64, o->prefetch);
    if (o->ring_bytes)
        arg(a, "--ring-bytes=%" PRIu64, o->ring_bytes);
    if (o->cache_bytes)
        arg(a, "--cache-bytes=%" PRIu64, o->cache_bytes);
    if (o->cpu_budget)
        arg(a, "--cpu-budget=%" PRIu32, o->cpu_budget);
    if (o->queue_depth)
        arg(a, "--queue-depth=%" PRIu32, o->queue_depth);
    arg(a, "--engine=%s", engines[o->engine]);
    arg(a, "--direct=%s", switches[o->direct]);
    arg(a, "--pin=%s", o->pin == RF_OFF ? "off" : "auto");
    arg(a, "--numa=%s", o->numa == RF_OFF ? "off" : "auto");
    arg(a, "--heartbeat-ms=%" PRIu32, o->heartbeat_ms);
    arg(a, "--max-restarts=%" PRIu32, o->max_restarts);
    if (o->checkpoint)
        arg(a, "--checkpoint=%s", o->checkpoint);
    if (o->checkpoint_every)
        arg(a, "--checkpoint-every=%" PRIu64, o->checkpoint_every);
    for (size_t i = 0; i < o->n_resume; i++)
        arg(a, "--resume=%s", o->resume[i]);
    if (o->order->strategy == RF_ADAPTIVE && o->rebalance_threshold > 0)
        arg(a, "--rebalance-threshold=%.3f", o->rebalance_threshold);
    if (o->order->strategy == RF_ADAPTIVE && o->rebalance_off)
        arg(a, "--rebalance=off");
    if (o->redistribute)
        arg(a, "--on-dead-rank=redistribute");
    for (size_t i = 0; i < o->n_mirrors; i++)
        arg(a, "--mirror=%s", o->mirrors[i]);
    if (o->hedge_ms)
        arg(a, "--hedge-ms=%" PRIu32, o->hedge_ms);
    if (o->on_error)
        arg(a, "--on-error=%s", on_errors[o->on_error]);
    if (o->spares >= 0)
        arg(a, "--spares=%d", o->spares);
    if (o->replication)
        arg(a, "--replication=%" PRIu32, o->replication);
    if (o->slow_ratio > 0)
        arg(a, "--slow-ratio=%.6f", o->slow_ratio);
    if (!o->detached)
        arg(a, "--parent-pid=%d", (int)getpid());
    arg(a, "--json");
}

int rf_server_validate(const rf_server_options *o)
{
    struct rfi_error *err = rfi_thread_error();
    if (!o || o->size != sizeof *o || !o->dataset || o->dataset->size != sizeof *o->dataset || !o->order ||
        o->order->size != sizeof *o->order)
        return rfi_fail(err, EINVAL,
                        "wrong options: server, dataset and order options must come from their init functions");
    size_t n = o->name ? strlen(o->name) : 0;
    if (n < 1 || n > RF_NAME_MAX ||
        strspn(o->name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != n)
        return rfi_fail(err, EINVAL, "wrong name '%.80s': a name has 1 to 64 of A-Z a-z 0-9 _ -",
                        o->name ? o->name : "");
    if ((unsigned)o->engine > RF_ENGINE_MAPPED || (unsigned)o->direct > RF_OFF || (unsigned)o->pin > RF_OFF ||
        (unsigned)o->numa > RF_OFF)
        return rfi_fail(err, EINVAL, "wrong options: engine, direct, pin or numa is not one of its enum");
    if ((o->n_resume && !o->resume) || o->n_resume > MAX_ARGS / 4)
        return rfi_fail(err, EINVAL,
                        "wrong options: n_resume is %zu (at most %d) and resume must point to as many files",
                        o->n_resume, MAX_ARGS / 4);
    if ((unsigned)o->on_error > RF_ON_ERROR_REPLACE || o->n_mirrors > MAX_MIRRORS || (o->n_mirrors && !o->mirrors))
        return rfi_fail(err, EINVAL,
                        "wrong options: on_error is not one of its enum, or mirrors is not a list of at most %d",
                        MAX_MIRRORS);
    for (size_t i = 0; i < o->n_mirrors; i++)
        if (!o->mirrors[i])
            return rfi_fail(err, EINVAL, "wrong options: mirror %zu is NULL. Name a folder", i);
    if (o->dataset->n_paths == 0 || o->dataset->n_paths > MAX_ARGS / 2)
        return rfi_fail(err, EINVAL, "wrong dataset: %zu paths (1 to %d). Give a directory, a glob or an index file",
                        o->dataset->n_paths, MAX_ARGS / 2);
    if ((uint64_t)o->first_rank + (o->ranks ? o->ranks : 1) > o->order->world_size)
        return rfi_fail(err, EINVAL, "wrong ranks: %u from %u on do not lie inside a world of %u", o->ranks,
                        o->first_rank, o->order->world_size);
    return rf_order_validate(o->order);
}

/* The command: as told, $RINGFEED, beside the library (PREFIX/lib/… -> PREFIX/bin), else by PATH. */
static void find_command(const rf_server_options *o, char *buf, size_t cap)
{
    Dl_info info;
    const char *env = getenv("RINGFEED");
    snprintf(buf, cap, "%s", o->command ? o->command : env && *env ? env : "ringfeed");
    if (o->command || (env && *env) || !dladdr((void *)(uintptr_t)rf_server_start, &info) || !info.dli_fname)
        return;
    char dir[4000];
    snprintf(dir, sizeof dir, "%s", info.dli_fname);
    for (int up = 0; up < 4; up++) {
        char *slash = strrchr(dir, '/');
        if (!slash)
            return;
        *slash = 0;
        char path[4200];
        snprintf(path, sizeof path, "%s/bin/ringfeed", dir);
        if (access(path, X_OK) == 0) {
            snprintf(buf, cap, "%s", path);
            return;
        }
    }
}

static int spawn(struct rf_server *s, const char *command, struct args *a, struct rfi_error *err)
{
    int out[2], said[2];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;
    if (pipe2(out, O_CLOEXEC) < 0)
        return rfi_fail(err, errno, "cannot make a pipe: %s", strerror(errno));
    if (pipe2(said, O_CLOEXEC) < 0) {
        close(out[0]);
        close(out[1]);
        return rfi_fail(err, errno, "cannot make a pipe: %s", strerror(errno));
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, said[1], 2);
    posix_spawnattr_init(&attr);
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attr, &none);
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGCHLD);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGTERM);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    /* A group of its own: the ^C of a terminal is for the caller, who ends the server if it means to end. */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    /* A caller that only trains never reads this pipe: a full one must lose messages, not stop the server. */
    fcntl(said[1], F_SETFL, O_NONBLOCK);
    int rc = posix_spawnp(&s->pid, command, &actions, &attr, a->v, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    close(out[1]);
    close(said[1]);
    s->out = out[0];
    s->err = said[0];
    if (rc == 0 && (s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0)) >= 0)
        return 0;
    if (rc == 0) {
        rc = errno;
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    return rfi_fail(err, rc, "cannot start '%s': %s. Set RINGFEED to the path of the ringfeed command", command,
                    strerror(rc));
}

/* Keeps the last of what the server said, for our own error text. */
static void hear(struct rf_server *s)
{
    char buf[2048];
    ssize_t n = read(s->err, buf, sizeof buf);
    if (n <= 0) {
        close(s->err);
        s->err = -1;
        return;
    }
    size_t have = strlen(s->said), room = sizeof s->said - 1;
    if (have + (size_t)n > room) {
        size_t drop = have + (size_t)n - room;
        memmove(s->said, s->said + drop, have - drop);
        have -= drop;
    }
    memcpy(s->said + have, buf, (size_t)n);
    s->said[have + (size_t)n] = 0;
}

static int reap(struct rf_server *s)
{
    if (!s->reaped && waitpid(s->pid, &s->status, 0) == s->pid)
        s->reaped = true;
    return WIFEXITED(s->status) ? WEXITSTATUS(s->status) : 128 + WTERMSIG(s->status);
}

/* 1: the ready line came; 0: not yet; negative: its stdout ended. */
static int read_ready(struct rf_server *s, char *line, size_t cap)
{
    size_t have = strlen(line);
    ssize_t n = read(s->out, line + have, cap - 1 - have);
    if (n <= 0)
        return -1;
    line[have + (size_t)n] = 0;
    return strstr(line, "\"ready\"") && strchr(line, '\n') ? 1 : 0;
}

static int wait_ready(struct rf_server *s, const rf_server_options *o, int timeout_ms, struct rfi_error *err)
{
    char line[1024] = "";
    uint64_t until = rfi_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        struct pollfd p[] = {{.fd = s->out, .events = POLLIN}, {.fd = s->err, .events = POLLIN}};
        uint64_t now = rfi_now_ns();
        if (now >= until)
            return rfi_fail(
                err, ETIMEDOUT, "the server (process %d) was not ready within %d ms: %s", (int)s->pid, timeout_ms,
                s->said[0] ? s->said : "it said nothing. A large dataset may need an index: `ringfeed index`");
        int left_ms = (int)((until - now) / 1000000u) + 1;
        int n = poll(p, 2, o->on_wait && left_ms > ASK_MS ? ASK_MS : left_ms);
        if (n < 0 && errno != EINTR)
            return rfi_fail(err, errno, "cannot wait for the server: %s", strerror(errno));
        if (n <= 0) {
            if (o->on_wait && o->on_wait(o->on_wait_ctx))
                return rfi_fail(err, EINTR, "interrupted while the server (process %d) was starting", (int)s->pid);
            continue;
        }
        if (s->err >= 0 && p[1].revents)
            hear(s);
        int ready = p[0].revents ? read_ready(s, line, sizeof line) : 0;
        if (ready > 0)
            return 0;
        if (ready < 0)
            break;
    }
    while (s->err >= 0)
        hear(s);
    int status = reap(s);
    size_t n = strlen(s->said);
    while (n && s->said[n - 1] == '\n')
        s->said[--n] = 0;
    return rfi_fail(err, status == 2 ? EINVAL : EIO, "the server did not start (exit %d): %s", status, s->said);
}

static void free_server(struct rf_server *s)
{
    int fds[] = {s->pidfd, s->out, s->err};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(s);
}

int rf_server_start(const rf_server_options *o, int timeout_ms, rf_server **ret)
{
    struct rfi_error *err = rfi_thread_error();
    struct args a = {.n = 0};
    char command[4200];
    int rc = rf_server_validate(o);
    if (rc < 0)
        return rc;
    struct rf_server *s = calloc(1, sizeof *s);
    if (!s)
        return rfi_fail(err, ENOMEM, "out of memory");
    s->pidfd = s->out = s->err = -1;
    find_command(o, command, sizeof command);
    arg(&a, "%s", command);
    arg(&a, "serve");
    dataset_args(&a, o->dataset);
    order_args(&a, o->order);
    server_args(&a, o);
    arg(&a, "--");
    for (size_t i = 0; i < o->dataset->n_paths; i++)
        arg(&a, "%s", o->dataset->paths[i]);
    rc = a.full ? rfi_fail(err, E2BIG, "too many arguments for the server") : spawn(s, command, &a, err);
    free_args(&a);
    if (rc == 0) {
        rc = wait_ready(s, o, timeout_ms < 0 ? DEFAULT_TIMEOUT_MS : timeout_ms, err);
        if (rc < 0 && !s->reaped) {
            kill(s->pid, SIGKILL);
            reap(s);
        }
    }
    if (rc < 0) {
        free_server(s);
        return rc;
    }
    *ret = s;
    return 0;
}

int rf_server_wait(rf_server *s, int timeout_ms, int *ret_status)
{
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : rfi_now_ns() + (uint64_t)timeout_ms * 1000000u;
    while (!s->reaped) {
        struct pollfd p[] = {{.fd = s->pidfd, .events = POLLIN}, {.fd = s->err, .events = POLLIN}};
        uint64_t now = rfi_now_ns();
        uint64_t left_ms = now >= until ? 0 : until == UINT64_MAX ? 1000 : (until - now) / 1000000u + 1;
        poll(p, 2, left_ms > 1000 ? 1000 : (int)left_ms);
        if (s->err >= 0 && p[1].revents)
            hear(s); /* or its pipe would fill and hold it up */
        if (p[0].revents)
            break;
        if (now >= until)
            return rfi_fail(&s->error, ETIMEDOUT, "the server (process %d) still runs after %d ms", (int)s->pid,
                            timeout_ms);
    }
    int status = reap(s);
    if (ret_status)
        *ret_status = status;
    if (status)
        rfi_fail(&s->error, EIO, "the server ended with status %d: %s", status, s->said);
    return 0;
}

int rf_server_stop(rf_server *s)
{
    int status = 0;
    if (!s)
        return 0;
    if (!s->reaped)
        kill(s->pid, SIGTERM);
    int rc = rf_server_wait(s, STOP_MS, &status);
    if (rc < 0) {
        kill(s->pid, SIGKILL);
        reap(s);
    }
    free_server(s);
    return rc < 0 ? rc : status;
}

int rf_remove_dead(const char *name)
{
    if (!name)
        return rfi_fail(rfi_thread_error(), EINVAL, "rf_remove_dead: a null pointer. Pass the name of a run");
    int rc = rfi_segment_reclaim(name, rfi_thread_error());
    /* A worker that had just been forked has the owner's lock until it is dead as well. */
    for (int tries = 0; rc == -EBUSY && tries < REMOVE_TRIES; tries++) {
        nanosleep(&(struct timespec){.tv_nsec = REMOVE_RETRY_NS}, NULL);
        rc = rfi_segment_reclaim(name, rfi_thread_error());
    }
    return rc == -ENOENT ? 0 : rc;
}

int rf_server_pid(const rf_server *s)
{
    return s->pid;
}

const char *rf_server_error(const rf_server *s)
{
    return s ? s->error.text : rf_last_error();
}
