/* What the processes of a run have used, read from the kernel while they live: CPU time, bytes from devices, memory. */
#pragma once

#include "bench/devices.h"
#include "run/run.h"

/* One reading. Two of them, at the ends of a window, give what was used in it. */
struct bench_usage {
    uint64_t at_ns;
    double parent_cpu_s, workers_cpu_s; /* the parent's with that of its dead workers */
    uint64_t issued; /* reads that the workers asked the kernel for */
    uint64_t resident; /* samples that came from the resident cache */
    uint64_t restarts;
    bool io_known;
    uint64_t io_bytes; /* that the workers caused to be fetched from devices: /proc/PID/io */
    bool device_known;
    struct bench_device_counters device; /* whole devices: others' reads too */
};

/* Proportional: a page that n processes map counts 1/n for each. */
struct bench_memory {
    uint64_t parent, workers, trainers; /* trainers: this process */
    uint64_t anonymous, shared, file; /* the same sum by kind */
};

void bench_usage_read(const struct rfi_run_view *run, const struct bench_devices *devices, struct bench_usage *ret);
/* False: the kernel does not tell (smaps_rollup is missing or not to be read). */
bool bench_memory_read(const struct rfi_run_view *run, struct bench_memory *ret);
