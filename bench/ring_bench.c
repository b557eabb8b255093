/* The hand-over alone: a null engine (nothing is read), one ring, and the price of a batch.
 *
 * ring_bench [--json] [BATCHES]
 *
 * Prints nanoseconds per batch for the trainer's side (look, take, release, everything ready), for the
 * worker's side (claim, publish), and batches a second from one process to another. Nanoseconds on a shared
 * machine vary; that no system call is made is a test (tests/unit/ring, system_calls). */
#include "ring_world.h"

#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEPTH = 64, BLOCK = 512 };

static int one_block(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    *ret = BLOCK;
    return 0;
}

struct sides {
    double trainer_ns, worker_ns;
};

static void take(struct rfi_ring *r, uint64_t ticket)
{
    if (rfi_ring_look(r, ticket) != RFI_TAKE_READY) {
        fprintf(stderr, "ring_bench: ticket %llu is not ready\n", (unsigned long long)ticket);
        exit(1);
    }
    atomic_store_explicit(&r->tr->taken, ticket + 1, memory_order_relaxed);
    rfi_ring_release(r, ticket + 1);
}

/* One thread plays both sides in turn, so each is timed with nothing to wait for. */
static struct sides measure_sides(uint64_t batches)
{
    struct rfi_generation first = {.end_ticket = UINT64_MAX};
    struct ring_world w;
    struct rfi_claim c;
    uint64_t worker_ns = 0, trainer_ns = 0, next = 0;

    ring_world_make(&w, DEPTH, (uint64_t)DEPTH * BLOCK, &first);
    while (next < batches) {
        uint64_t start = rfi_now_ns(), middle, n = 0;
        for (; rfi_ring_claim(&w.ring, 1, one_block, NULL, &c) == 1; n++)
            rfi_ring_publish(&w.ring, 1, &c);
        middle = rfi_now_ns();
        for (; n > 0; n--)
            take(&w.ring, next++);
        worker_ns += middle - start;
        trainer_ns += rfi_now_ns() - middle;
    }
    ring_world_free(&w);
    return (struct sides){.trainer_ns = (double)trainer_ns / (double)next,
                          .worker_ns = (double)worker_ns / (double)next};
}

static _Noreturn void worker_process(struct ring_world *w)
{
    struct rfi_claim c;

    for (;;) {
        if (rfi_ring_claim(&w->ring, 1, one_block, NULL, &c) == 1) {
            rfi_ring_publish(&w->ring, 1, &c);
            continue;
        }
        uint32_t value = rfi_bell_prepare(w->ring.bell);
        if (rfi_ring_claimable(&w->ring) == 0)
            rfi_bell_wait(w->ring.bell, value, 1000000000);
    }
}

/* From a worker process to this one, both as fast as they can. */
static double measure_two_processes(uint64_t batches)
{
    struct rfi_generation first = {.end_ticket = UINT64_MAX};
    struct ring_world w;
    pid_t parent = getpid(), pid;
    uint64_t start, ns;

    ring_world_make(&w, DEPTH, (uint64_t)DEPTH * BLOCK, &first);
    pid = fork();
    if (pid < 0) {
        perror("ring_bench: fork");
        exit(1);
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        worker_process(&w);
    }
    start = rfi_now_ns();
    for (uint64_t t = 0; t < batches;) {
        if (rfi_ring_look(&w.ring, t) == RFI_TAKE_NOT_YET)
            rfi_ring_wait(&w.ring, t, 1000000000);
        else
            take(&w.ring, t++);
    }
    ns = rfi_now_ns() - start;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ring_world_free(&w);
    return (double)batches * 1e9 / (double)ns;
}

int main(int argc, char **argv)
{
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    const char *count = argv[json ? 2 : 1];
    uint64_t batches = count ? strtoull(count, NULL, 10) : 5000000;

    if (batches == 0) {
        fprintf(stderr, "usage: ring_bench [--json] [BATCHES]\n");
        return 2;
    }
    struct sides s = measure_sides(batches);
    double rate = measure_two_processes(batches);
    if (json)
        printf("{\"trainer_ns\": %.1f, \"worker_ns\": %.1f, \"batches_per_s\": %.0f, \"depth\": %d}\n", s.trainer_ns,
               s.worker_ns, rate, DEPTH);
    else
        printf("trainer %.1f ns a ready batch, worker %.1f ns, %.0f batches/s between processes (depth %d)\n",
               s.trainer_ns, s.worker_ns, rate, DEPTH);
    return 0;
}
