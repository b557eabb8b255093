/* One measured run: a server, a trainer a rank, and a window of time in which everything is counted.
 *
 *     ready, all attached --go--> ramp --> window --> stop
 *
 * The ramp lasts until every rank has gone through its first ring, which was read before the clock started, and at
 * least the time asked for. Servers run for ever and are stopped: so the ring that was full at the start of the window
 * is full again at its end, and what was read in the window is what was delivered in it. */
#pragma once

#include "bench/devices.h"
#include "bench/trainer.h"
#include "bench/tree.h"

struct bench_run_options {
    const rf_server_options *server; /* epochs and name are the run's own business */
    const char *name;
    uint64_t epochs; /* with no runtime: so many, whole */
    uint64_t ramp_ns, runtime_ns; /* runtime 0: by epochs */
    struct bench_step step;
    const struct bench_devices *devices;
    const volatile sig_atomic_t *interrupted;
};

/* What the server chose by itself. */
struct bench_chosen {
    char engine[RFI_ENGINE_NAME];
    uint32_t workers, queue_depth, prefetch;
    bool direct;
    uint64_t arena_bytes, align;
};

struct bench_run {
    struct bench_chosen chosen;
    uint32_t n_ranks;
    struct bench_rank *ranks; /* [n_ranks] */
    struct bench_counts all, window; /* over the ranks */
    double seconds; /* of the window; 0: it never began */
    double trainers_cpu_s, parent_cpu_s, workers_cpu_s;
    uint64_t issued, resident, restarts;
    bool io_known, device_known, memory_known;
    uint64_t io_bytes;
    struct bench_device_counters device;
    struct bench_memory memory;
};

/* 0, or a negative errno; -EINTR: interrupted. Whatever comes, nothing is left behind. */
int bench_run(const struct bench_run_options *o, struct bench_run *ret, struct rfi_error *err);
void bench_run_free(struct bench_run *r);
