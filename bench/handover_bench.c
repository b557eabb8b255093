/* What a batch's way from one process to another costs beside the least that the machine can do: a cache line that a
 * store moves to a core that spins on it, and a futex that wakes a sleeper.
 *
 * handover_bench [--json] [ROUNDS]
 *
 * Each round measures all four, one way, from just before the store (of the ring: before publish) to when the other
 * side has seen it (has found the batch ready). Two processes, on two CPUs where there are as many. Medians in
 * nanoseconds, and the ratios of the medians. */
#include "ring_world.h"

#include "base/clock.h"
#include "base/futex.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 4, BLOCK = 512, LINE = 64 };

/* A sleeper must be asleep, and a spinner spinning, when its turn comes. */
enum { SPINNING_NS = 3000, ASLEEP_NS = 500000 };

enum what { BOUNCE, RING, FUTEX, RING_WAKE, KINDS };

/* Each word on a line of its own. */
struct shared {
    _Alignas(LINE) _Atomic uint64_t go; /* the consumer waits for number `go` */
    _Alignas(LINE) _Atomic uint64_t word; /* bounced: when it was stored */
    _Alignas(LINE) _Atomic uint64_t stored; /* when publish or the futex's store began */
    _Alignas(LINE) _Atomic uint32_t futex;
};

static int one_block(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    *ret = BLOCK;
    return 0;
}

static void run_on(int cpu)
{
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) < 0 || CPU_COUNT(&all) < 2)
        return;
    CPU_ZERO(&one);
    for (int i = 0, n = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all) && n++ == cpu)
            CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void spin_for(uint64_t ns)
{
    for (uint64_t until = rfi_now_ns() + ns; rfi_now_ns() < until;)
        ;
}

static void stamp(struct shared *s)
{
    atomic_store_explicit(&s->stored, rfi_now_ns(), memory_order_relaxed);
}

static void claim(struct ring_world *w, struct rfi_claim *c)
{
    if (rfi_ring_claim(&w->ring, 1, one_block, NULL, c) != 1)
        _exit(1);
}

static void produce(struct ring_world *w, struct shared *s, enum what what)
{
    struct rfi_claim c;
    if (what == RING || what == RING_WAKE)
        claim(w, &c);
    if (what == BOUNCE || what == RING)
        spin_for(SPINNING_NS);
    else
        nanosleep(&(struct timespec){.tv_nsec = ASLEEP_NS}, NULL);
    switch (what) {
    case BOUNCE:
        atomic_store_explicit(&s->word, rfi_now_ns(), memory_order_release);
        break;
    case FUTEX:
        stamp(s);
        atomic_store_explicit(&s->futex, 1, memory_order_release);
        rfi_futex_wake_all(&s->futex);
        break;
    default:
        stamp(s);
        rfi_ring_publish(&w->ring, 1, &c);
    }
}

static _Noreturn void producer(struct ring_world *w, struct shared *s)
{
    run_on(1);
    for (uint64_t i = 1;; i++) {
        while (atomic_load_explicit(&s->go, memory_order_acquire) < i)
            ;
        produce(w, s, (enum what)((i - 1) % KINDS));
    }
}

/* One way, in nanoseconds. */
static uint64_t consume(struct ring_world *w, struct shared *s, enum what what, uint64_t *ticket)
{
    uint64_t now, then;
    switch (what) {
    case BOUNCE:
        while (!(then = atomic_load_explicit(&s->word, memory_order_acquire)))
            ;
        now = rfi_now_ns();
        atomic_store_explicit(&s->word, 0, memory_order_relaxed);
        return now - then;
    case FUTEX:
        while (!atomic_load_explicit(&s->futex, memory_order_acquire))
            rfi_futex_wait(&s->futex, 0, 1000000000);
        now = rfi_now_ns();
        atomic_store_explicit(&s->futex, 0, memory_order_relaxed);
        break;
    default:
        while (rfi_ring_look(&w->ring, *ticket) != RFI_TAKE_READY)
            if (what == RING_WAKE)
                rfi_ring_wait(&w->ring, *ticket, 1000000000);
        now = rfi_now_ns();
        atomic_store_explicit(&w->ring.tr->taken, ++*ticket, memory_order_relaxed);
        rfi_ring_release(&w->ring, *ticket);
    }
    return now - atomic_load_explicit(&s->stored, memory_order_relaxed);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double median(uint64_t *ns, uint64_t n)
{
    qsort(ns, n, sizeof *ns, compare);
    return (double)ns[n / 2];
}

int main(int argc, char **argv)
{
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    const char *count = argv[json ? 2 : 1];
    uint64_t rounds = count ? strtoull(count, NULL, 10) : 2000, *ns[KINDS], ticket = 0;
    struct rfi_generation first = {.end_ticket = UINT64_MAX};
    struct ring_world w;
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent = getpid(), pid;

    for (int k = 0; k < KINDS; k++)
        ns[k] = calloc(rounds ? rounds : 1, sizeof *ns[k]);
    if (rounds == 0 || s == MAP_FAILED || !ns[BOUNCE] || !ns[RING] || !ns[FUTEX] || !ns[RING_WAKE]) {
        fprintf(stderr, "usage: handover_bench [--json] [ROUNDS]\n");
        return 2;
    }
    ring_world_make(&w, DEPTH, (uint64_t)DEPTH * BLOCK, &first);
    pid = fork();
    if (pid < 0) {
        perror("handover_bench: fork");
        return 1;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        producer(&w, s);
    }
    run_on(0);
    for (uint64_t i = 0; i < rounds * KINDS; i++) {
        atomic_store_explicit(&s->go, i + 1, memory_order_release);
        ns[i % KINDS][i / KINDS] = consume(&w, s, (enum what)(i % KINDS), &ticket);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ring_world_free(&w);
    double bounce = median(ns[BOUNCE], rounds), ring = median(ns[RING], rounds), futex = median(ns[FUTEX], rounds),
           wake = median(ns[RING_WAKE], rounds);
    printf(json ? "{\"bounce_ns\": %.0f, \"ring_ns\": %.0f, \"ring_to_bounce\": %.2f, \"futex_ns\": %.0f, \"wake_ns\": "
                  "%.0f, \"wake_to_futex\": %.2f}\n"
                : "cache line %.0f ns, batch to a spinning trainer %.0f ns: %.2f; futex %.0f ns, batch to a sleeping "
                  "trainer %.0f ns: %.2f\n",
           bounce, ring, ring / bounce, futex, wake, wake / futex);
    return 0;
}
