/* What a trainer feels of a worker that is killed: the restart as a stall.
 *
 * restart_bench [--json] [KILLS]
 *
 * One worker reads for one trainer that takes every batch at once, so that no batch is in reserve and each death shows.
 * The worker is killed KILLS times at random instants, with buffered reads and with O_DIRECT. Prints, as p50, p99 and
 * maximum:
 *   noticed  from SIGKILL until the parent calls the worker DRAINING
 *   drain    from there until the drain is over
 *   stall    the longest wait for a batch around the death, less the usual one and less the drain
 * The trainer polls. Where a poll comes too late for a state, the next state's time stands for it, so `noticed` errs
 * upwards; a drain that is over between two polls counts as none, and then `stall` has it. */
#include "base/clock.h"
#include "run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <ringfeed/ringfeed.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD = 4096, RECORDS = 4096, BATCH = 64, DEPTH = 4, USUAL = 400, MOST_BETWEEN = 200, KILLS_MAX = 100000 };
static const uint64_t LIMIT_NS = 30000000000u;

static char data_file[PATH_MAX];

struct bench {
    char name[64];
    rf_server *server;
    rf_trainer *trainer;
    struct rfi_run_view run;
    uint64_t last_ns; /* when the last batch came */
};

/* One death: what was seen when. 0: not yet. */
struct death {
    uint64_t killed_ns, noticed_ns, drained_ns, stall_ns;
    uint64_t incarnation; /* of the killed */
    bool replaced;
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "restart_bench: %s: %s\n", what, why);
    exit(1);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Of sorted numbers: the smallest that at least the share q does not exceed. */
static double quantile_us(const uint64_t *v, uint32_t n, double q)
{
    uint32_t at = (uint32_t)(q * n + 0.9999999);
    return (double)v[at ? at - 1 : 0] * 1e-3;
}

static void look(struct bench *b, struct death *d)
{
    const struct rfi_worker_shared *w = &b->run.workers[0];
    uint32_t state = atomic_load_explicit(&w->state, memory_order_acquire);
    bool next = d->replaced = atomic_load_explicit(&w->incarnation, memory_order_relaxed) != d->incarnation;
    uint64_t now = rfi_now_ns();
    if (!d->noticed_ns && (next || state != RFI_WORKER_RUNNING))
        d->noticed_ns = now;
    if (d->noticed_ns && !d->drained_ns && (next || state != RFI_WORKER_DRAINING))
        d->drained_ns = now;
}

/* Takes the next batch; returns how long it was awaited. `d` may be NULL. */
static uint64_t take(struct bench *b, struct death *d)
{
    rf_batch batch;
    uint64_t from = b->last_ns, deadline = rfi_now_ns() + LIMIT_NS;
    int rc;
    while ((rc = rf_next(b->trainer, 0, &batch)) == -ETIMEDOUT) {
        if (d)
            look(b, d);
        if (rfi_now_ns() > deadline)
            die("no batch for 30 s", rf_trainer_error(b->trainer));
        sched_yield();
    }
    if (rc < 0)
        die("next", rf_trainer_error(b->trainer));
    b->last_ns = rfi_now_ns();
    rf_release(b->trainer, &batch);
    if (d)
        look(b, d);
    return b->last_ns - from;
}

/* The mean: batches come in bursts, so that the median may be that of a ready one. */
static uint64_t usual_wait(struct bench *b)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 2 * DEPTH; i++) /* the ring was full when the trainer came */
        take(b, NULL);
    for (uint32_t i = 0; i < USUAL; i++)
        sum += take(b, NULL);
    return sum / USUAL;
}

/* Batches that were ready when the new worker came are a ring of them at most; those behind are its own. */
static void kill_once(struct bench *b, uint64_t usual, struct death *d)
{
    const struct rfi_worker_shared *w = &b->run.workers[0];
    uint64_t longest = 0, wait;
    for (int n = rand() % MOST_BETWEEN + 2 * DEPTH; n > 0; n--)
        take(b, NULL);
    *d = (struct death){.incarnation = atomic_load_explicit(&w->incarnation, memory_order_relaxed)};
    pid_t pid;
    while ((pid = atomic_load_explicit(&w->pid, memory_order_relaxed)) <= 0) /* it may read before its parent says so */
        take(b, NULL);
    d->killed_ns = rfi_now_ns();
    if (kill(pid, SIGKILL) < 0)
        die("cannot kill the worker", strerror(errno));
    for (uint32_t behind = 0; behind <= DEPTH + 1; behind += d->replaced)
        if ((wait = take(b, d)) > longest)
            longest = wait;
    uint64_t less = usual + (d->drained_ns - d->noticed_ns);
    d->stall_ns = longest > less ? longest - less : 0;
}

static void remove_file(void)
{
    unlink(data_file);
}

static void make_file(void)
{
    unsigned char record[RECORD];
    const char *directory = getenv("TMPDIR");
    snprintf(data_file, sizeof data_file, "%s/restart-bench-XXXXXX", directory ? directory : "/var/tmp");
    int fd = mkstemp(data_file);
    if (fd < 0)
        die(data_file, strerror(errno));
    atexit(remove_file);
    for (uint32_t i = 0; i < RECORDS; i++) {
        memset(record, (int)(i % 251), sizeof record);
        if (write(fd, record, sizeof record) != sizeof record)
            die(data_file, "cannot be written in full");
    }
    if (fsync(fd) < 0 || close(fd) < 0)
        die(data_file, strerror(errno));
}

static int begin(struct bench *b, rf_switch direct, const char *command)
{
    const char *path = data_file;
    struct rfi_error err = {0};
    rf_dataset_options d;
    rf_order_options o;
    rf_server_options s;
    rf_dataset_options_init(&d);
    rf_order_options_init(&o);
    rf_server_options_init(&s);
    d.paths = &path;
    d.n_paths = 1;
    d.format = "raw";
    d.record_bytes = RECORD;
    o.world_size = 1;
    o.batch = BATCH;
    s.name = b->name;
    s.dataset = &d;
    s.order = &o;
    s.epochs = 0;
    s.workers = 1;
    s.prefetch = DEPTH;
    s.direct = direct;
    s.command = command;
    if (rf_server_start(&s, -1, &b->server) < 0)
        return -1;
    if (rf_attach(b->name, 0, NULL, &b->trainer) < 0)
        die("attach", rf_last_error());
    if (rfi_run_attach(b->name, false, &b->run, &err) < 0)
        die("attach to look", err.text);
    b->last_ns = rfi_now_ns();
    return 0;
}

static void end(struct bench *b)
{
    rfi_run_close(&b->run);
    rf_detach(b->trainer);
    if (rf_server_stop(b->server) != 0)
        die("the server did not end cleanly", rf_last_error());
}

static void print(bool json, const char *mode, uint32_t kills, uint64_t usual, uint64_t *v[3])
{
    static const char *const names[3] = {"noticed", "drain", "stall"};
    printf(json ? "{\"reads\": \"%s\", \"kills\": %u, \"usual_us\": %.1f" : "%-8s %u kills, a batch every %.1f us:",
           mode, kills, (double)usual * 1e-3);
    for (int i = 0; i < 3; i++) {
        qsort(v[i], kills, sizeof *v[i], ascending);
        printf(json ? ", \"%s_us\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}"
                    : "  %s p50 %.0f us, p99 %.0f us, max %.0f us",
               names[i], quantile_us(v[i], kills, 0.5), quantile_us(v[i], kills, 0.99), (double)v[i][kills - 1] * 1e-3);
    }
    printf(json ? "}\n" : "\n");
    fflush(stdout);
}

static void measure(struct bench *b, bool json, const char *mode, uint32_t kills)
{
    uint64_t usual = usual_wait(b), *v[3];
    for (int i = 0; i < 3; i++)
        if (!(v[i] = calloc(kills, sizeof *v[i])))
            die("measure", "out of memory");
    for (uint32_t k = 0; k < kills; k++) {
        struct death d;
        kill_once(b, usual, &d);
        v[0][k] = d.noticed_ns - d.killed_ns;
        v[1][k] = d.drained_ns - d.noticed_ns;
        v[2][k] = d.stall_ns;
    }
    print(json, mode, kills, usual, v);
    for (int i = 0; i < 3; i++)
        free(v[i]);
}

/* $RINGFEED, or the one of this build: DIR/bench/restart_bench -> DIR/tools/ringfeed. */
static const char *command_of(char *path, size_t bytes)
{
    const char *env = getenv("RINGFEED");
    ssize_t n = readlink("/proc/self/exe", path, bytes - 1);
    if (env)
        return env;
    for (int up = 0; up < 2 && n > 0; up++)
        while (n > 0 && path[--n] != '/')
            ;
    snprintf(path + (n > 0 ? n : 0), bytes - (size_t)(n > 0 ? n : 0), "/tools/ringfeed");
    return path;
}

int main(int argc, char **argv)
{
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    const char *count = argv[json ? 2 : 1];
    unsigned long kills = count ? strtoul(count, NULL, 10) : 200;
    char path[PATH_MAX];
    static struct bench b;

    if (kills == 0 || kills > KILLS_MAX) {
        fprintf(stderr, "usage: restart_bench [--json] [KILLS]\n");
        return 2;
    }
    const char *command = command_of(path, sizeof path);
    srand((unsigned)getpid());
    make_file();
    snprintf(b.name, sizeof b.name, "restart-bench-%d", (int)getpid());
    for (int direct = 0; direct < 2; direct++) {
        const char *mode = direct ? "direct" : "buffered";
        if (begin(&b, direct ? RF_ON : RF_OFF, command) < 0) {
            fprintf(stderr, "restart_bench: no figures for %s reads: %s\n", mode, rf_last_error());
            return 1;
        }
        measure(&b, json, mode, (uint32_t)kills);
        end(&b);
    }
    return 0;
}
