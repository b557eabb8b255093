#include "bench/shapes.h"

#include "base/bytes.h"
#include "bench/random.h"

#include <math.h>
#include <stddef.h>

const char *const bench_accelerator_names[] = {"v100", "a100", "h100", "b200", NULL};

/* Seconds a step by accelerator: V100, A100, H100, B200. */
const struct bench_shape bench_shapes[BENCH_SHAPES] = {
    {"unet3d", 7, 146600628, 68341808, 1, BENCH_ONE_A_FILE, 90, {0, 0.636, 0.323, 0.162}},
    {"resnet50", 400, 114660, 0, 1251, BENCH_TFRECORD, 90, {0, 0.435, 0.224, 0}},
    {"cosmoflow", 1, 2828486, 71311, 1, BENCH_TFRECORD, 70, {0, 0.00551, 0.00350, 0}},
    {"bert", 48, 2500, 0, 313532, BENCH_TFRECORD, 90, {0.968, 0, 0, 0}},
    {"retinanet", 24, 322957, 0, 1, BENCH_JPEG_A_FILE, 85, {0, 0, 0, 0.04755}},
    {"llm-tokens", 8, 8192, 0, 131072, BENCH_RECORDS, 0, {0, 0, 0, 0}},
};

const char *const bench_shape_names[] = {"unet3d", "resnet50", "cosmoflow", "bert", "retinanet", "llm-tokens", NULL};

/* In (0, 1], from the numbers alone. */
static double uniform(uint64_t seed, uint64_t i, uint64_t k)
{
    uint64_t z = bench_mix(bench_mix(seed + BENCH_GOLDEN) + i * BENCH_GOLDEN + k);
    return ((double)(z >> 11) + 1) * 0x1p-53;
}

uint64_t bench_shape_bytes(const struct bench_shape *s, double scale, uint64_t seed, uint64_t i)
{
    double mean = (double)s->sample_bytes, bytes = mean;
    if (s->deviation) {
        double side = sqrt(mean), spread = (double)s->deviation / 2 / side;
        double radius = sqrt(-2 * log(uniform(seed, i, 0))), angle = 6.283185307179586 * uniform(seed, i, 1);
        bytes = fmax(side + spread * radius * cos(angle), 1) * fmax(side + spread * radius * sin(angle), 1);
    }
    return (uint64_t)fmax(llround(bytes * scale), 1);
}

uint64_t bench_shape_samples(const struct bench_shape *s, double scale, uint64_t accelerators, uint64_t memory_bytes)
{
    double bytes = fmax((double)s->sample_bytes * scale, 1);
    uint64_t by_steps = 500 * accelerators * s->batch, by_memory = (uint64_t)ceil(5 * (double)memory_bytes / bytes);
    uint64_t files = rfi_div_up(rfi_max(by_steps, by_memory), s->samples_a_file);
    return files * s->samples_a_file;
}

double bench_utilisation(uint64_t steps, uint64_t step_ns, uint64_t elapsed_ns)
{
    return elapsed_ns ? 100 * (double)steps * (double)step_ns / (double)elapsed_ns : 0;
}
