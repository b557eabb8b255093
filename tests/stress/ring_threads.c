/* The stress body as threads, for ThreadSanitizer. A worker dies by abandoning its claims at a random step;
 * its "late reads" go on writing for a while, and the parent reclaims only when they are over.
 *
 * ring_threads [SECONDS [SEED]] */
#include "ring_body.h"

#include "base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKERS = 3 };

struct worker_thread {
    pthread_t thread;
    struct body_worker worker;
    _Atomic int drained; /* 1: gone, nothing of it writes any more */
    uint64_t seed;
};

static bool die_sometimes(struct body_worker *w)
{
    return ring_random(&w->random) % 256 == 0;
}

static void *worker_main(void *arg)
{
    struct worker_thread *t = arg;

    if (!body_worker_run(&t->worker)) {
        body_worker_late_writes(&t->worker);
        atomic_store_explicit(&t->drained, 1, memory_order_release); /* as the parent's drain would see it */
    }
    return NULL;
}

static void *trainer_main(void *arg)
{
    const struct body *b = arg;
    body_trainer_run(b, 4711);
    return NULL;
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    if (pthread_create(thread, NULL, fn, arg) != 0) {
        perror("pthread_create");
        exit(1);
    }
}

static void start_worker(struct worker_thread *t, const struct body *b, unsigned number)
{
    body_worker_init(&t->worker, b, number, ++t->seed * 1000 + number);
    t->worker.dies = die_sometimes;
    atomic_store(&t->drained, 0);
    start(&t->thread, worker_main, t);
}

int main(int argc, char **argv)
{
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : rfi_now_ns();
    static struct worker_thread workers[WORKERS];
    pthread_t trainer;
    struct body b;
    uint64_t deaths = 0;

    printf("seed %llu\n", (unsigned long long)seed);
    body_make(&b, 4, 16 << 10, seed);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].seed = seed + i;
        start_worker(&workers[i], &b, i);
    }
    struct body trainers = b; /* a view of its own, as a process has: the parent's is written to */
    start(&trainer, trainer_main, &trainers);
    for (uint64_t end = rfi_now_ns() + seconds * 1000000000u; rfi_now_ns() < end && !atomic_load(&b.sh->stop);) {
        body_parent_step(&b);
        for (unsigned i = 0; i < WORKERS; i++)
            if (atomic_load_explicit(&workers[i].drained, memory_order_acquire)) {
                pthread_join(workers[i].thread, NULL);
                body_parent_reclaim(&b, i);
                start_worker(&workers[i], &b, i);
                deaths++;
            }
        sched_yield();
    }
    atomic_store(&b.sh->stop, 1);
    rfi_bell_ring(b.world.ring.bell);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_join(trainer, NULL);
    int rc = body_report(&b, "threads", deaths, 0);
    body_free(&b);
    return rc;
}
