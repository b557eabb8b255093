/* Worker processes: fork, notice death, drain, free their claims, start again. lib/README.md, "The dead still
 * write": nothing of a dead worker is reused before its queue is empty. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/futex.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILL_WAIT_MS = 2000 };
enum { BACKOFF_FIRST_NS = 10000000, BACKOFF_MOST_NS = 1000000000 };

static void set_state(struct rfi_coordinator *c, uint32_t w, enum rfi_worker_state state)
{
    c->children[w].state = state;
    atomic_store_explicit(&c->run.workers[w].state, state, memory_order_release);
}

static void close_all(struct rfi_coordinator *c)
{
    rfi_segment_disown(&c->run.segment);
    rfi_leases_close(c);
    rfi_engine_abandon(c);
    rfi_hang_abandon(c);
    for (uint32_t i = 0; i < c->run.config.workers; i++)
        if (c->children[i].pidfd >= 0)
            close(c->children[i].pidfd);
    close(c->epfd);
    close(c->sigfd);
    if (c->parent_pidfd >= 0)
        close(c->parent_pidfd);
}

/* In the child. Never returns. */
static void become_worker(struct rfi_coordinator *c, uint32_t w, pid_t parent)
{
    struct rfi_error err = {0};
    sigset_t none;
    sigemptyset(&none);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    signal(SIGINT, SIG_IGN); /* Ctrl-C goes to the whole group, as a closed terminal does; the parent decides */
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_NAME, "ringfeed-worker");
    close_all(c);
    uint32_t queue = c->run.workers[w].queue;
    for (uint32_t q = 0; q < c->run.config.queues; q++)
        if (q != queue)
            c->readers[q].ops->abandon(&c->readers[q]);
    int cpu = c->run.workers[w].cpu, rc = 0;
    if (cpu >= 0)
        rc = rfi_topology_pin_cpu(cpu, &err);
    else if (c->o->pin != RF_OFF && c->topology.n_nodes > 1) /* more workers than CPUs: at least they stay near */
        rc = rfi_topology_pin_node(&c->topology, c->placement.worker_node[w], &err);
    if (rc < 0)
        rfi_log(RFI_LOG_WARNING, "worker %u is not pinned: %s", w, err.text);
    c->setup.worker_node = c->placement.worker_node[w];
    _exit(rfi_worker_main(&c->setup, w));
}

static int start(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_child *child = &c->children[w];
    struct rfi_worker_shared *record = &c->run.workers[w];
    pid_t parent = getpid();
    child->batches_at_start = atomic_load_explicit(&record->batches, memory_order_relaxed);
    atomic_fetch_add_explicit(&record->incarnation, 1, memory_order_relaxed);
    atomic_store_explicit(&record->heartbeat_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&record->started_ns, rfi_now_ns(), memory_order_relaxed); /* the worker's own follows */
    atomic_store_explicit(&record->busy_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&record->jobs, 0, memory_order_relaxed);
    atomic_store_explicit(&record->completed_ns, 0, memory_order_relaxed);
    child->fenced_ns = 0;
    child->retired = child->stuck = false;
    rfi_hang_started(c, w);
    pid_t pid = fork();
    if (pid == 0)
        become_worker(c, w, parent);
    if (pid < 0)
        return -errno;
    RFI_FAIL_POINT("spawn");
    child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int rc = child->pidfd < 0 ? -errno : rfi_watch(c, child->pidfd, RFI_EV_CHILD, w);
    if (rc < 0) { /* nobody would see it die: it must not run */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        if (child->pidfd >= 0)
            close(child->pidfd);
        child->pidfd = -1;
        return rc;
    }
    child->pid = pid;
    atomic_store_explicit(&record->pid, pid, memory_order_relaxed);
    set_state(c, w, RFI_WORKER_RUNNING);
    atomic_fetch_add_explicit(&c->run.coordinator->live_workers, 1, memory_order_relaxed);
    return 0;
}

int rfi_children_start(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->run.config;
    c->children = calloc(f->workers, sizeof *c->children);
    if (!c->children)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    for (uint32_t w = 0; w < f->workers; w++) {
        uint32_t node = c->placement.worker_node[w];
        c->children[w] = (struct rfi_child){.pidfd = -1, .drain_fd = -1};
        c->run.workers[w].queue = w;
        c->run.workers[w].node = c->topology.nodes[node].os_node;
        c->run.workers[w].cpu = c->o->pin == RF_OFF ? -1 : c->placement.worker_cpu[w];
    }
    for (uint32_t w = 0; w < f->workers; w++) {
        int rc = start(c, w);
        if (rc < 0)
            return rfi_fail(c->err, -rc, "cannot start worker %u: %s. Lower --workers or raise the limit on processes",
                            w, strerror(-rc));
    }
    return 0;
}

void rfi_child_fence(struct rfi_coordinator *c, uint32_t w, const char *why)
{
    struct rfi_child *child = &c->children[w];
    if (child->state != RFI_WORKER_RUNNING || child->fenced_ns)
        return;
    child->fenced_ns = rfi_now_ns();
    atomic_fetch_add_explicit(&c->run.coordinator->fenced, 1, memory_order_relaxed);
    rfi_log(RFI_LOG_WARNING, "worker %u (pid %d) hangs: %s. It is killed and started again", w, (int)child->pid, why);
    kill(child->pid, SIGKILL);
}

void rfi_child_exited(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_child *child = &c->children[w];
    int status = 0;
    if (child->pid <= 0)
        return;
    pid_t reaped = waitpid(child->pid, &status, WNOHANG);
    if (reaped != child->pid && !(reaped < 0 && errno == ECHILD))
        return;
    rfi_unwatch(c, child->pidfd); /* by hand: a worker being forked may still have a copy of it */
    close(child->pidfd);
    child->pidfd = -1;
    atomic_fetch_sub_explicit(&c->run.coordinator->live_workers, 1, memory_order_relaxed);
    atomic_store_explicit(&c->run.workers[w].pid, 0, memory_order_relaxed);
    if (c->stopping) {
        set_state(c, w, RFI_WORKER_STOPPED);
        return;
    }
    atomic_fetch_add_explicit(&c->run.coordinator->deaths, 1, memory_order_relaxed);
    if (WIFSIGNALED(status))
        rfi_log(RFI_LOG_WARNING, "worker %u (pid %d) was killed by signal %d; its batches are read again", w,
                (int)child->pid, WTERMSIG(status));
    else
        rfi_log(RFI_LOG_WARNING, "worker %u (pid %d) ended with status %d; its batches are read again", w,
                (int)child->pid, WEXITSTATUS(status));
    set_state(c, w, RFI_WORKER_DRAINING);
    child->draining_ns = rfi_now_ns();
    struct rfi_reader *reader = &c->readers[c->run.workers[w].queue];
    child->drain_fd = reader->ops->drain_fd(reader);
    if (child->drain_fd >= 0 && rfi_watch(c, child->drain_fd, RFI_EV_DRAIN, w) < 0)
        child->drain_fd = -1; /* the loop steps it by time then */
}

/* The reads named by tags are over: their entries in the in-flight table are free again. */
struct seen {
    struct rfi_coordinator *c;
    uint32_t queue;
};

static void seen_completion(void *ctx, uint32_t tag, int32_t result)
{
    struct seen *s = ctx;
    (void)result;
    if (tag < s->c->run.config.queue_depth)
        atomic_store_explicit(&rfi_run_inflight(&s->c->run, s->queue, tag)->active, 0, memory_order_release);
}

/* Back-off: none for the first death since a published batch, then 10 ms doubling to 1 s. */
static uint64_t backoff_ns(uint32_t deaths_in_row)
{
    if (deaths_in_row <= 1)
        return 0;
    uint32_t doublings = deaths_in_row - 2;
    return doublings >= 7 ? BACKOFF_MOST_NS : rfi_min((uint64_t)BACKOFF_FIRST_NS << doublings, BACKOFF_MOST_NS);
}

/* A rank whose keepers are all given up is everybody's. */
static void open_to_all(struct rfi_coordinator *c)
{
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        uint64_t may = atomic_load_explicit(&c->run.ranks[i].keepers, memory_order_relaxed);
        bool kept = false;
        for (uint32_t w = 0; w < c->run.config.workers; w++)
            kept |= (may >> w & 1) && c->children[w].state != RFI_WORKER_GIVEN_UP;
        if (kept)
            continue;
        rfi_log(RFI_LOG_WARNING, "rank %u has lost its primary and all standbys: any worker reads for it now",
                c->run.rings[i].rank);
        atomic_store_explicit(&c->run.ranks[i].keepers, UINT64_MAX, memory_order_relaxed);
    }
}

static void give_up(struct rfi_coordinator *c, uint32_t w)
{
    set_state(c, w, RFI_WORKER_GIVEN_UP);
    rfi_log(RFI_LOG_ERROR,
            "worker %u died %u times in a row without a batch and is not started again (--max-restarts %u)", w,
            c->children[w].deaths_in_row, c->run.config.max_restarts);
    for (uint32_t i = 0; i < c->run.config.workers; i++)
        if (c->children[i].state != RFI_WORKER_GIVEN_UP) {
            open_to_all(c);
            return;
        }
    c->failed =
        rfi_fail(c->err, ECHILD,
                 "every worker died %u times in a row and none is left. Look at the kernel's log (out of memory?) "
                 "and at the messages above",
                 c->run.config.max_restarts);
}

static void free_claims(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_worker_shared *record = &c->run.workers[w];
    for (uint32_t e = 0; e < c->run.config.queue_depth; e++)
        atomic_store_explicit(&rfi_run_inflight(&c->run, record->queue, e)->active, 0, memory_order_release);
    unsigned freed = 0;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        freed += rfi_ring_reclaim(&c->run.rings[i], w, record->queue);
    if (freed)
        for (uint32_t n = 0; n < c->run.config.nodes; n++)
            rfi_bell_ring((struct rfi_bell_shared *)rfi_segment_region(&c->run.segment, RFI_R_BELLS) + n);
    rfi_spares_answered(c, w);
}

void rfi_child_drained(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_child *child = &c->children[w];
    struct rfi_worker_shared *record = &c->run.workers[w];
    bool published = atomic_load_explicit(&record->batches, memory_order_relaxed) != child->batches_at_start;
    child->deaths_in_row = published || rfi_tune_resting(c, w) ? 1 : child->deaths_in_row + 1;
    if (child->deaths_in_row > c->run.config.max_restarts) {
        give_up(c, w);
        return;
    }
    child->start_at_ns = rfi_now_ns() + backoff_ns(child->deaths_in_row);
    set_state(c, w, RFI_WORKER_BACKOFF);
}

#ifdef RFI_FAIL_POINTS
/* The control of the late-write test (tests/multi/late_writes.py): what would happen without the drain. The next worker
 * gets a queue of its own, so that it sees no completions of the dead one's reads. */
static int skip_drain(struct rfi_coordinator *c, struct rfi_reader *reader)
{
    reader->ops->close(reader);
    int rc = rfi_reader_open(reader, (rf_engine)c->run.config.engine, c->run.config.queue_depth, c->err);
    return rc < 0 ? rc : 1;
}
#else
#define skip_drain(c, reader) 1
#endif

static void step_drain(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_child *child = &c->children[w];
    struct rfi_reader *reader = &c->readers[c->run.workers[w].queue];
    struct seen ctx = {c, c->run.workers[w].queue};
    int rc = rfi_test_switch("RINGFEED_TEST_NO_DRAIN") ? skip_drain(c, reader)
                                                       : reader->ops->drain(reader, seen_completion, &ctx);
    RFI_FAIL_POINT("drain");
    if (rc == 0)
        return;
    if (child->drain_fd >= 0)
        rfi_unwatch(c, child->drain_fd);
    child->drain_fd = -1;
    if (rc < 0) {
        c->failed = rfi_fail(c->err, -rc, "cannot drain the io_uring of dead worker %u: %s", w, strerror(-rc));
        return;
    }
    free_claims(c, w);
    RFI_FAIL_POINT("reclaim");
    rfi_child_drained(c, w);
}

/* In the kernel for good: killed, and not on its way to die. A process that has still to be scheduled would die
 * before its next instruction, but let it. */
static bool in_kernel(pid_t pid)
{
    char path[40], text[512], *end;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return true;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    end = strrchr(text, ')');
    return end && end[1] == ' ' && !strchr("RTt", end[2]);
}

/* Death is not over within the limit: neither reaped nor drained. */
static bool overdue(const struct rfi_coordinator *c, uint32_t w)
{
    const struct rfi_child *child = &c->children[w];
    uint64_t now = rfi_now_ns(), limit = (uint64_t)c->run.config.heartbeat_ms * 1000000u;
    if (child->state == RFI_WORKER_RUNNING)
        return child->fenced_ns && now - child->fenced_ns > limit && in_kernel(child->pid);
    return child->state == RFI_WORKER_DRAINING && !child->retired && now - child->draining_ns > limit;
}

/* Its process may still be there, but it does nothing any more. */
static void retire(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_child *child = &c->children[w];
    if (!rfi_spares_retire(c, w))
        return;
    if (child->drain_fd >= 0)
        rfi_unwatch(c, child->drain_fd);
    child->drain_fd = -1;
    child->retired = true;
    if (child->state != RFI_WORKER_RUNNING)
        return;
    rfi_unwatch(c, child->pidfd);
    close(child->pidfd);
    child->pidfd = -1;
    child->pid = 0;
    atomic_fetch_sub_explicit(&c->run.coordinator->live_workers, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->run.coordinator->deaths, 1, memory_order_relaxed);
    atomic_store_explicit(&c->run.workers[w].pid, 0, memory_order_relaxed);
    set_state(c, w, RFI_WORKER_DRAINING);
}

void rfi_children_step(struct rfi_coordinator *c)
{
    for (uint32_t w = 0; w < c->run.config.workers && !c->stopping && !c->failed; w++) {
        struct rfi_child *child = &c->children[w];
        if (child->state == RFI_WORKER_DRAINING && !child->retired)
            step_drain(c, w);
        if (overdue(c, w))
            retire(c, w);
        if (child->state == RFI_WORKER_DRAINING && child->retired && !rfi_spares_moving(c, w))
            rfi_child_drained(c, w);
        if (child->state == RFI_WORKER_BACKOFF && rfi_now_ns() >= child->start_at_ns) {
            atomic_fetch_add_explicit(&c->run.coordinator->restarts, 1, memory_order_relaxed);
            if (start(c, w) < 0) { /* out of processes, perhaps: counts as a death, tried again later */
                child->start_at_ns = rfi_now_ns() + BACKOFF_MOST_NS;
                if (++child->deaths_in_row > c->run.config.max_restarts)
                    give_up(c, w);
            }
        }
    }
}

bool rfi_children_busy(const struct rfi_coordinator *c)
{
    for (uint32_t w = 0; w < c->run.config.workers; w++)
        if (c->children[w].state == RFI_WORKER_BACKOFF ||
            (c->children[w].state == RFI_WORKER_DRAINING && !c->children[w].stuck &&
             !(c->children[w].retired && rfi_spares_calm(c))))
            return true;
    return false;
}

void rfi_children_stop(struct rfi_coordinator *c)
{
    c->stopping = true;
    for (uint32_t w = 0; w < c->run.config.workers; w++)
        if (c->children[w].drain_fd >= 0) { /* not stepped any more: it would only keep us awake */
            rfi_unwatch(c, c->children[w].drain_fd);
            c->children[w].drain_fd = -1;
        }
    atomic_store_explicit(&c->run.coordinator->stop, 1, memory_order_release);
    atomic_fetch_add_explicit(&c->run.coordinator->tuned, 1, memory_order_release);
    rfi_futex_wake_all(&c->run.coordinator->tuned);
    for (uint32_t n = 0; n < c->run.config.nodes; n++)
        rfi_bell_ring((struct rfi_bell_shared *)rfi_segment_region(&c->run.segment, RFI_R_BELLS) + n);
}

bool rfi_children_gone(const struct rfi_coordinator *c)
{
    for (uint32_t w = 0; c->children && w < c->run.config.workers; w++)
        if (c->children[w].state == RFI_WORKER_RUNNING)
            return false;
    return true;
}

void rfi_children_kill(struct rfi_coordinator *c)
{
    for (uint32_t w = 0; c->children && w < c->run.config.workers; w++) {
        if (c->children[w].state != RFI_WORKER_RUNNING)
            continue;
        kill(c->children[w].pid, SIGKILL);
        set_state(c, w, RFI_WORKER_STOPPED);
        /* A worker stuck in the kernel (a hung device) dies when it can: it holds nothing of ours by name. */
        struct pollfd p = {.fd = c->children[w].pidfd, .events = POLLIN};
        if (poll(&p, 1, KILL_WAIT_MS) > 0)
            waitpid(c->children[w].pid, NULL, WNOHANG);
        else
            rfi_log(RFI_LOG_WARNING,
                    "worker %u (pid %d) does not die: a device hangs. Its memory comes back when it does", w,
                    (int)c->children[w].pid);
    }
}
