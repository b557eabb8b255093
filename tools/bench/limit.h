/* The least time that physics allows: what the device, the CPUs and the memory can do, each measured here, and what a
 * delivered byte needs of each. */
#pragma once

#include "bench/beside.h"
#include "bench/run.h"

enum bench_term { BENCH_DEVICE_BANDWIDTH, BENCH_DEVICE_IOPS, BENCH_CPU, BENCH_MEMORY, BENCH_TERMS };

struct bench_limit {
    /* What was measured: bytes/s, reads/s, CPU-seconds a byte, bytes/s that copying moves (in and out). */
    double device_bytes_per_s, device_iops, cpu_s_per_byte, memory_bytes_per_s;
    double device_part; /* of the delivered bytes, that came from the device */
    double device_read_bytes; /* delivered bytes a device read carries */
    unsigned cores;
    double passes; /* times that a delivered byte goes over the memory bus */
    double terms[BENCH_TERMS]; /* the most that each allows, delivered bytes/s; 0: not measured, or not needed */
    int binds; /* enum bench_term; -1: no term is known */
    char not_probed[200]; /* why the device was not; "": it was */
};

/* Device and memory, a second or two in all. -EINTR when *interrupted; a device that cannot be probed is no error. */
int bench_limit_measure(const struct rfi_dataset *d, unsigned loops, const volatile sig_atomic_t *interrupted,
                        struct bench_limit *ret, struct rfi_error *err);
/* What follows for deliveries that went like this one. `bare`: what the bare loop used; NULL: not measured. */
void bench_limit_apply(struct bench_limit *l, const struct bench_run *run, const struct bare_result *bare,
                       double delivered_part, bool touched);
