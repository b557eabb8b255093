/* What the kinds of bench share: the command line, and how a server is set up from it. */
#pragma once

#include "bench/measure.h"
#include "bench/source.h"
#include "cli.h"

struct bench_args {
    struct cli_dataset_args dataset;
    struct cli_order_args order;
    struct cli_serve_args serve;
    struct cli_list paths;
    struct cli_list sweep;
    const char *name;
    double runtime_s, ramp_s;
    uint64_t runs;
    int cache, bare, limit;
    bool cache_given, runs_given, touch, json;
    const char *compare;
    /* a workload */
    int workload, accelerator;
    bool workload_given, accelerator_given, accelerators_given, step_given, find_max, drop_bytes;
    uint64_t accelerators, bytes, host_memory;
    double step_ms, scale;
};

extern volatile sig_atomic_t bench_interrupted;

/* The name of the runs that this process starts: --name, or one of its own. */
const char *bench_run_name(const struct bench_args *a);

/* This very program, wherever it was started from. */
const char *bench_command(void);

/* All but dataset and order. */
void bench_server_options(const struct bench_args *a, rf_server_options *ret);
/* Times, counts and switches of `a` into the setup. */
void bench_setup_init(const struct bench_args *a, struct bench_setup *ret);

/* Prints err; CLI_FAILED, or CLI_USAGE for what the command line said wrong. */
int bench_fail(const struct rfi_error *err);

void bench_emit_dataset(struct cli_emit *e, rf_dataset *d);
void bench_emit_order(struct cli_emit *e, const struct bench_args *a);

/* The three kinds; each prints its document and returns an exit code. */
int bench_throughput(struct bench_args *a);
int bench_workload(struct bench_args *a);
int bench_compare(struct bench_args *a);
