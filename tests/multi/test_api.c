/* The C interface against a running server. */
#include "child.h"
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEST(name) Test(api, name, .timeout = 60)

TEST(delivers_every_record_with_its_label_as_one_tensor)
{
    struct world w;
    rf_batch b;
    bool seen[100] = {false};
    world_open(&w, 100);
    w.o.batch = 7;
    w.o.shuffle = RF_SHUFFLE_FULL;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    cr_expect_eq(rf_len(t), 15);
    cr_expect_eq(rf_is_empty(t), 0);
    for (uint64_t k = 0; k < 15; k++) {
        world_next(&w, t, &b);
        cr_expect_eq(b.epoch, 0);
        cr_expect_eq(b.batch, k);
        cr_expect_eq(b.fixed_bytes, WORLD_RECORD);
        cr_expect_eq(b.n_samples, k < 14 ? 7 : 2);
        cr_expect_eq(b.last, k == 14);
        cr_expect_not_null(b.labels);
        for (uint32_t i = 0; i < b.n_samples; i++) {
            cr_assert_not(seen[b.ids[i]]);
            seen[b.ids[i]] = true;
            cr_expect_eq(b.flags[i], 0);
        }
        cr_assert_eq(rf_release(t, &b), 0);
    }
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    int status = -1;
    cr_expect_eq(rf_server_wait(w.server, WORLD_WAIT_MS, &status), 0);
    cr_expect_eq(status, 0);
    rf_detach(t);
    world_close(&w);
}

TEST(what_comes_is_what_rf_order_batch_says)
{
    struct world w;
    rf_batch b;
    rf_order *order;
    uint64_t ids[9];
    uint8_t flags[9];
    world_open(&w, 50);
    w.o.batch = 9;
    w.o.world_size = 2;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.o.tail = RF_TAIL_PAD;
    w.o.seed = 99;
    w.s.epochs = 3;
    w.s.start_epoch = 5;
    rf_order_options virtual_order = w.o;
    virtual_order.samples = 50;
    cr_assert_eq(rf_order_open(&virtual_order, NULL, &order), 0, "%s", rf_last_error());
    world_start(&w);
    for (uint32_t rank = 0; rank < 2; rank++) {
        rf_trainer *t = world_attach(&w, rank);
        for (uint64_t k = 0; k < 9; k++) {
            world_next(&w, t, &b);
            cr_expect_eq(b.epoch, 5 + k / 3);
            cr_assert_eq(rf_order_batch(order, b.epoch, rank, b.batch, ids, flags), b.n_samples);
            cr_expect_arr_eq(ids, b.ids, b.n_samples * sizeof *ids);
            cr_expect_arr_eq(flags, b.flags, b.n_samples);
            rf_release(t, &b);
        }
        cr_expect_eq(rf_next(t, 1000, &b), RF_END);
        rf_detach(t);
    }
    rf_order_close(order);
    world_close(&w);
}

TEST(fields_have_their_places_and_absent_ones_none)
{
    struct world w;
    rf_batch b;
    uint64_t n = 0;
    world_open_shard(&w, 150);
    w.o.batch = 8;
    w.o.shuffle = RF_SHUFFLE_FULL;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    while (rf_next(t, WORLD_WAIT_MS, &b) == RF_OK) {
        cr_assert_eq(b.n_fields, 3);
        cr_assert_eq(b.fixed_bytes, 0);
        for (uint32_t i = 0; i < b.n_samples; i++, n++)
            for (uint32_t f = 0; f < 3; f++) {
                uint64_t at = b.field_offsets[i * 3 + f], bytes = b.field_lengths[i * 3 + f], id = b.ids[i];
                const char *name = rf_trainer_field_name(t, f);
                cr_assert_eq(b.labels[i], world_label(id));
                if (!strcmp(name, "bin")) {
                    cr_assert_eq(bytes, id % 97);
                    for (uint64_t k = 0; k < bytes; k++)
                        cr_assert_eq(b.data[at + k], world_byte(id, k));
                } else if (!strcmp(name, "txt") && id % 2) {
                    cr_assert_eq(at, UINT64_MAX);
                    cr_assert_eq(bytes, 0);
                } else if (!strcmp(name, "txt")) {
                    cr_assert_eq(bytes, strlen(w.name));
                    cr_assert_eq(memcmp(b.data + at, w.name, bytes), 0);
                } else {
                    cr_assert_str_eq(name, "cls");
                    cr_assert_eq(strtoll((const char *)b.data + at, NULL, 10), world_label(id));
                }
            }
        rf_release(t, &b);
    }
    cr_expect_eq(n, 150);
    cr_expect_null(rf_trainer_field_name(t, 3));
    rf_detach(t);
    world_close(&w);
}

TEST(batches_may_be_held_and_released_in_any_order)
{
    struct world w;
    rf_batch b[4];
    world_open(&w, 400);
    w.o.batch = 5;
    w.s.prefetch = 4;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    static const int orders[][4] = {{3, 2, 1, 0}, {1, 3, 0, 2}, {0, 2, 1, 3}, {2, 0, 3, 1}};
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 4; i++) {
            world_next(&w, t, &b[i]);
            cr_assert_eq(b[i].ids[0], (uint64_t)(20 * round + 5 * i));
        }
        for (int i = 0; i < 4; i++) {
            const rf_batch *one = &b[orders[round % 4][i]];
            for (uint32_t k = 0; k < one->n_samples; k++) /* still intact, whatever was released before */
                cr_assert_eq(rf_batch_sample(one, k)[k], world_byte(one->ids[k], k));
            cr_assert_eq(rf_release(t, one), 0);
            cr_expect_eq(rf_release(t, one), -EINVAL);
        }
    }
    cr_expect_eq(rf_next(t, 1000, &b[0]), RF_END);
    rf_detach(t);
    world_close(&w);
}

TEST(holding_all_slots_fails_at_once_and_names_them)
{
    struct world w;
    rf_batch b[4], next;
    world_open(&w, 100);
    w.s.prefetch = 3;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    for (int i = 0; i < 3; i++)
        world_next(&w, t, &b[i]);
    cr_expect_eq(rf_next(t, 20000, &next), -EDEADLK);
    cr_expect(strstr(rf_trainer_error(t), "0, 1, 2"), "%s", rf_trainer_error(t));
    cr_assert_eq(rf_release(t, &b[1]), 0); /* does not count before ticket 0 */
    cr_expect_eq(rf_next(t, 20000, &next), -EDEADLK);
    cr_expect(strstr(rf_trainer_error(t), "0, 2"), "%s", rf_trainer_error(t));
    cr_assert_eq(rf_release(t, &b[0]), 0);
    world_next(&w, t, &next);
    cr_expect_eq(next.ids[0], 3);
    rf_detach(t);
    world_close(&w);
}

TEST(holding_all_bytes_fails_at_once_too)
{
    struct world w;
    rf_batch b[16], next;
    int n = 0, rc;
    world_open(&w, 4000);
    w.o.batch = 64;
    w.s.prefetch = 12;
    w.s.ring_bytes = 3 * 64 * WORLD_RECORD + 8192; /* fewer batches than slots */
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    while (n < 12 && (rc = rf_next(t, 20000, &b[n])) == RF_OK)
        n++;
    cr_assert_eq(rc, -EDEADLK, "%s", rf_trainer_error(t));
    cr_expect_geq(n, 2);
    cr_expect_lt(n, 12);
    cr_expect(strstr(rf_trainer_error(t), "--ring-bytes"), "%s", rf_trainer_error(t));
    for (int i = 0; i < n; i++)
        cr_assert_eq(rf_release(t, &b[i]), 0);
    world_next(&w, t, &next);
    cr_expect_eq(next.batch, (uint64_t)n);
    rf_detach(t);
    world_close(&w);
}

TEST(prefetch_fills_the_ring_without_next)
{
    struct world w;
    world_open(&w, 100);
    w.s.prefetch = 6;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    cr_expect_geq(rf_prefetch(t, 6), 0);
    world_await_ready(&w, 0, 6);
    cr_expect_eq(rf_prefetch(t, 6), 6);
    cr_expect_eq(rf_prefetch(t, 1000000), 6);
    rf_detach(t);
    world_close(&w);
}

/* Rings that grow whenever they may, once a batch was given back: of two ranks, the one whose memory a device knows stays as it is. */
#ifdef RFI_FAIL_POINTS /* without them nothing makes a ring grow at once */
TEST(a_ring_whose_memory_was_asked_for_does_not_grow)
{
    struct world w;
    rf_trainer *t[2];
    rf_trainer_info info;
    const void *base[2];
    uint64_t bytes[2];
    rf_batch b;
    world_open(&w, 400);
    w.o.world_size = 2;
    w.s.epochs = 0;
    setenv("RINGFEED_TUNE_STORM", "1", 1);
    world_start(&w);
    unsetenv("RINGFEED_TUNE_STORM");
    for (uint32_t i = 0; i < 2; i++)
        t[i] = world_attach(&w, i);
    world_next(&w, t[0], &b);
    cr_assert_eq(rf_batch_arena(t[0], &b, &base[0], &bytes[0]), 0, "%s", rf_trainer_error(t[0]));
    rf_release(t[0], &b);
    rf_trainer_get_info(t[0], &info);
    const uint32_t depth = info.depth;
    do {
        for (uint32_t i = 0; i < 2; i++) {
            world_next(&w, t[i], &b);
            if (i == 0) {
                cr_assert_eq(rf_batch_arena(t[0], &b, &base[1], &bytes[1]), 0);
                cr_assert(base[0] == base[1] && bytes[0] == bytes[1]);
                cr_assert_leq((uint64_t)(b.data - (const unsigned char *)base[0]) + b.data_bytes, bytes[0]);
            }
            rf_release(t[i], &b);
        }
        rf_trainer_get_info(t[1], &info);
    } while (info.depth < 64);
    rf_trainer_get_info(t[0], &info);
    cr_expect_eq(info.depth, depth);
    cr_expect_eq(depth, 4);
    rf_detach(t[0]); /* the next one may see it grow again */
    t[0] = world_attach(&w, 0);
    do {
        world_next(&w, t[0], &b);
        rf_release(t[0], &b);
        rf_trainer_get_info(t[0], &info);
    } while (info.depth < 64);
    rf_detach(t[0]);
    rf_detach(t[1]);
    world_close(&w);
}
#endif

TEST(reset_starts_the_epoch_over_and_held_batches_stay_valid)
{
    struct world w;
    rf_batch b, held;
    world_open(&w, 60);
    w.o.batch = 4;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.s.epochs = 2;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    uint64_t first[4];
    world_next(&w, t, &held);
    memcpy(first, held.ids, sizeof first);
    for (int i = 0; i < 3; i++) {
        world_next(&w, t, &b);
        rf_release(t, &b);
    }
    cr_assert_eq(rf_reset(t), 0, "%s", rf_trainer_error(t));
    cr_assert_eq(rf_reset(t), 0, "%s", rf_trainer_error(t)); /* it stands there: nothing happens */
    for (uint32_t k = 0; k < 4; k++)
        cr_expect_eq(rf_batch_sample(&held, k)[9], world_byte(first[k], 9));
    cr_assert_eq(rf_release(t, &held), 0); /* its slot is needed now: the ring was full behind it */
    world_next(&w, t, &b);
    cr_expect_eq(b.batch, 0);
    cr_expect_eq(b.epoch, 0);
    cr_expect_arr_eq(b.ids, first, sizeof first);
    cr_assert_eq(rf_release(t, &b), 0);
    for (int i = 1; i < 15; i++) { /* to the end of epoch 0 */
        world_next(&w, t, &b);
        cr_expect_eq(b.batch, (uint64_t)i);
        rf_release(t, &b);
    }
    cr_expect_eq(b.last, 1);
    cr_assert_eq(rf_reset(t), 0, "%s", rf_trainer_error(t)); /* at its end: once more */
    cr_expect_eq(world_rest(&w, t), 120);
    rf_detach(t);
    world_close(&w);
}

TEST(resets_in_a_row_and_at_every_point)
{
    struct world w;
    rf_batch b;
    world_open(&w, 40);
    w.o.batch = 3;
    w.s.prefetch = 3;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    for (int taken = 0; taken < 13; taken++)
        for (int twice = 0; twice < 2; twice++) {
            for (int i = 0; i < taken; i++) {
                world_next(&w, t, &b);
                cr_assert_eq(b.batch, (uint64_t)i);
                if (i % 2)
                    rf_release(t, &b);
                else
                    cr_assert_eq(rf_release(t, &b), 0);
            }
            cr_assert_eq(rf_reset(t), 0, "%s", rf_trainer_error(t));
        }
    cr_expect_eq(world_rest(&w, t), 40);
    rf_detach(t);
    world_close(&w);
}

TEST(set_epoch_goes_there_or_says_why_not)
{
    struct world w;
    rf_batch b;
    world_open(&w, 30);
    w.o.batch = 4;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.s.start_epoch = 3;
    w.s.epochs = 4;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    cr_expect_eq(rf_set_epoch(t, 3), 0); /* there already */
    world_next(&w, t, &b);
    cr_expect_eq(b.ticket, 0);
    rf_release(t, &b);
    static const uint64_t epochs[] = {5, 4, 6, 3};
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(rf_set_epoch(t, epochs[i]), 0, "%s", rf_trainer_error(t));
        world_next(&w, t, &b);
        cr_expect_eq(b.epoch, epochs[i]);
        cr_expect_eq(b.batch, 0);
        rf_release(t, &b);
    }
    cr_expect_eq(rf_set_epoch(t, 2), -ERANGE);
    cr_expect(strstr(rf_trainer_error(t), "3 to 6"), "%s", rf_trainer_error(t));
    cr_expect_eq(rf_set_epoch(t, 7), -ERANGE);
    cr_expect_eq(rf_set_epoch(t, UINT64_MAX), -ERANGE);
    world_next(&w, t, &b); /* the refusals changed nothing */
    cr_expect_eq(b.epoch, 3);
    cr_expect_eq(b.batch, 1);
    rf_release(t, &b);
    cr_assert_eq(rf_set_epoch(t, 6), 0);
    cr_expect_eq(world_rest(&w, t), 30);
    rf_detach(t);
    world_close(&w);
}

/* The child's exit status says which call did not refuse. */
static int in_child(void *ctx)
{
    rf_trainer *t = ctx;
    rf_batch b = {0};
    if (rf_next(t, 0, &b) != -EPERM || !strstr(rf_trainer_error(t), "forked child"))
        return 1;
    if (rf_release(t, &b) != -EPERM || rf_prefetch(t, 1) != -EPERM)
        return 2;
    if (rf_reset(t) != -EPERM || rf_set_epoch(t, 0) != -EPERM)
        return 3;
    rf_detach(t);
    return 0;
}

TEST(a_forked_child_is_refused_and_harms_nothing)
{
    struct world w;
    struct child c;
    rf_batch b;
    world_open(&w, 20);
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    world_next(&w, t, &b);
    cr_assert_eq(child_fork(&c, in_child, t), 0);
    cr_assert_eq(child_wait(&c, 20000), 0);
    cr_expect_eq(child_exit_code(&c), 0);
    child_end(&c);
    rf_release(t, &b);
    cr_expect_eq(world_rest(&w, t), 19);
    rf_detach(t);
    world_close(&w);
}

TEST(a_dead_server_is_named_and_batches_taken_stay)
{
    struct world w;
    rf_batch b, next;
    world_open(&w, 50);
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    char pid[32];
    int status;
    world_next(&w, t, &b);
    snprintf(pid, sizeof pid, "process %d", rf_server_pid(w.server));
    kill(rf_server_pid(w.server), SIGKILL);
    cr_assert_eq(rf_server_wait(w.server, WORLD_WAIT_MS, &status), 0);
    cr_expect_eq(status, 128 + SIGKILL);
    cr_expect_eq(rf_next(t, WORLD_WAIT_MS, &next), -EPIPE);
    cr_expect(strstr(rf_trainer_error(t), pid) && strstr(rf_trainer_error(t), "died"), "%s", rf_trainer_error(t));
    cr_expect_eq(rf_batch_sample(&b, 0)[5], world_byte(b.ids[0], 5));
    cr_expect_eq(rf_release(t, &b), 0);
    cr_expect_lt(rf_reset(t), 0);
    cr_expect_eq(rf_detach(t), 0);
    rf_server_stop(w.server);
    world_start(&w); /* the name is free at once */
    t = world_attach(&w, 0);
    cr_expect_eq(world_rest(&w, t), 50);
    rf_detach(t);
    world_close(&w);
}

TEST(a_time_out_names_who_was_waited_for)
{
    struct world w;
    rf_batch b;
    rf_stat s;
    world_open(&w, 50);
    w.s.workers = 1;
    w.s.prefetch = 2;
    world_start(&w);
    cr_assert_eq(rf_stat_read(w.name, &s), 0);
    int worker = s.workers[0].pid;
    rf_stat_free(&s);
    rf_trainer *t = world_attach(&w, 0);
    world_await_ready(&w, 0, 2);
    cr_assert_eq(kill(worker, SIGSTOP), 0);
    for (int i = 0; i < 2; i++) {
        world_next(&w, t, &b);
        rf_release(t, &b);
    }
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    cr_expect_eq(rf_next(t, 300, &b), -ETIMEDOUT);
    clock_gettime(CLOCK_MONOTONIC, &now);
    cr_expect_geq((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000, 295);
    cr_expect(strstr(rf_trainer_error(t), "rank 0 within 300 ms"), "%s", rf_trainer_error(t));
    cr_expect(strstr(rf_trainer_error(t), w.name) || strstr(rf_trainer_error(t), "worker 0"), "%s",
              rf_trainer_error(t));
    cr_expect_eq(rf_next(t, 0, &b), -ETIMEDOUT);
    kill(worker, SIGCONT);
    cr_expect_eq(world_rest(&w, t), 48); /* a time-out loses nothing */
    rf_detach(t);
    world_close(&w);
}

TEST(an_empty_dataset_has_no_batch)
{
    struct world w;
    rf_batch b;
    world_open(&w, 0);
    w.o.world_size = 2;
    world_start(&w);
    for (uint32_t rank = 0; rank < 2; rank++) {
        rf_trainer *t = world_attach(&w, rank);
        cr_expect_eq(rf_len(t), 0);
        cr_expect_eq(rf_is_empty(t), 1);
        cr_expect_eq(rf_next(t, 1000, &b), RF_END);
        rf_detach(t);
    }
    int status = -1;
    cr_expect_eq(rf_server_wait(w.server, WORLD_WAIT_MS, &status), 0);
    cr_expect_eq(status, 0);
    world_close(&w);
}

TEST(a_writable_attach_may_write_into_its_batches)
{
    struct world w;
    rf_batch b;
    rf_attach_options o;
    rf_trainer *t;
    world_open(&w, 200);
    w.o.batch = 4;
    w.s.epochs = 2;
    world_start(&w);
    rf_attach_options_init(&o);
    o.writable = 1;
    cr_assert_eq(rf_attach(w.name, 0, &o, &t), 0, "%s", rf_last_error());
    for (int i = 0; i < 100; i++) { /* what was written is gone when the place is used again */
        world_next(&w, t, &b);
        memset((unsigned char *)(uintptr_t)rf_batch_sample(&b, 0), 0xa5, WORLD_RECORD);
        cr_assert_eq(rf_release(t, &b), 0);
    }
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    rf_detach(t);
    world_close(&w);
}

/* In a child: takes `n` batches, releases all but the last, says so and waits to be killed. */
struct victim {
    const char *name;
    int n;
};

static int hold_the_last(void *ctx)
{
    struct victim *v = ctx;
    rf_trainer *t;
    rf_batch b;
    if (rf_attach(v->name, 0, NULL, &t) < 0)
        return 1;
    for (int i = 0; i < v->n; i++)
        if (rf_next(t, WORLD_WAIT_MS, &b) != RF_OK || (i + 1 < v->n && rf_release(t, &b) < 0))
            return 2;
    printf("holding\n");
    fflush(stdout);
    for (;;)
        pause();
}

TEST(a_killed_trainers_rank_goes_on_at_the_first_unreleased_batch)
{
    struct world w;
    rf_batch b;
    rf_trainer *t;
    struct child c;
    world_open(&w, 100);
    w.o.batch = 5;
    world_start(&w);
    uint64_t expected = 0;
    for (int n = 1; n < 5; n++) {
        struct victim v = {w.name, n};
        cr_assert_eq(child_fork(&c, hold_the_last, &v), 0);
        cr_assert_eq(child_wait_text(&c, "holding", WORLD_WAIT_MS), 0, "%s", c.err.text);
        cr_expect_eq(rf_attach(w.name, 0, NULL, &t), -EBUSY);
        cr_assert_eq(child_signal(&c, SIGKILL), 0);
        cr_assert_eq(child_wait(&c, WORLD_WAIT_MS), 0);
        child_end(&c);
        expected += (uint64_t)n - 1;
        t = world_attach(&w, 0);
        world_next(&w, t, &b);
        cr_expect_eq(b.batch, expected);
        rf_detach(t); /* without a release: it comes again */
    }
    t = world_attach(&w, 0);
    cr_expect_eq(world_rest(&w, t), 100 - 5 * expected);
    rf_detach(t);
    world_close(&w);
}

static int start_and_wait(void *ctx)
{
    struct world *w = ctx;
    if (rf_server_start(&w->s, WORLD_WAIT_MS, &w->server) < 0)
        return 1;
    printf("server %d\n", rf_server_pid(w->server));
    fflush(stdout);
    for (;;)
        pause();
}

TEST(the_server_ends_with_the_process_that_started_it)
{
    struct world w;
    struct child c;
    rf_stat s;
    int pid = 0, rc = 0;
    world_open(&w, 10);
    cr_assert_eq(child_fork(&c, start_and_wait, &w), 0);
    cr_assert_eq(child_wait_text(&c, "server", WORLD_WAIT_MS), 0);
    cr_assert_eq(child_wait_text(&c, "\n", WORLD_WAIT_MS), 0);
    cr_assert_eq(sscanf(c.out.text, "server %d", &pid), 1);
    cr_assert_eq(rf_stat_read(w.name, &s), 0);
    cr_expect_eq(s.server_pid, pid);
    rf_stat_free(&s);
    child_end(&c);
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do { /* a clean end: its name is gone too */
        rc = rf_stat_read(w.name, &s);
        if (rc == 0)
            rf_stat_free(&s);
        clock_gettime(CLOCK_MONOTONIC, &now);
        sched_yield();
    } while (rc == 0 && now.tv_sec - from.tv_sec < 20);
    cr_expect_eq(rc, -ENOENT);
    world_close(&w);
}

TEST(a_server_that_cannot_start_says_why)
{
    struct world w;
    rf_server *s = NULL;
    world_open(&w, 10);
    cr_assert_eq(rf_server_validate(&w.s), 0);
    w.s.name = "not a name";
    cr_expect_eq(rf_server_start(&w.s, 5000, &s), -EINVAL);
    w.s.name = w.name;
    w.path = "/does/not/exist";
    cr_expect_lt(rf_server_start(&w.s, 5000, &s), 0);
    cr_expect(strstr(rf_last_error(), "/does/not/exist"), "%s", rf_last_error());
    w.path = w.file;
    w.s.command = "/does/not/exist/ringfeed";
    cr_expect_lt(rf_server_start(&w.s, 5000, &s), 0);
    cr_expect(strstr(rf_last_error(), "/does/not/exist/ringfeed"), "%s", rf_last_error());
    cr_expect_null(s);
    world_close(&w);
}

/* Everything but the end of the process is forbidden from here on. */
static int no_more_syscalls(void)
{
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof lines / sizeof *lines, .filter = lines};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

struct quiet {
    const char *name;
    bool cheat; /* one syscall: shows that the filter bites */
};

static int take_quietly(void *ctx)
{
    struct quiet *q = ctx;
    rf_trainer *t;
    rf_batch b;
    int n = 0;
    if (rf_attach(q->name, 0, NULL, &t) < 0)
        return 1;
    for (int i = 0; i < 3; i++) /* the first batches may still have to be waited for */
        if (rf_next(t, WORLD_WAIT_MS, &b) != RF_OK || rf_release(t, &b) < 0)
            return 2;
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    now = from;
    while (rf_prefetch(t, 16) < 16 && now.tv_sec - from.tv_sec < 20)
        clock_gettime(CLOCK_MONOTONIC, &now);
    if (no_more_syscalls() < 0)
        return 3;
    for (; n < 6; n++) /* more than half of the ring stays ready: no bell is needed */
        if (rf_next(t, 0, &b) != RF_OK || rf_batch_sample(&b, 0)[0] != world_byte(b.ids[0], 0) || rf_release(t, &b) < 0)
            return 4;
    if (q->cheat)
        syscall(SYS_getppid);
    syscall(SYS_exit_group, 0);
    return 5;
}

TEST(a_ready_batch_costs_no_syscall)
{
    struct world w;
    struct child c;
    world_open(&w, 200);
    w.s.prefetch = 16;
    w.s.epochs = 0;
    world_start(&w);
    for (int cheat = 0; cheat < 2; cheat++) {
        struct quiet q = {w.name, cheat != 0};
        cr_assert_eq(child_fork(&c, take_quietly, &q), 0);
        cr_assert_eq(child_wait(&c, 40000), 0);
        cr_expect_eq(child_exit_code(&c), cheat ? 128 + SIGSYS : 0, "%d", child_exit_code(&c));
        child_end(&c);
    }
    world_close(&w);
}

TEST(wrong_arguments_are_refused)
{
    struct world w;
    rf_trainer *t;
    rf_attach_options o = {0};
    world_open(&w, 10);
    world_start(&w);
    cr_expect_eq(rf_attach(w.name, 0, &o, &t), -EINVAL); /* not initialised */
    cr_expect_eq(rf_attach(w.name, 1, NULL, &t), -ERANGE);
    cr_expect_eq(rf_attach("a/b", 0, NULL, &t), -EINVAL);
    rf_attach_options_init(&o);
    o.timeout_ms = 0;
    cr_expect_eq(rf_attach("nobody-serves-this", 0, &o, &t), -ENOENT);
    rf_batch strange = {.ticket = 77};
    t = world_attach(&w, 0);
    cr_expect_eq(rf_release(t, &strange), -EINVAL);
    rf_detach(t);
    cr_expect_eq(rf_detach(NULL), 0);
    world_close(&w);
}
