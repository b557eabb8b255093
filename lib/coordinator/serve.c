/* The parent's one loop. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TICK_MS = 20, DRAIN_TICK_MS = 1, STOP_NS = 5000000000u / 2 };

int rfi_watch(struct rfi_coordinator *c, int fd, enum rfi_event kind, uint32_t index)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | index};
    return epoll_ctl(c->epfd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

void rfi_unwatch(struct rfi_coordinator *c, int fd)
{
    epoll_ctl(c->epfd, EPOLL_CTL_DEL, fd, NULL);
}

/* Two descriptors a trainer, one a worker, and the files of the dataset: as many as we may have. */
static void raise_files(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
}

static int open_loop(struct rfi_coordinator *c)
{
    raise_files();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP); /* the terminal is gone: end cleanly */
    signal(SIGCHLD, SIG_DFL); /* ignored by who started us, the kernel would reap workers behind our back */
    sigprocmask(SIG_BLOCK, &set, NULL);
    c->epfd = epoll_create1(EPOLL_CLOEXEC);
    c->sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->epfd < 0 || c->sigfd < 0 || rfi_watch(c, c->sigfd, RFI_EV_SIGNAL, 0) < 0)
        return rfi_fail(c->err, errno, "cannot make the event loop: %s", strerror(errno));
    if (!c->o->parent_pid)
        return 0;
    c->parent_pidfd = (int)syscall(SYS_pidfd_open, (pid_t)c->o->parent_pid, 0);
    if (c->parent_pidfd < 0 || getppid() != c->o->parent_pid || rfi_watch(c, c->parent_pidfd, RFI_EV_PARENT, 0) < 0)
        return rfi_fail(c->err, ESRCH, "the process %lld that this server belongs to is gone",
                        (long long)c->o->parent_pid);
    return 0;
}

static void set_state(struct rfi_coordinator *c, enum rfi_run_state state)
{
    atomic_store_explicit(&c->run.coordinator->state, state, memory_order_release);
}

/* For the trainers, who do not see our messages. Before the state, which is stored with release. */
static void tell_why(struct rfi_coordinator *c)
{
    snprintf(c->run.coordinator->failure, sizeof c->run.coordinator->failure, "%.440s", c->err->text);
}

/* Wakes every waiting trainer, so that it looks at the run's state. */
static void wake_trainers(struct rfi_coordinator *c)
{
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        for (uint32_t s = 0; s < c->run.config.depth; s++)
            rfi_futex_wake_all(&c->run.rings[i].slots[s].word);
}

/* How many signals came: the first asks for a clean stop, the second ends at once. */
static int signals(struct rfi_coordinator *c)
{
    struct signalfd_siginfo info;
    int n = 0;
    while (read(c->sigfd, &info, sizeof info) == sizeof info)
        n++;
    return n;
}

static int dispatch(struct rfi_coordinator *c, uint64_t data)
{
    uint32_t index = (uint32_t)data;
    switch ((enum rfi_event)(data >> 32)) {
    case RFI_EV_SIGNAL:
        return signals(c);
    case RFI_EV_PARENT:
        rfi_unwatch(c, c->parent_pidfd);
        return 1;
    case RFI_EV_LISTEN:
        rfi_lease_accept(c);
        break;
    case RFI_EV_PENDING:
        rfi_lease_pending(c, index);
        break;
    case RFI_EV_SOCK:
        rfi_lease_message(c, index);
        break;
    case RFI_EV_TRAINER:
        rfi_lease_died(c, index);
        break;
    case RFI_EV_CHILD:
        rfi_child_exited(c, index);
        break;
    case RFI_EV_DRAIN: /* stepped by the loop */
    case RFI_EV_TRIAL:
        break;
    }
    return 0;
}

/* Often enough to see a hang well within the limit. */
static int tick_ms(const struct rfi_coordinator *c)
{
    return (int)rfi_max(1, rfi_min(TICK_MS, c->o->heartbeat_ms / 8));
}

static int wait_events(struct rfi_coordinator *c)
{
    struct epoll_event events[64];
    int asked = 0;
    int n = epoll_wait(c->epfd, events, 64, rfi_children_busy(c) ? DRAIN_TICK_MS : tick_ms(c));
    /* A signal to the whole group kills workers too: ours is looked at first, or they would be restarted. What
     * is not looked at now comes again. */
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 >> 32 == RFI_EV_SIGNAL || events[i].data.u64 >> 32 == RFI_EV_PARENT)
            asked += dispatch(c, events[i].data.u64);
    for (int i = 0; i < n && !asked; i++)
        if (events[i].data.u64 >> 32 != RFI_EV_SIGNAL && events[i].data.u64 >> 32 != RFI_EV_PARENT)
            dispatch(c, events[i].data.u64);
    return asked;
}

/* Lets the workers finish what is in flight; a second signal or the time limit ends them. */
static void stop_workers(struct rfi_coordinator *c)
{
    rfi_children_stop(c);
    for (uint64_t until = rfi_now_ns() + STOP_NS; !rfi_children_gone(c) && rfi_now_ns() < until;)
        if (wait_events(c))
            break;
    rfi_children_kill(c);
}

static void loop(struct rfi_coordinator *c)
{
    for (;;) {
        atomic_store_explicit(&c->run.coordinator->heartbeat_ns, rfi_now_ns(), memory_order_relaxed);
        if (wait_events(c)) {
            set_state(c, RFI_RUN_STOPPING);
            return;
        }
        rfi_children_step(c);
        rfi_hang_step(c);
        rfi_spares_step(c);
        rfi_engine_step(c);
        rfi_rates_step(c);
        rfi_status_step(c);
        rfi_tune_step(c);
        rfi_grow_step(c);
        rfi_gates_step(c);
        rfi_balance_step(c);
        rfi_save_step(c);
        if (c->o->tick)
            c->o->tick(c->o->ctx, &c->run);
        if (c->failed) {
            tell_why(c);
            set_state(c, RFI_RUN_FAILED);
            return;
        }
        if (rfi_leases_done(c)) {
            set_state(c, RFI_RUN_DONE);
            return;
        }
    }
}

int rfi_serve(const struct rfi_serve_options *o, struct rfi_error *err)
{
    struct rfi_coordinator c = {.o = o, .epfd = -1, .sigfd = -1, .listener = -1, .parent_pidfd = -1, .err = err};
    for (uint32_t i = 0; i < RFI_PENDING; i++)
        c.pending[i] = -1;
    int rc = open_loop(&c);
    if (rc == 0)
        rc = rfi_birth(&c);
    if (rc == 0)
        rc = rfi_leases_open(&c);
    if (rc == 0)
        rc = rfi_hang_open(&c);
    if (rc == 0)
        rc = rfi_spares_open(&c);
    if (rc == 0)
        rc = rfi_status_open(&c);
    if (rc == 0)
        rc = rfi_tune_open(&c);
    if (rc == 0)
        rc = rfi_grow_open(&c);
    if (rc == 0)
        rc = rfi_children_start(&c);
    if (rc == 0) {
        set_state(&c, RFI_RUN_READY);
        rfi_segment_ready(&c.run.segment);
        if (o->ready)
            o->ready(o->ctx, &c.run);
        loop(&c);
        wake_trainers(&c);
        rc = c.failed;
        stop_workers(&c);
        rfi_save_last(&c);
    } else if (c.children) {
        stop_workers(&c);
    }
    rfi_leases_close(&c);
    rfi_hang_close(&c);
    rfi_spares_close(&c);
    rfi_status_close(&c);
    rfi_tune_close(&c);
    rfi_grow_close(&c);
    rfi_death(&c);
    if (c.epfd >= 0)
        close(c.epfd);
    if (c.sigfd >= 0)
        close(c.sigfd);
    if (c.parent_pidfd >= 0)
        close(c.parent_pidfd);
    free(c.children);
    free(c.leases);
    free(c.rated);
    free(c.measured);
    return rc;
}
