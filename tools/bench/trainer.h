/* The measuring trainers: one thread a rank of this process. Each takes its batches and counts, and, where asked,
 * plays an accelerator: holds every batch for the time of a step, and steps together with the others.
 *
 * An accelerator works while its host prepares the next step: kernels are launched ahead. The thread that plays both
 * sleeps meanwhile and wakes up a tenth of a millisecond late. So in ranks that step together, where the next batch was
 * published before a step ended (of the slowest rank), the next step begins there; else, or where the thread is a whole step
 * late, when the batch came. Steps can thus make up for late wake-ups, and for nothing else; utilisation is by the real
 * clock. When its step begins a rank tells the others when it will end, and none begins the next before the latest of
 * these ends; so a host is woken for its timer and, unless somebody is a whole step behind, for nothing else, as one whose
 * accelerators synchronise among themselves. */
#pragma once

#include "base/error.h"
#include "bench/histogram.h"

#include <pthread.h>
#include <ringfeed/ringfeed.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

/* What is done with a batch. */
struct bench_step {
    uint64_t compute_ns; /* 0: given back at once */
    bool together; /* all ranks end a step before one begins the next */
    bool touch; /* every byte is read by the trainer */
    bool drop; /* given back before the compute time, not after it */
};

enum bench_phase { BENCH_RAMP, BENCH_MEASURE, BENCH_STOP };

struct bench_counts {
    uint64_t batches, samples, bytes;
};

struct bench_rank {
    uint32_t rank;
    struct bench_counts all, window;
    uint64_t from_ns, to_ns; /* the window as this rank saw it: first request to last release in it */
    uint64_t wait_ns; /* in the window */
    double cpu_s; /* of the thread, in the window */
    struct bench_histogram waits; /* of the window */
    uint64_t first_end_ns, last_end_ns; /* of the first step and of the last */
    bool has_batches;
    char error[1024]; /* "" or why it stopped */
};

/* What the trainers of a run share. */
struct bench_field {
    const char *name; /* of the run */
    struct bench_step step;
    uint64_t epochs, start_epoch; /* epochs 0: until BENCH_STOP */
    bool moves; /* batches move between ranks: an epoch's length is not known beforehand */
    uint64_t ramp_batches; /* that each rank takes before it may count; 0: the depth of its ring */
    uint32_t n;
    const volatile sig_atomic_t *interrupted;
    _Atomic int phase; /* enum bench_phase */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t attached, ramped, ended; /* trainers; under the mutex, as all that follows */
    bool failed, go;
    uint32_t arrived, stops; /* of the ranks in the step under way */
    uint64_t turn, latest_end_ns; /* latest: by the clocks of the accelerators, of the step under way */
    bool turn_stops;
    uint64_t turn_end_ns; /* of the step before */
};

struct bench_trainers {
    struct bench_field field;
    pthread_t *threads;
    uint32_t started;
    struct bench_rank *ranks; /* [n] */
};

/* Starts a thread for each of `n` ranks from `first_rank` on. `field` holds what the caller chose: name to
 * interrupted. 0, or a negative errno. */
int bench_trainers_start(struct bench_trainers *t, const struct bench_field *field, uint32_t first_rank, uint32_t n,
                         struct rfi_error *err);
/* Waits until `*count` (a member of the field) is n, a trainer failed, interrupted, or `until` (0: no limit); true
 * only for the first. */
bool bench_trainers_wait(struct bench_trainers *t, const uint32_t *count, uint64_t until);
/* All are attached: they may take batches. */
void bench_trainers_go(struct bench_trainers *t);
/* Tells them to stop, waits for them. The ranks' counts stay until free. */
void bench_trainers_stop(struct bench_trainers *t);
void bench_trainers_free(struct bench_trainers *t);
