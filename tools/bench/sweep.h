/* --sweep KEY=V,V,…: the points of a bench are all combinations. */
#pragma once

#include "cli.h"

enum bench_key { BENCH_QUEUE_DEPTH, BENCH_BLOCK, BENCH_BATCH, BENCH_WORKERS, BENCH_KEYS };
enum { BENCH_VALUES_MOST = 32 };

struct bench_sweep {
    struct {
        uint64_t values[BENCH_VALUES_MOST];
        unsigned n; /* 0: not swept */
    } keys[BENCH_KEYS];
};

extern const char *const bench_key_names[BENCH_KEYS];

/* 0, or an exit code after a message. */
int bench_sweep_parse(const struct cli_list *options, struct bench_sweep *ret);
unsigned bench_sweep_points(const struct bench_sweep *s);
/* Value of each key at point i; 0 where it is not swept. */
void bench_sweep_at(const struct bench_sweep *s, unsigned i, uint64_t values[BENCH_KEYS]);
