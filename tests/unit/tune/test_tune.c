/* Tables of measurements and what must be decided from them. The rates come from models of devices, never from the code. */
#include "base/climb.h"
#include "coordinator/budget.h"
#include "coordinator/internal.h"
#include "worker/latency.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A device that gets faster up to `knee` reads in flight, and not slower behind it. */
static double saturating(uint32_t depth, uint32_t knee)
{
    return 1000.0 * (depth < knee ? depth : knee);
}

static uint32_t settle(struct rfi_climb *c, uint32_t knee, int windows)
{
    for (int i = 0; i < windows; i++)
        rfi_climb_step(c, saturating(rfi_climb_now(c), knee), true);
    return c->value;
}

Test(climb, reaches_the_knee_from_below_and_from_above)
{
    const uint32_t starts[] = {4, 8, 32, 64};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        struct rfi_climb c;
        rfi_climb_init(&c, 4, starts[i], 64, 2);
        cr_assert_eq(settle(&c, 16, 200), 16, "from %u", starts[i]);
    }
}

Test(climb, goes_down_no_further_than_it_may_and_up_to_the_highest)
{
    struct rfi_climb c;
    rfi_climb_init(&c, 6, 48, 50, 0);
    cr_assert_eq(settle(&c, 1, 200), 6);
    rfi_climb_init(&c, 6, 10, 50, 0);
    cr_assert_eq(settle(&c, 1000, 200), 50);
}

Test(climb, small_differences_change_nothing_and_trials_get_rarer)
{
    struct rfi_climb c;
    int with_other[2] = {0, 0};
    rfi_climb_init(&c, 4, 16, 64, 0);
    for (int i = 0; i < 2000; i++) { /* 4 % more a doubling: not worth it, and 4 % less is too much to lose */
        with_other[i / 1000] += rfi_climb_now(&c) != 16;
        rfi_climb_step(&c, 1000 * pow(1.04, log2(rfi_climb_now(&c))), true);
        cr_assert_eq(c.value, 16);
    }
    cr_assert(with_other[0] > 0 && with_other[1] > 0 && with_other[1] < with_other[0] / 2);
}

Test(climb, a_number_that_does_not_bind_is_not_judged)
{
    struct rfi_climb c;
    rfi_climb_init(&c, 4, 16, 64, 2);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(rfi_climb_step(&c, rand(), false), 16);
        cr_assert_eq(c.turn, 0);
    }
    rfi_climb_step(&c, 1, true);
    cr_assert_neq(c.turn, 0, "the wait before the first trial has passed meanwhile");
    rfi_climb_step(&c, 1, false);
    cr_assert_eq(rfi_climb_now(&c), 16, "a trial is given up");
}

/* The number changes nothing, only the noise differs from window to window. */
Test(climb, noise_does_not_drive_it_about)
{
    unsigned seed = 7;
    int changes = 0;
    struct rfi_climb c;
    rfi_climb_init(&c, 4, 16, 64, 0);
    for (int i = 0; i < 20000; i++) {
        uint32_t before = c.value;
        rfi_climb_step(&c, 1000 * (0.8 + 0.4 * rand_r(&seed) / RAND_MAX), true);
        changes += c.value != before;
    }
    cr_assert_leq(changes, 20, "%d changes in 20000 windows", changes);
}

Test(climb, a_change_of_the_work_is_followed_soon)
{
    struct rfi_climb c;
    rfi_climb_init(&c, 4, 8, 64, 0);
    settle(&c, 8, 3000); /* long in vain: the pauses are at their longest */
    cr_assert_eq(c.value, 8);
    cr_assert_gt(c.pause, 100);
    for (int i = 0; i < 60; i++)
        rfi_climb_step(&c, 2 * saturating(rfi_climb_now(&c), 64), true);
    cr_assert_eq(c.value, 64);
}

Test(budget, over_time_no_more_is_used_than_allowed)
{
    struct rfi_budget b = {.cores = 0.5};
    double used = 0;
    int paused = 0;
    for (int i = 0; i < 5000; i++) { /* 20 ms each: two cores while it may, a little all the same */
        double now = b.paused ? 0.0005 : 0.04;
        paused += b.paused;
        used += now;
        rfi_budget_step(&b, 0.02, now);
    }
    cr_assert(used > 49 && used < 51, "%f s in 100 s", used);
    cr_assert(paused > 3000 && paused < 4500);
}

Test(budget, no_limit_never_pauses_and_a_debt_is_forgotten_in_the_end)
{
    struct rfi_budget none = {0}, b = {.cores = 0.1};
    cr_assert_not(rfi_budget_step(&none, 0.02, 1000));
    cr_assert(rfi_budget_step(&b, 0.02, 1000)); /* a suspended machine, a clock that jumped */
    int steps = 0;
    while (rfi_budget_step(&b, 0.02, 0))
        cr_assert_lt(++steps, 200);
    cr_assert_gt(steps, 90);
    for (int i = 0; i < 1000; i++) /* what is not used is not saved up for ever either */
        rfi_budget_step(&b, 1, 0);
    cr_assert(rfi_budget_step(&b, 0.02, 0.02));
}

static const struct rfi_crew_facts paused = {.rate = 1, .busy = 1, .paused = 0.5, .starved = true},
                                   calm = {.rate = 1, .busy = 0.5}, busy = {.rate = 1, .busy = 3.5},
                                   starved = {.rate = 1, .busy = 1, .starved = true};

static uint32_t steps(struct rfi_crew *c, const struct rfi_crew_facts *f, int n)
{
    uint32_t now = 0;
    while (n-- > 0)
        now = rfi_crew_step(c, f);
    return now;
}

Test(crew, a_budget_that_is_spent_sends_one_after_the_other_to_rest_and_calls_none_back)
{
    struct rfi_crew c;
    rfi_crew_init(&c, 1, 4, 8);
    cr_assert_eq(steps(&c, &paused, 1), 3);
    cr_assert_eq(steps(&c, &paused, 10), 1);
    struct rfi_crew_facts some = starved;
    some.paused = 0.1;
    cr_assert_eq(steps(&c, &some, 500), 1);
}

Test(crew, fewer_when_nobody_waits_and_the_others_have_time)
{
    struct rfi_crew c;
    rfi_crew_init(&c, 2, 4, 4);
    cr_assert_eq(steps(&c, &busy, 100), 4, "with 3.5 at work all are needed");
    cr_assert_eq(steps(&c, &calm, 7), 4);
    cr_assert_eq(steps(&c, &calm, 1), 3);
    cr_assert_eq(steps(&c, &calm, 200), 2, "and not below the least");
}

Test(crew, who_was_sent_to_rest_too_early_comes_back_at_once_and_stays_longer)
{
    struct rfi_crew c;
    rfi_crew_init(&c, 1, 2, 2);
    int calm_windows = 0;
    while (rfi_crew_step(&c, &calm) == 2)
        calm_windows++;
    cr_assert_eq(steps(&c, &starved, 1), 2);
    int again = 0;
    while (rfi_crew_step(&c, &calm) == 2)
        again++;
    cr_assert_geq(again, 2 * calm_windows);
}

Test(crew, starved_trainers_get_more_workers_where_more_are_faster)
{
    struct rfi_crew c;
    struct rfi_crew_facts f = starved;
    rfi_crew_init(&c, 1, 2, 16);
    for (int i = 0; i < 300; i++) {
        uint32_t now = rfi_climb_now(&c.climb);
        f.busy = now; /* they wait for their reads */
        f.rate = saturating(now, 8);
        rfi_crew_step(&c, &f);
    }
    cr_assert_eq(c.climb.value, 8);
}

Test(latency, median_and_lowest_follow)
{
    struct rfi_latency l = {0};
    unsigned seed = 3;
    for (int i = 0; i < 10000; i++)
        rfi_latency_note(&l, 100000 + (uint64_t)rand_r(&seed) % 100000);
    cr_assert(l.median_ns > 120000 && l.median_ns < 180000, "%lu", (unsigned long)l.median_ns);
    cr_assert(l.lowest_ns >= 100000 && l.lowest_ns < 110000, "%lu", (unsigned long)l.lowest_ns);
    for (int i = 0; i < 10000; i++)
        rfi_latency_note(&l, 1000000);
    cr_assert(l.median_ns > 900000 && l.lowest_ns > 900000, "what was fast once is forgotten");
}

Test(latency, depth_by_littles_law)
{
    cr_assert_eq(rfi_latency_depth(0, 100000), 0);
    cr_assert_eq(rfi_latency_depth(100000, 100000), 15);
    cr_assert_eq(rfi_latency_depth(101000, 100000), 16);
    cr_assert_eq(rfi_latency_depth(1e300, 100000), UINT32_MAX);
}

Test(reach, grows_for_who_waits_now_and_then)
{
    struct rfi_reach r = {0};
    const struct {
        double waited, missed;
        bool grows;
    } cases[] = {
        {0, 0, false}, {0.004, 0.009, false}, {0.02, 0, true}, {0.001, 0.05, true}, {0.5, 1, false}, {0.95, 0.3, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int grown = 0;
        r = (struct rfi_reach){0};
        for (int w = 0; w < 9; w++)
            grown += rfi_reach_step(&r, cases[i].waited, cases[i].missed);
        cr_assert_eq(grown, cases[i].grows ? 3 : 0, "case %zu: %d", i,
                     grown); /* each needs one window to begin with, and two */
    }
    r = (struct rfi_reach){0};
    for (int w = 0; w < 20; w++)
        cr_assert_not(rfi_reach_step(&r, w % 2 ? 0.1 : 0, 0), "not twice in a row");
}

Test(reports, count_for_a_while_and_from_the_moment_they_are_made)
{
    struct rfi_trainer_shared shared = {0};
    struct rfi_ring ring = {.tr = &shared};
    struct rfi_coordinator c = {.run.rings = &ring};
    const uint64_t now = UINT64_C(1000000000000);
    double rate = 17.5;
    uint64_t bits;
    memcpy(&bits, &rate, sizeof bits);
    shared.reported_rate = bits;
    cr_expect_eq(rfi_reported_rate(&c, 0, now), 0, "none yet");
    shared.reported_ns = now - UINT64_C(9999999999);
    cr_expect_eq(rfi_reported_rate(&c, 0, now), rate);
    shared.reported_ns = now + 1; /* after the clock was read: the parent was preempted */
    cr_expect_eq(rfi_reported_rate(&c, 0, now), rate);
    shared.reported_ns = now - UINT64_C(10000000001);
    cr_expect_eq(rfi_reported_rate(&c, 0, now), 0, "too old");
}
