/* A workload's run: what `bench --workload` asked for, and the emulated accelerators. */
#pragma once

#include "bench/bench.h"
#include "bench/datagen.h"

struct bench_job {
    const struct bench_shape *shape;
    uint64_t step_ns;
    double mark; /* 0: none */
    bool published; /* the time is the table's */
    struct bench_data data;
    struct bench_source source;
    struct bench_devices devices;
};

/* Runs with a->accelerators, prints the document; exit code. */
int bench_accelerate(struct bench_args *a, struct bench_job *j);
/* Looks for the largest number of accelerators, up to a->accelerators, that are kept busy enough. */
int bench_accelerate_most(struct bench_args *a, struct bench_job *j);
