/* What a program needs beyond next and release, as the Python binding does: waits that it can end, seeking, giving a rank up,
 * checkpoints of its own counts. */
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEST(name) Test(program, name, .timeout = 60)

static int count_to_three(void *ctx)
{
    return ++*(int *)ctx == 3;
}

TEST(a_wait_asks_between_its_slices_and_can_be_ended)
{
    struct world w;
    rf_batch held, b;
    int asked = 0;
    world_open(&w, 10);
    w.s.workers = 1;
    w.s.prefetch = 2;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    world_next(&w, t, &held);
    cr_assert_eq(rf_release(t, &held), 0);
    kill(rf_server_pid(w.server), SIGSTOP);
    rf_stat s;
    cr_assert_eq(rf_stat_read(w.name, &s), 0);
    for (uint32_t i = 0; i < s.n_workers; i++)
        kill(s.workers[i].pid, SIGSTOP);
    rf_on_wait(t, count_to_three, &asked);
    int rc;
    while ((rc = rf_next(t, WORLD_WAIT_MS, &b)) == RF_OK)
        rf_release(t, &b);
    cr_expect_eq(rc, -EINTR, "%d: %s", rc, rf_trainer_error(t));
    cr_expect_eq(asked, 3);
    rf_on_wait(t, NULL, NULL);
    cr_expect_eq(rf_next(t, 60, &b), -ETIMEDOUT);
    for (uint32_t i = 0; i < s.n_workers; i++)
        kill(s.workers[i].pid, SIGCONT);
    kill(rf_server_pid(w.server), SIGCONT);
    rf_stat_free(&s);
    world_rest(&w, t);
    rf_detach(t);
    world_close(&w);
}

TEST(seeks_to_a_batch_and_to_the_end_of_an_epoch)
{
    struct world w;
    rf_batch b;
    world_open(&w, 20);
    w.o.batch = 3;
    w.s.epochs = 0;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    const uint64_t places[][4] = {{0, 4, 0, 4}, {3, 6, 3, 6}, {1, 7, 2, 0}, {1, 99, 2, 0}, {0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        cr_assert_eq(rf_seek(t, places[i][0], places[i][1]), 0, "%s", rf_trainer_error(t));
        world_next(&w, t, &b);
        cr_expect(b.epoch == places[i][2] && b.batch == places[i][3], "%zu: %llu %llu", i, (unsigned long long)b.epoch,
                  (unsigned long long)b.batch);
        cr_assert_eq(rf_release(t, &b), 0);
    }
    rf_detach(t);
    world_close(&w);
}

TEST(a_rank_is_given_up_and_its_memory_kept)
{
    struct world w;
    rf_batch b;
    world_open(&w, 20);
    w.o.batch = 4;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    world_next(&w, t, &b);
    cr_assert_eq(rf_leave(t), 0);
    cr_expect_eq(rf_next(t, 0, &b), -EPIPE);
    cr_expect_eq(rf_release(t, &b), -EPIPE);
    cr_expect_eq(rf_leave(t), -EPIPE);
    for (uint32_t i = 0; i < b.n_samples; i++)
        cr_expect_eq(rf_batch_sample(&b, i)[7], world_byte(b.ids[i], 7));
    rf_trainer *next = world_attach(&w, 0); /* gets what was not released */
    cr_expect_eq(world_rest(&w, next), 20);
    rf_stat s;
    cr_assert_eq(rf_stat_read(w.name, &s), 0);
    cr_expect_eq(s.ranks[0].attached, 2);
    rf_stat_free(&s);
    rf_detach(next);
    rf_detach(t);
    world_close(&w);
}

/* A checkpoint made of a count is the one that the run itself would give. */
TEST(a_checkpoint_is_made_of_counts)
{
    struct world w;
    rf_batch b;
    rf_dataset *d;
    rf_checkpoint *made, *then;
    rf_checkpoint_position at;
    world_open(&w, 50);
    w.o.batch = 3;
    w.o.world_size = 2;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.o.seed = 4;
    w.s.epochs = 2;
    cr_assert_eq(rf_dataset_open(&w.d, &d), 0);
    cr_assert_eq(rf_checkpoint_make(d, &w.o, NULL, 1, 5, &made), 0, "%s", rf_last_error());
    world_start(&w);
    rf_trainer *t = world_attach(&w, 1);
    cr_assert_eq(rf_restore(t, made), 0, "%s", rf_trainer_error(t));
    world_next(&w, t, &b);
    cr_expect(b.epoch == 1 && b.batch == 5);
    cr_assert_eq(rf_release(t, &b), 0);
    rf_detach(t);
    /* In another world what is left is dealt anew: a rank begins with it. */
    w.o.world_size = 3;
    cr_assert_eq(rf_checkpoint_make(d, &w.o, made, 1, 2, &then), 0, "%s", rf_last_error());
    cr_expect_eq(rf_checkpoint_stages(made), 1);
    cr_expect_eq(rf_checkpoint_stages(then), 2);
    cr_expect_eq(rf_checkpoint_world_size(then), 3);
    cr_assert_eq(rf_checkpoint_rank(then, 2, &at), 0);
    cr_expect(at.epoch == 1 && at.batch == 2);
    rf_order_options o;
    rf_checkpoint_order(then, &o);
    cr_expect(o.world_size == 3 && o.seed == 4 && o.batch == 3);
    w.o.seed = 5;
    cr_expect_eq(rf_checkpoint_make(d, &w.o, made, 1, 2, &then), -EINVAL);
    w.o.strategy = RF_ADAPTIVE;
    cr_expect_eq(rf_checkpoint_make(d, &w.o, NULL, 1, 2, &then), -ENOTSUP);
    rf_checkpoint_close(then);
    rf_checkpoint_close(made);
    rf_dataset_close(d);
    cr_assert_eq(rf_server_stop(w.server), 0);
    w.server = NULL;
    world_close(&w);
}

TEST(a_server_that_has_ended_is_seen_without_waiting)
{
    struct world w;
    int status = -1;
    world_open(&w, 10);
    world_start(&w);
    cr_expect_eq(rf_server_wait(w.server, 0, &status), -ETIMEDOUT);
    cr_expect_eq(rf_remove_dead(w.name), -EBUSY);
    kill(rf_server_pid(w.server), SIGKILL);
    cr_assert_eq(rf_server_wait(w.server, WORLD_WAIT_MS, &status), 0);
    cr_expect_eq(rf_server_wait(w.server, 0, &status), 0);
    cr_expect_eq(status, 128 + SIGKILL);
    rf_server_stop(w.server);
    w.server = NULL;
    cr_expect_eq(rf_remove_dead(w.name), 0);
    cr_expect_eq(rf_remove_dead(w.name), 0);
    rf_stat s;
    cr_expect_eq(rf_stat_read(w.name, &s), -ENOENT);
    world_close(&w);
}
