/* The table of workloads against the published numbers, written down here a second time; sizes of samples against the
 * distribution that they are said to have. */
#include "bench/shapes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static const struct bench_shape *shape(const char *name)
{
    for (int i = 0; i < BENCH_SHAPES; i++)
        if (strcmp(bench_shapes[i].name, name) == 0)
            return &bench_shapes[i];
    cr_assert_fail("no shape %s", name);
    return NULL;
}

Test(shapes, published_times_and_no_others)
{
    static const struct {
        const char *shape;
        enum bench_accelerator accelerator;
        double seconds;
    } published[] = {
        {"unet3d", BENCH_A100, 0.636},     {"unet3d", BENCH_H100, 0.323},   {"unet3d", BENCH_B200, 0.162},
        {"resnet50", BENCH_A100, 0.435},   {"resnet50", BENCH_H100, 0.224}, {"cosmoflow", BENCH_A100, 0.00551},
        {"cosmoflow", BENCH_H100, 0.0035}, {"bert", BENCH_V100, 0.968},     {"retinanet", BENCH_B200, 0.04755}};
    int times = 0;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++)
        cr_assert_eq(shape(published[i].shape)->step_s[published[i].accelerator], published[i].seconds, "%s",
                     published[i].shape);
    for (int i = 0; i < BENCH_SHAPES; i++)
        for (int k = 0; k < BENCH_ACCELERATORS; k++)
            times += bench_shapes[i].step_s[k] > 0;
    cr_assert_eq(times, sizeof published / sizeof *published);
}

Test(shapes, batches_sizes_and_marks)
{
    static const struct {
        const char *name;
        uint32_t batch;
        uint64_t bytes, a_file;
        double mark;
    } expected[] = {{"unet3d", 7, 146600628, 1, 90},  {"resnet50", 400, 114660, 1251, 90},
                    {"cosmoflow", 1, 2828486, 1, 70}, {"bert", 48, 2500, 313532, 90},
                    {"retinanet", 24, 322957, 1, 85}, {"llm-tokens", 8, 8192, 131072, 0}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct bench_shape *s = shape(expected[i].name);
        cr_assert_eq(s->batch, expected[i].batch);
        cr_assert_eq(s->sample_bytes, expected[i].bytes);
        cr_assert_eq(s->samples_a_file, expected[i].a_file);
        cr_assert_eq(s->mark, expected[i].mark);
        cr_assert_str_eq(bench_shape_names[i], expected[i].name);
    }
    cr_assert_eq(sizeof expected / sizeof *expected, BENCH_SHAPES);
}

/* The published generator's effective numbers for unet3d: deviation 49 MB (48.3 by the formula), up to 414 MB in sets of
 * many files. */
Test(shapes, sizes_vary_as_the_published_generator_s)
{
    enum { N = 40000 };
    const struct bench_shape *s = shape("unet3d");
    double sum = 0, squares = 0, most = 0;
    for (uint64_t i = 0; i < N; i++) {
        double bytes = (double)bench_shape_bytes(s, 1, 7, i);
        sum += bytes;
        squares += bytes * bytes;
        most = fmax(most, bytes);
    }
    double mean = sum / N, deviation = sqrt(squares / N - mean * mean);
    cr_assert(fabs(mean / 146600628 - 1) < 0.01, "mean %g", mean);
    cr_assert(deviation > 47e6 && deviation < 51e6, "deviation %g", deviation);
    cr_assert(most > 350e6 && most < 500e6, "most %g", most);
}

Test(shapes, sizes_follow_from_seed_and_number_alone)
{
    const struct bench_shape *s = shape("cosmoflow");
    int same = 0;
    for (uint64_t i = 0; i < 100; i++) {
        cr_assert_eq(bench_shape_bytes(s, 1, 3, i), bench_shape_bytes(s, 1, 3, i));
        same += bench_shape_bytes(s, 1, 3, i) == bench_shape_bytes(s, 1, 4, i);
    }
    cr_assert_lt(same, 3);
    cr_assert_eq(bench_shape_bytes(shape("resnet50"), 1, 3, 17), 114660);
    cr_assert_eq(bench_shape_bytes(shape("resnet50"), 0.01, 3, 17), 1147);
    cr_assert_eq(bench_shape_bytes(shape("bert"), 1e-7, 3, 17), 1);
}

Test(shapes, data_as_the_rules_ask)
{
    const uint64_t gib = UINT64_C(1) << 30;
    /* 8 H100 and 512 GiB of memory: 500 steps of 8 * 7 samples are more than five times the memory. */
    cr_assert_eq(bench_shape_samples(shape("unet3d"), 1, 8, 512 * gib), 28000);
    /* One: the memory decides, 5 * 512 GiB / 146.6 MB, rounded up. */
    cr_assert_eq(bench_shape_samples(shape("unet3d"), 1, 1, 512 * gib), (5 * 512 * gib + 146600627) / 146600628);
    /* Whole files: 500 steps of 400 samples are 159.9 of them. */
    cr_assert_eq(bench_shape_samples(shape("resnet50"), 1, 1, 1), 160 * 1251);
}

Test(shapes, utilisation)
{
    cr_assert_eq(bench_utilisation(10, 100, 1000), 100);
    cr_assert_eq(bench_utilisation(9, 100, 1000), 90);
    cr_assert_eq(bench_utilisation(0, 100, 1000), 0);
    cr_assert_eq(bench_utilisation(5, 100, 0), 0);
}
