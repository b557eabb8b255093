/* One point of a bench: the same thing measured several times, each run beside a bare io_uring loop over the same
 * reads, and the limits of the machine. */
#pragma once

#include "bench/cache.h"
#include "bench/limit.h"
#include "bench/run.h"

#include <ringfeed/ringfeed.h>

/* What stays the same over the points. */
struct bench_setup {
    const char *name; /* of the runs: they take turns */
    rf_server_options server;
    rf_dataset *dataset; /* the server's, opened here too */
    rf_order *order;
    uint64_t epochs, ramp_ns, runtime_ns, runs;
    bool bare, limit;
    struct bench_step step;
    struct bench_devices devices;
    const volatile sig_atomic_t *interrupted;
};

enum { BENCH_NOTES_MOST = 16, BENCH_NOTE_BYTES = 256 };

struct bench_notes {
    char text[BENCH_NOTES_MOST][BENCH_NOTE_BYTES];
    unsigned n;
};
/* Said once, whatever the number of runs. */
__attribute__((format(printf, 2, 3))) void bench_note(struct bench_notes *n, const char *fmt, ...);

struct bench_point {
    enum bench_cache cache;
    struct bench_cached cached; /* before the last run */
    uint64_t n; /* runs made */
    struct bench_run *runs; /* [n] */
    struct bare_result *bare; /* [n]; all zero where it could not be measured */
    uint64_t n_bare;
    double bare_part; /* delivered bytes a byte that the bare loop reads: without gaps between samples */
    double bare_sample_bytes; /* mean, of what the bare loop reads */
    bool limit_known;
    struct bench_limit limit; /* for the last run */
    struct bench_notes notes;
};

int bench_measure(const struct bench_setup *s, enum bench_cache cache, struct bench_point *ret, struct rfi_error *err);
void bench_point_free(struct bench_point *p);

/* Median and range of a figure over runs. */
struct bench_spread {
    double median, min, max;
    uint64_t n; /* 0: not known */
};
struct bench_spread bench_spread_of(double *values, uint64_t n); /* sorts them */

/* A window of fewer batches, or shorter, has no rate. */
enum { BENCH_BATCHES_LEAST = 20, BENCH_WINDOW_MS_LEAST = 100 };
bool bench_run_long_enough(const struct bench_run *r);
