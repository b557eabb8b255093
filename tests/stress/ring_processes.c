/* The stress body as processes on shared memory, with SIGKILL at random instants to workers and trainer.
 *
 * ring_processes [SECONDS [SEED]] */
#include "child.h"
#include "ring_body.h"

#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WORKERS = 3, GONE_MS = 10000 };

struct job {
    const struct body *body;
    unsigned number;
    uint64_t seed;
};

static int worker_main(void *ctx)
{
    const struct job *j = ctx;
    static struct body_worker w;

    body_worker_init(&w, j->body, j->number, j->seed);
    body_worker_run(&w);
    return 0;
}

static int trainer_main(void *ctx)
{
    const struct job *j = ctx;
    body_trainer_run(j->body, j->seed);
    return 0;
}

static bool start(struct child *c, int (*body)(void *), struct job *j)
{
    int rc;

    memset(c, 0, sizeof *c);
    j->seed = ring_mix(j->seed);
    rc = child_fork(c, body, j);
    if (rc < 0)
        body_fail(j->body->sh, "fork: %s", strerror(-rc));
    return rc == 0;
}

/* Kills and reaps; false: it would not go. */
static bool kill_child(struct child *c, struct body_shared *sh)
{
    child_signal(c, SIGKILL);
    if (child_wait(c, GONE_MS) != 0) {
        body_fail(sh, "a killed child did not end");
        return false;
    }
    if (child_exit_code(c) != 128 + SIGKILL)
        body_fail(sh, "a child ended by itself (%d): %s", child_exit_code(c), c->err.text);
    child_end(c);
    return true;
}

/* Random pacing: the instants of death are what is being varied. */
static void pause_up_to(uint64_t *random, uint64_t ns)
{
    struct timespec ts = {.tv_nsec = (long)(ring_random(random) % ns)};
    nanosleep(&ts, NULL);
}

static struct child workers[WORKERS], trainer;
static struct job jobs[WORKERS + 1];

/* One death: of a worker, or one in five times of the trainer. */
static void kill_someone(struct body *b, uint64_t *worker_deaths, uint64_t *trainer_deaths)
{
    unsigned i = (unsigned)(ring_random(&b->random) % WORKERS);

    if (ring_random(&b->random) % 5 == 0) {
        if (kill_child(&trainer, b->sh) && start(&trainer, trainer_main, &jobs[WORKERS]))
            ++*trainer_deaths;
    } else if (kill_child(&workers[i], b->sh)) {
        body_parent_reclaim(b, i); /* no reads of its own to drain: it copied */
        if (start(&workers[i], worker_main, &jobs[i]))
            ++*worker_deaths;
    }
}

static void stop_all(struct body *b)
{
    atomic_store(&b->sh->stop, 1);
    rfi_bell_ring(b->world.ring.bell);
    for (unsigned i = 0; i <= WORKERS; i++) {
        struct child *c = i < WORKERS ? &workers[i] : &trainer;
        if (c->pid != 0 && child_wait(c, 2 * GONE_MS) != 0)
            body_fail(b->sh, "a child did not stop");
        else if (c->pidfd >= 0 && child_exit_code(c) != 0)
            body_fail(b->sh, "a child ended with %d: %s", child_exit_code(c), c->err.text);
        child_end(c);
    }
}

int main(int argc, char **argv)
{
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : rfi_now_ns();
    uint64_t worker_deaths = 0, trainer_deaths = 0;
    struct body b;

    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    body_make(&b, 4, 64 << 10, seed);
    for (unsigned i = 0; i <= WORKERS; i++) {
        jobs[i] = (struct job){.body = &b, .number = i, .seed = seed + i};
        start(i < WORKERS ? &workers[i] : &trainer, i < WORKERS ? worker_main : trainer_main, &jobs[i]);
    }
    for (uint64_t end = rfi_now_ns() + seconds * 1000000000u; rfi_now_ns() < end && !atomic_load(&b.sh->stop);) {
        pause_up_to(&b.random, 400000);
        body_parent_step(&b);
        if (ring_random(&b.random) % 4 == 0)
            kill_someone(&b, &worker_deaths, &trainer_deaths);
    }
    stop_all(&b);
    int rc = body_report(&b, "processes", worker_deaths, trainer_deaths);
    body_free(&b);
    return rc || trainer_deaths == 0;
}
