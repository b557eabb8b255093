/* Arena sizes against worked examples, and the repeats that padding brings. */
#include "fake.h"

#include "plan/arena.h"
#include "plan/plan.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static const uint64_t kib = 1024, mib = 1 << 20;

static void expect(uint64_t largest, bool fixed, uint64_t prefetch, uint64_t ring, uint64_t depth, uint64_t arena)
{
    struct rfi_error err = {0};
    uint64_t got_depth, got_arena;
    cr_assert_eq(rfi_plan_arena(largest, fixed, prefetch, ring, &got_depth, &got_arena, &err), 0, "%s", err.text);
    cr_assert(got_depth == depth && got_arena == arena, "largest %llu, prefetch %llu: %llu batches, %llu bytes",
              (unsigned long long)largest, (unsigned long long)prefetch, (unsigned long long)got_depth,
              (unsigned long long)got_arena);
}

Test(arena, sizes_follow_the_rule)
{
    for (int fixed = 0; fixed < 2; fixed++) {
        expect(512, fixed, 0, 0, 4, 4096); /* 4 * 512, up to a page */
        expect(512, fixed, 9, 0, 9, 8192);
        expect(100 * kib, fixed, 0, 0, 4, 400 * kib);
        expect(600 * kib, fixed, 0, 0, 4, 4 * mib); /* 2400 KiB, up to huge pages */
        expect(10 * mib, fixed, 0, 0, 4, 40 * mib);
        expect(20 * mib, fixed, 0, 0, 4, 64 * mib); /* the default's cap */
        expect(20 * mib, fixed, 10, 0, 10, 200 * mib); /* what was asked for is not capped */
        expect(512, fixed, 1, 0, 2, 4096);
        expect(512, fixed, 4096, 0, 4096, 2 * mib);
        expect(mib, fixed, 0, 5 * mib, 4, 6 * mib);
        expect(64 * kib, fixed, 0, 200000, 4, 256 * kib); /* stays a multiple of an A of 64 KiB */
    }
    expect(40 * mib, true, 0, 0, 4, 80 * mib); /* two batches must fit, */
    expect(40 * mib, false, 0, 0, 4, 120 * mib); /* and what a lap may lose */
    expect(mib, true, 0, 2 * mib, 4, 2 * mib); /* given, exactly enough */
    expect(mib, false, 0, 3 * mib, 4, 4 * mib);
    expect(4096, true, 0, 9000, 4, 12288);
}

Test(arena, too_small_or_absurd_wishes_are_refused_with_the_number_that_works)
{
    struct rfi_error err;
    uint64_t depth, arena;
    cr_assert_eq(rfi_plan_arena(mib, true, 0, 2 * mib - 1, &depth, &arena, &err), -EINVAL);
    cr_assert(strstr(err.text, "--ring-bytes 2097152") && strstr(err.text, "1048576"), "%s", err.text);
    cr_assert_eq(rfi_plan_arena(mib, false, 0, 3 * mib - 1, &depth, &arena, &err), -EINVAL);
    cr_assert(strstr(err.text, "--ring-bytes 3145728"), "%s", err.text);
    cr_assert_eq(rfi_plan_arena(mib, true, 0, 1, &depth, &arena, &err), -EINVAL);
    cr_assert_eq(rfi_plan_arena(mib, true, 4097, 0, &depth, &arena, &err), -EINVAL);
    cr_assert(strstr(err.text, "--prefetch 4097"), "%s", err.text);
    cr_assert_eq(rfi_plan_arena((uint64_t)1 << 63, true, 0, 0, &depth, &arena, &err), -EINVAL);
    cr_assert_eq(rfi_plan_arena(mib, true, 0, UINT64_MAX, &depth, &arena, &err), -EINVAL);
}

/* Rank 1 has one sample, the largest, and must fill batches of 8 with it. */
Test(arena, padding_that_repeats_a_sample_is_counted)
{
    struct rfi_extent e[9];
    struct rfi_order *order;
    struct rfi_error err;
    uint64_t padded, uneven, need, ids[8] = {8, 8, 8, 8, 8, 8, 8, 8};
    for (uint32_t i = 0; i < 9; i++)
        e[i] = (struct rfi_extent){.offset = (uint64_t)i << 30, .bytes = i == 8 ? 1000000 : 1000};
    struct rfi_dataset d = {.samples = 9, .extents = e, .damaged = UINT64_MAX};
    rf_order_options o = {
        .size = sizeof o, .world_size = 2, .batch = 8, .strategy = RF_RANGE, .ranges = "0:8,8:9", .tail = RF_TAIL_PAD};
    struct rfi_order_source src = {.samples = 9, .mean_bytes = 1000};
    cr_assert_eq(rfi_order_create(&o, &src, NULL, &order, &err), 0, "%s", err.text);
    cr_assert_eq(rfi_plan_largest_of(&d, order, RF_TAIL_PAD, 512, &padded, &err), 0);
    cr_assert_eq(rfi_plan_largest_of(&d, order, RF_TAIL_UNEVEN, 512, &uneven, &err), 0);
    cr_assert_eq(rfi_plan_footprint(&d, 512, ids, 8, &need, &err), 0);
    cr_assert(padded >= need && need > uneven);
    cr_assert_lt(uneven, 1000000 + 7 * 1000 + 8 * 4096 + 512);
    rfi_order_destroy(order);
}
