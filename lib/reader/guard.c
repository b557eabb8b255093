#include "reader/guard.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* Lines of the copy after the next few are asked for early: what the processor's own prefetcher cannot guess is where
 * the next sample begins. Measured on 2 KiB samples out of 2 GiB: 0.47 us a sample without, 0.33 with. */
enum { AHEAD = 4, AHEAD_LINES = 8, LINE = 64 };

struct guard {
    sigjmp_buf back;
    struct rfi_copy *running; /* the copy under way */
};

static _Thread_local struct guard *volatile active;
static struct sigaction old_bus, old_segv;
static bool installed;

static bool inside(const void *address, const void *start, uint32_t bytes)
{
    return (uintptr_t)address - (uintptr_t)start < bytes;
}

/* Whoever had the signal before. By default the faulting instruction runs again, and its signal is then fatal, with the
 * right address in the core file. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
    const struct sigaction *old = sig == SIGBUS ? &old_bus : &old_segv;
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(sig, info, context);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(sig);
    else
        signal(sig, SIG_DFL);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    struct guard *g = active;
    struct rfi_copy *c = g ? g->running : NULL;
    if (c && info->si_code > 0 && inside(info->si_addr, c->from, c->bytes))
        c->result = RFI_COPY_SOURCE;
    else if (c && info->si_code > 0 && inside(info->si_addr, c->to, c->bytes))
        c->result = RFI_COPY_TARGET;
    else {
        pass_on(sig, info, context);
        return;
    }
    siglongjmp(g->back, 1);
}

/* SA_NODEFER: the handler is left by a jump, which restores no signal mask. */
static int install(void)
{
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (installed)
        return 0;
    if (sigaction(SIGBUS, &sa, &old_bus) < 0 || sigaction(SIGSEGV, &sa, &old_segv) < 0)
        return -errno;
    installed = true;
    return 0;
}

static void prefetch(const struct rfi_copy *c)
{
    for (uint32_t at = 0; c->from && at < AHEAD_LINES * LINE && at < c->bytes; at += LINE)
        __builtin_prefetch(c->from + at, 0, 3);
}

int rfi_guard_copy(struct rfi_copy *copies, uint32_t n)
{
    struct guard g = {.running = NULL};
    struct rfi_copy *volatile next = copies; /* survives the jump */
    int rc = install();
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < n && i < AHEAD; i++)
        prefetch(&copies[i]);
    sigsetjmp(g.back, 0);
    active = &g;
    while (next < copies + n) {
        struct rfi_copy *c = next++;
        if (c + AHEAD < copies + n)
            prefetch(c + AHEAD);
        if (!c->from)
            continue;
        c->result = (int32_t)c->bytes;
        g.running = c;
        atomic_signal_fence(memory_order_seq_cst);
        memcpy(c->to, c->from, c->bytes);
        atomic_signal_fence(memory_order_seq_cst);
        g.running = NULL;
    }
    active = NULL;
    return 0;
}
