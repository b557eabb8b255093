/* The coordinator's calls: register, report health, read it. */
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEST(name) Test(health, name, .timeout = 60)

TEST(registering_checks_indices_against_the_partition)
{
    struct world w;
    rf_order *order;
    uint64_t mine[60], theirs[60], wrong;
    world_open(&w, 120);
    w.o.world_size = 2;
    w.o.batch = 5;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.o.seed = 3;
    w.s.start_epoch = 4;
    rf_order_options virtual_order = w.o;
    virtual_order.samples = 120;
    cr_assert_eq(rf_order_open(&virtual_order, NULL, &order), 0, "%s", rf_last_error());
    cr_assert_eq(rf_order_fill(order, 4, 0, 0, 60, mine), 60);
    cr_assert_eq(rf_order_fill(order, 4, 1, 0, 60, theirs), 60);
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0), *other = world_attach(&w, 1);
    cr_expect_eq(rf_register_worker(t, NULL, 0), 0, "%s", rf_trainer_error(t));
    cr_expect_eq(rf_register_worker(t, mine, 60), 0, "%s", rf_trainer_error(t));
    cr_expect_eq(rf_register_worker(other, theirs, 60), 0, "%s", rf_trainer_error(other));
    cr_expect_eq(rf_register_worker(t, theirs, 1), -EINVAL);
    cr_expect_not_null(strstr(rf_trainer_error(t), "belongs to rank 1"), "%s", rf_trainer_error(t));
    mine[50] = theirs[7]; /* not in the first message */
    cr_expect_eq(rf_register_worker(t, mine, 60), -EINVAL);
    wrong = 120;
    cr_expect_eq(rf_register_worker(t, &wrong, 1), -EINVAL);
    cr_expect_not_null(strstr(rf_trainer_error(t), "in no rank's sequence"), "%s", rf_trainer_error(t));
    cr_expect_eq(rf_register_worker(t, NULL, 3), -EINVAL);
    world_rest(&w, t); /* a refusal changes nothing */
    rf_detach(t);
    rf_detach(other);
    rf_order_close(order);
    world_close(&w);
}

/* Every rank takes a batch, says how fast it is, and so on, until rank 2 has the status. */
static void train_until(struct world *w, rf_trainer **t, const double *speeds, rf_status wanted)
{
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (;;) {
        rf_health h;
        for (int i = 0; i < 3; i++) {
            rf_batch b;
            world_next(w, t[i], &b);
            cr_assert_eq(rf_report_health(t[i], 1000, 1000 / speeds[i]), 0);
            rf_release(t[i], &b);
        }
        cr_assert_eq(rf_read_health(w->name, RF_PARTY_RANK, 2, &h), 0, "%s", rf_last_error());
        cr_assert(fabs(h.reported_samples_per_s - speeds[2]) < 1e-6 * speeds[2]);
        if (h.status == wanted)
            break;
        clock_gettime(CLOCK_MONOTONIC, &now);
        cr_assert_lt(now.tv_sec - from.tv_sec, 20, "rank 2 is %s", rf_status_name(h.status));
    }
}

static void train_for(struct world *w, rf_trainer **t, const double *speeds, int ms, rf_status always)
{
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do {
        train_until(w, t, speeds, always);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000 < ms);
}

TEST(a_rank_that_reports_to_be_slow_is_slow_until_it_is_well_again)
{
    struct world w;
    rf_trainer *t[3];
    rf_health h;
    bool active_before_slow = false, slow = false;
    world_open(&w, 600);
    w.o.world_size = 3;
    w.o.batch = 4;
    w.s.epochs = 0;
    world_start(&w);
    cr_assert_eq(rf_read_health(w.name, RF_PARTY_RANK, 2, &h), 0);
    cr_expect_eq(h.status, RF_STATUS_UNKNOWN);
    cr_expect_lt(h.heartbeat_seconds_ago, 0);
    for (uint32_t i = 0; i < 3; i++)
        t[i] = world_attach(&w, i);
    train_until(&w, t, (double[]){100, 110, 90}, RF_STATUS_ACTIVE);
    train_for(&w, t, (double[]){100, 110, 60}, 1500, RF_STATUS_ACTIVE); /* above half */
    train_until(&w, t, (double[]){100, 110, 10}, RF_STATUS_SLOW);
    cr_assert_eq(rf_read_health(w.name, RF_PARTY_RANK, 0, &h), 0);
    cr_expect_eq(h.status, RF_STATUS_ACTIVE, "its peers are well");
    train_for(&w, t, (double[]){100, 110, 60}, 1500, RF_STATUS_SLOW); /* not yet well again */
    train_until(&w, t, (double[]){100, 110, 100}, RF_STATUS_ACTIVE);
    cr_assert_eq(rf_read_health(w.name, RF_PARTY_RANK, 2, &h), 0);
    cr_assert_gt(h.n_history, 3);
    for (uint32_t i = 0; i < h.n_history; i++) {
        if (i > 0)
            cr_expect_leq(h.history[i].seconds_ago, h.history[i - 1].seconds_ago);
        active_before_slow |= h.history[i].status == RF_STATUS_ACTIVE && !slow;
        slow |= h.history[i].status == RF_STATUS_SLOW;
    }
    cr_expect(active_before_slow && slow);
    cr_expect_eq(h.history[h.n_history - 1].status, RF_STATUS_ACTIVE);
    for (int i = 0; i < 3; i++)
        rf_detach(t[i]);
    world_close(&w);
}

TEST(workers_have_health_and_wrong_questions_an_error)
{
    struct world w;
    rf_health h;
    rf_batch b;
    world_open(&w, 50);
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    world_next(&w, t, &b);
    rf_release(t, &b);
    do {
        cr_assert_eq(rf_read_health(w.name, RF_PARTY_WORKER, 1, &h), 0, "%s", rf_last_error());
        sched_yield();
        /* It may be slow before its first beat, where starting takes long. */
    } while (h.status == RF_STATUS_UNKNOWN || h.n_history == 0 || h.heartbeat_seconds_ago < 0);
    cr_expect_eq(h.number, 1);
    cr_expect_lt(h.heartbeat_seconds_ago, 60);
    cr_expect_eq(rf_read_health(w.name, RF_PARTY_WORKER, 2, &h), -ERANGE);
    cr_expect_eq(rf_read_health(w.name, RF_PARTY_RANK, 1, &h), -ERANGE);
    cr_expect_eq(rf_read_health("no-such-run", RF_PARTY_RANK, 0, &h), -ENOENT);
    cr_expect_eq(rf_read_health(w.name, (rf_party)7, 0, &h), -EINVAL);
    cr_expect_eq(rf_report_health(t, 10, 0), -EINVAL);
    cr_expect_eq(rf_report_health(t, 10, -1), -EINVAL);
    cr_expect_eq(rf_report_health(t, 10, (double)NAN), -EINVAL);
    world_rest(&w, t);
    rf_detach(t);
    world_close(&w);
}
