/* The workloads that MLPerf Storage trains, as it publishes them: what a sample is, how many a step takes, and how long
 * an accelerator computes on them. Pure tables and arithmetic. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum bench_accelerator { BENCH_V100, BENCH_A100, BENCH_H100, BENCH_B200, BENCH_ACCELERATORS };
extern const char *const bench_accelerator_names[BENCH_ACCELERATORS + 1]; /* ends with NULL */

/* How the samples lie in files. */
enum bench_layout {
    BENCH_ONE_A_FILE, /* a file is a sample: random bytes */
    BENCH_JPEG_A_FILE, /* the same, with the first and last bytes of a JPEG file */
    BENCH_TFRECORD, /* records in TensorFlow's framing */
    BENCH_RECORDS, /* records of one size, one behind the other */
};

struct bench_shape {
    const char *name;
    uint32_t batch;
    uint64_t sample_bytes, deviation; /* mean; of the published parameter, 0: all are equal */
    uint64_t samples_a_file;
    enum bench_layout layout;
    double mark; /* accelerator utilisation that passes, percent; 0: there is none */
    double step_s[BENCH_ACCELERATORS]; /* 0: no published time */
};

enum { BENCH_SHAPES = 6 };
extern const struct bench_shape bench_shapes[BENCH_SHAPES];
extern const char *const bench_shape_names[BENCH_SHAPES + 1]; /* ends with NULL */

/* Sample i's bytes in a data set of this seed. Where they vary, as the published generator makes them: the product of
 * two normal numbers around the square root of the mean. (Its deviation is therefore 0.7 of the parameter.) */
uint64_t bench_shape_bytes(const struct bench_shape *s, double scale, uint64_t seed, uint64_t i);

/* Samples that the rules ask for: 500 steps an epoch on every accelerator, and five times the memory of the host. */
uint64_t bench_shape_samples(const struct bench_shape *s, double scale, uint64_t accelerators, uint64_t memory_bytes);

/* Part of the time that an accelerator computed, percent: `steps` of `step_ns` each in `elapsed_ns`. */
double bench_utilisation(uint64_t steps, uint64_t step_ns, uint64_t elapsed_ns);
