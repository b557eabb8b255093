/* A point as figures: one walk, text or JSON. */
#pragma once

#include "bench/measure.h"
#include "cli.h"

/* "median [min..max]" in text, an object in JSON; null where n is 0. */
void bench_emit_spread(struct cli_emit *e, const char *key, struct bench_spread s, int digits);
void bench_emit_point(struct cli_emit *e, const struct bench_point *p, bool touched);
/* A row of the table over all points. */
void bench_emit_summary(struct cli_emit *e, const struct bench_point *p);
void bench_emit_notes(struct cli_emit *e, const struct bench_notes *n);
const char *bench_cache_name(enum bench_cache c);
/* Waits of all ranks in all runs together; NULL when memory is out. To be freed. */
struct bench_histogram *bench_all_waits(const struct bench_run *runs, uint64_t n, uint32_t rank_or_all);
#define BENCH_ALL_RANKS UINT32_MAX
void bench_emit_waits(struct cli_emit *e, const struct bench_histogram *h, struct bench_notes *notes);
