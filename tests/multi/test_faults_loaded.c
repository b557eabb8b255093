/* Decisions that a run is born with (a checkpoint's): part of its content from the first batch on, whatever the
 * policy, although every sample could be read. */
#include "child.h"
#include "world.h"

#include "checkpoint/resume.h"
#include "coordinator/serve.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { N = 60, BATCH = 6 };

static const struct rfi_fault loaded[] = {
    {.epoch = 0, .rank = 0, .batch = 1, .slot = 2, .sample = 8, .substitute = 50, .error = EIO},
    {.epoch = 0, .rank = 0, .batch = 3, .slot = 0, .sample = 18, .substitute = RFI_FAULT_SKIPPED, .error = EIO},
    {.epoch = 0, .rank = 0, .batch = 3, .slot = 5, .sample = 23, .substitute = 1, .error = EIO},
    {.epoch = 0, .rank = 0, .batch = 6, .slot = 1, .sample = 37, .substitute = 2, .error = EIO},
    {.epoch = 0, .rank = 0, .batch = 4, .slot = 77, .sample = 1, .substitute = 2}, /* of no slot */
    {.epoch = 1, .rank = 0, .batch = 5, .slot = 0, .sample = 30, .substitute = 2}, /* of no epoch of this run */
    {.epoch = 0, .rank = 9, .batch = 5, .slot = 0, .sample = 30, .substitute = 2}, /* of another rank */
    {.epoch = 0, .rank = 0, .batch = 7, .slot = 1, .sample = 43, .substitute = 1000000}, /* of another dataset */
};

static void ready(void *ctx, const struct rfi_run_view *run)
{
    (void)ctx;
    (void)run;
    printf("ready\n");
    fflush(stdout);
}

static int serve(void *ctx)
{
    struct world *w = ctx;
    struct rfi_error err = {0};
    rf_dataset *d;
    rf_dataset_info info;
    struct rfi_state state;
    if (rf_dataset_open(&w->d, &d) < 0)
        return 2;
    rf_dataset_get_info(d, &info);
    if (rfi_state_begin(&w->o, info.fingerprint, info.samples, w->name, "a run", 0, &state, &err) < 0 ||
        rfi_state_set_faults(rfi_state_now(&state), loaded, sizeof loaded / sizeof *loaded, &err) < 0)
        return 3;
    struct rfi_serve_options o = {.name = w->name,
                                  .dataset = rfi_dataset_of(d),
                                  .order = &w->o,
                                  .ranks = 1,
                                  .workers = 2,
                                  .epochs = 1,
                                  .heartbeat_ms = 1000,
                                  .timeout_ms = 30000,
                                  .max_restarts = 3,
                                  .resume = &state,
                                  .ready = ready};
    int rc = rfi_serve(&o, &err);
    if (rc < 0)
        fprintf(stderr, "%s\n", err.text);
    rfi_state_fini(&state);
    rf_dataset_close(d);
    return rc < 0;
}

/* The same entries for samples of varying size: substitutes that do not fit or do not exist are errors. */
Test(faults_loaded, that_cannot_be_followed_are_errors, .timeout = 60)
{
    struct world w;
    struct child c;
    rf_batch b;
    world_open_shard(&w, N);
    w.o.batch = BATCH;
    cr_assert_eq(child_fork(&c, serve, &w), 0);
    cr_assert_eq(child_wait_text(&c, "ready", WORLD_WAIT_MS), 0, "%s", c.err.text);
    rf_trainer *t = world_attach(&w, 0);
    for (uint64_t k = 0; k < N / BATCH; k++) {
        int rc = rf_next(t, WORLD_WAIT_MS, &b);
        if (k == 6 || k == 7) { /* 2 has a field more than 37; 1000000 is nothing */
            cr_expect_eq(rc, -EIO);
            cr_expect(strstr(rf_trainer_error(t), k == 6 ? "sample 37," : "sample 43,"), "%s", rf_trainer_error(t));
            continue;
        }
        cr_assert_eq(rc, RF_OK, "%s", rf_trainer_error(t));
        cr_expect_eq(b.n_samples, k == 3 ? BATCH - 1 : BATCH);
        for (uint32_t i = 0; i < b.n_samples; i++) { /* field 0 is "bin", id % 97 bytes of the formula */
            uint64_t at = b.field_offsets[(uint64_t)i * b.n_fields];
            cr_expect_eq(b.field_lengths[(uint64_t)i * b.n_fields], b.ids[i] % 97);
            cr_expect_eq(b.labels[i], world_label(b.ids[i]));
            for (uint64_t x = 0; x < b.ids[i] % 97; x++)
                cr_assert_eq(b.data[at + x], world_byte(b.ids[i], x), "sample %llu", (unsigned long long)b.ids[i]);
        }
        cr_assert_eq(rf_release(t, &b), 0);
    }
    rf_detach(t);
    cr_assert_eq(child_wait(&c, WORLD_WAIT_MS), 0);
    cr_expect_eq(child_exit_code(&c), 0, "%s", c.err.text);
    child_end(&c);
    world_close(&w);
}

Test(faults_loaded, are_part_of_the_content, .timeout = 60)
{
    struct world w;
    struct child c;
    rf_batch b;
    rf_stat stat;
    world_open(&w, N);
    w.o.batch = BATCH;
    cr_assert_eq(child_fork(&c, serve, &w), 0);
    cr_assert_eq(child_wait_text(&c, "ready", WORLD_WAIT_MS), 0, "%s", c.err.text);
    rf_trainer *t = world_attach(&w, 0);
    for (uint64_t k = 0; k < N / BATCH; k++) {
        if (k == 7) { /* a decision that cannot be followed is an error, never other content */
            cr_expect_eq(rf_next(t, WORLD_WAIT_MS, &b), -EIO);
            cr_expect(strstr(rf_trainer_error(t), "sample 43,"), "%s", rf_trainer_error(t));
            continue;
        }
        world_next(&w, t, &b);
        uint64_t want[BATCH], n = 0;
        for (uint64_t i = 0; i < BATCH; i++)
            if (!(k == 3 && i == 0))
                want[n++] = k == 1 && i == 2 ? 50 : k == 3 && i == 5 ? 1 : k == 6 && i == 1 ? 2 : k * BATCH + i;
        cr_assert_eq(b.n_samples, n);
        cr_expect_eq(b.skipped, k == 3);
        cr_expect_eq(memcmp(b.ids, want, n * sizeof *want), 0, "batch %llu", (unsigned long long)k);
        for (uint64_t i = 0; i < n; i++)
            cr_expect_eq(b.flags[i], b.ids[i] / BATCH == k ? 0 : RF_FLAG_SUBSTITUTED);
        if (k + 1 == N / BATCH) {
            cr_assert_eq(rf_stat_read(w.name, &stat), 0);
            cr_expect_eq(stat.n_faults, sizeof loaded / sizeof *loaded);
            cr_expect_eq(stat.skipped, 1);
            rf_stat_free(&stat);
        }
        cr_assert_eq(rf_release(t, &b), 0);
    }
    rf_detach(t);
    cr_assert_eq(child_wait(&c, WORLD_WAIT_MS), 0);
    cr_expect_eq(child_exit_code(&c), 0, "%s", c.err.text);
    child_end(&c);
    world_close(&w);
}
