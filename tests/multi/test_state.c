/* Checkpoints, restore and balance through the C interface. What a checkpoint says is compared with what the test
 * itself took and released, and with rf_order_batch over a virtual dataset. */
#include "child.h"
#include "world.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define TEST(name) Test(state, name, .timeout = 60)

enum { MOST = 4096 };

/* What one rank was given and gave back, in order. */
struct taken {
    uint64_t ids[MOST], n;
};

static void note(struct taken *t, const rf_batch *b)
{
    for (uint32_t i = 0; i < b->n_samples; i++)
        if (!(b->flags[i] & RF_FLAG_PADDING))
            t->ids[t->n++] = b->ids[i];
}

static void step(struct world *w, rf_trainer *t, struct taken *taken)
{
    rf_batch b;
    world_next(w, t, &b);
    if (taken)
        note(taken, &b);
    cr_assert_eq(rf_release(t, &b), 0);
}

static rf_checkpoint *take(struct world *w)
{
    rf_checkpoint *c = NULL;
    cr_assert_eq(rf_checkpoint_take(w->name, &c), 0, "%s", rf_last_error());
    return c;
}

static void stands_at(rf_checkpoint *c, uint32_t rank, uint64_t epoch, uint64_t batch)
{
    rf_checkpoint_position p;
    cr_assert_eq(rf_checkpoint_rank(c, rank, &p), 0, "%s", rf_checkpoint_error(c));
    cr_assert(p.rank == rank && p.epoch == epoch && p.batch == batch,
              "rank %u stands at epoch %lu batch %lu, not %lu %lu", rank, (unsigned long)p.epoch,
              (unsigned long)p.batch, (unsigned long)epoch, (unsigned long)batch);
}

static rf_dataset *dataset(struct world *w)
{
    rf_dataset *d = NULL;
    cr_assert_eq(rf_dataset_open(&w->d, &d), 0, "%s", rf_last_error());
    return d;
}

/* All of it, and every window of it. */
static void processed_are(rf_checkpoint *c, rf_dataset *d, uint32_t rank, const struct taken *t)
{
    uint64_t ids[MOST];
    cr_assert_eq(rf_checkpoint_processed(c, d, rank, 0, MOST, ids), (int64_t)t->n, "%s", rf_checkpoint_error(c));
    cr_assert_arr_eq(ids, t->ids, t->n * sizeof *ids);
    for (uint64_t from = 0; from <= t->n + 1; from += 1 + from / 4)
        for (uint64_t count = 0; count <= 9; count += 3) {
            uint64_t want = from < t->n ? t->n - from < count ? t->n - from : count : 0;
            cr_assert_eq(rf_checkpoint_processed(c, d, rank, from, count, ids), (int64_t)want);
            cr_assert_arr_eq(ids, t->ids + from, want * sizeof *ids);
        }
}

static void says(const char *text, const char *a, const char *b)
{
    cr_assert(strstr(text, a) && strstr(text, b), "neither \"%s\" nor \"%s\" may be missing in: %s", a, b, text);
}

/* The server is killed and the handle freed; what it leaves is for `resume`, or removed by world_close's next one. */
static void kill_server(struct world *w)
{
    int status;
    kill(rf_server_pid(w->server), SIGKILL);
    cr_assert_eq(rf_server_wait(w->server, WORLD_WAIT_MS, &status), 0);
    rf_server_stop(w->server);
    w->server = NULL;
}

static void file_in(const struct world *w, const char *name, char *ret, size_t room)
{
    snprintf(ret, room, "%s/%s", w->directory, name);
}

static void remove_file(const char *path)
{
    char prev[300];
    unlink(path);
    snprintf(prev, sizeof prev, "%s.prev", path);
    unlink(prev);
    snprintf(prev, sizeof prev, "%s.new", path); /* of a server that was killed writing it */
    unlink(prev);
}

TEST(a_checkpoint_says_what_was_released_and_nothing_else)
{
    struct world w;
    struct taken zero = {0}, one = {0};
    rf_batch held[3];
    rf_order *order;
    uint64_t ids[5];
    char path[160];
    world_open(&w, 97);
    w.o.world_size = 2;
    w.o.batch = 5;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.o.tail = RF_TAIL_PAD;
    w.o.seed = 77;
    world_start(&w);
    rf_trainer *t[2] = {world_attach(&w, 0), world_attach(&w, 1)};
    for (int i = 0; i < 10; i++) /* to the padded end of the epoch */
        step(&w, t[0], &zero);
    step(&w, t[1], &one);
    for (int i = 0; i < 3; i++)
        world_next(&w, t[1], &held[i]);
    cr_assert_eq(rf_release(t[1], &held[1]), 0); /* behind one that is held: does not count yet */
    rf_checkpoint *c = take(&w), *again;
    cr_expect_eq(rf_checkpoint_world_size(c), 2);
    stands_at(c, 1, 0, 1);
    rf_checkpoint_position p;
    cr_assert_eq(rf_checkpoint_rank(c, 1, &p), 0);
    cr_expect_eq(p.seed, 77);
    cr_expect_leq(llabs((long long)p.time_s - (long long)time(NULL)), 60);
    rf_dataset *d = dataset(&w);
    processed_are(c, d, 1, &one);
    note(&one, &held[0]);
    note(&one, &held[1]);
    cr_assert_eq(rf_release(t[1], &held[0]), 0); /* now both do */
    rf_checkpoint_close(c);
    c = take(&w);
    stands_at(c, 1, 0, 3);
    file_in(&w, "saved.json", path, sizeof path);
    cr_assert_eq(rf_checkpoint_save(c, path), 0, "%s", rf_last_error());
    cr_assert_eq(rf_checkpoint_open(path, &again), 0, "%s", rf_last_error());
    stands_at(again, 1, 0, 3);
    processed_are(again, d, 1, &one);
    rf_order_options v = w.o;
    v.samples = 97;
    cr_assert_eq(rf_order_open(&v, NULL, &order), 0);
    for (uint64_t b = 0, at = 0; b < 3; b++) {
        int64_t n = rf_order_batch(order, 0, 1, b, ids, NULL);
        cr_assert_eq(n, 5);
        cr_assert_arr_eq(ids, one.ids + at, 5 * sizeof *ids);
        at += 5;
    }
    rf_order_close(order);
    rf_checkpoint_close(again);
    rf_checkpoint_close(c);
    rf_dataset_close(d);
    rf_detach(t[0]);
    rf_detach(t[1]);
    remove_file(path);
    world_close(&w);
}

/* The text of a saved checkpoint with one word replaced and a checksum that fits it. */
static void forge(const char *path, const char *from, const char *to)
{
    char text[8192], made[8300];
    FILE *f = fopen(path, "r");
    cr_assert_not_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *at = strstr(text, from), *end = strstr(text, ",\n  \"checksum\"");
    cr_assert(at && end);
    *end = *at = 0;
    int bytes = snprintf(made, sizeof made, "%s%s%s", text, to, at + strlen(from));
    f = fopen(path, "w");
    fprintf(f, "%s,\n  \"checksum\": \"%016llx\"\n}\n", made, (unsigned long long)XXH3_64bits(made, (size_t)bytes));
    fclose(f);
}

/* Anybody can compute a checksum. */
TEST(a_forged_checkpoint_is_an_error_and_takes_no_time)
{
    struct world w;
    rf_checkpoint *c;
    uint64_t ids[32];
    char path[160];
    world_open(&w, 20);
    w.o.batch = 4;
    w.s.epochs = 3;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    step(&w, t, NULL);
    rf_dataset *d = dataset(&w);
    file_in(&w, "forged.json", path, sizeof path);
    static const struct {
        const char *from, *to;
        int restore;
        int64_t processed;
    } cases[] = {
        {"\"batch\": 1", "\"batch\": 4000000000000000000", -ERANGE, 20},
        {"\"epoch\": 0", "\"epoch\": 4000000000000000000", -ERANGE, 4},
        {"\"moves\": [", "\"moves\": [ { \"epoch\": 0, \"donor\": 0, \"recipient\": 0, \"cut\": 1, \"count\": 9 } ", 0,
         -EINVAL},
        {"\"strategy\": \"round-robin\"", "\"strategy\": \"hash\"", -EINVAL, -1},
        {"\"block_samples\": 0", "\"block_samples\": 18446744073709551615", -EINVAL, 4},
        {"\"strategy\": \"round-robin\"", "\"strategy\": \"range\"", -EINVAL, -EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        c = take(&w);
        cr_assert_eq(rf_checkpoint_save(c, path), 0);
        rf_checkpoint_close(c);
        forge(path, cases[i].from, cases[i].to);
        cr_assert_eq(rf_checkpoint_open(path, &c), 0, "case %zu: %s", i, rf_last_error());
        int64_t n = rf_checkpoint_processed(c, d, 0, 0, 32, ids);
        cr_expect(cases[i].processed == -1 || n == cases[i].processed, "case %zu: %ld: %s", i, (long)n,
                  rf_checkpoint_error(c));
        cr_expect_eq(rf_restore(t, c), cases[i].restore, "case %zu: %s", i, rf_trainer_error(t));
        rf_checkpoint_close(c);
    }
    rf_dataset_close(d);
    cr_expect_eq(world_rest(&w, t), 56);
    rf_detach(t);
    remove_file(path);
    world_close(&w);
}

TEST(wrong_arguments_are_errors_with_a_text)
{
    struct world w, other;
    rf_checkpoint *c = NULL;
    rf_checkpoint_position p;
    rf_batch b;
    uint64_t ids[4];
    char path[160];
    world_open(&w, 20);
    world_start(&w);
    cr_expect_eq(rf_checkpoint_take(NULL, &c), -EINVAL);
    cr_expect_eq(rf_checkpoint_take(w.name, NULL), -EINVAL);
    cr_expect_eq(rf_checkpoint_take("no-such-run-at-all", &c), -ENOENT);
    says(rf_last_error(), "no-such-run-at-all", "");
    cr_expect_eq(rf_checkpoint_take("../x", &c), -EINVAL);
    cr_expect_eq(rf_checkpoint_open(NULL, &c), -EINVAL);
    cr_expect_eq(rf_checkpoint_open(w.file, NULL), -EINVAL);
    cr_expect_eq(rf_checkpoint_open(w.file, &c), -EBADMSG);
    says(rf_last_error(), w.file, "checksum");
    cr_expect_eq(rf_checkpoint_open(w.directory, &c), -EINVAL);
    says(rf_last_error(), w.directory, "regular file");
    file_in(&w, "nothing.json", path, sizeof path);
    cr_expect_eq(rf_checkpoint_open(path, &c), -ENOENT);
    says(rf_last_error(), path, "No such file");
    cr_expect_eq(rf_checkpoint_save(NULL, path), -EINVAL);
    cr_expect_null(c);
    cr_expect_eq(rf_checkpoint_world_size(NULL), 0);
    cr_expect_eq(rf_checkpoint_rank(NULL, 0, &p), -EINVAL);
    cr_expect_eq(rf_checkpoint_processed(NULL, NULL, 0, 0, 0, NULL), -EINVAL);
    cr_expect_not_null(rf_checkpoint_error(NULL));
    rf_checkpoint_close(NULL);
    c = take(&w);
    cr_expect_eq(rf_checkpoint_save(c, NULL), -EINVAL);
    cr_expect_eq(rf_checkpoint_save(c, "/no/such/folder/c.json"), -ENOENT);
    says(rf_last_error(), "/no/such/folder/c.json", "cannot write");
    cr_expect_eq(rf_checkpoint_save(c, w.directory), -EINVAL);
    cr_expect_eq(rf_checkpoint_rank(c, 1, &p), -ERANGE);
    says(rf_checkpoint_error(c), "rank 1", "0 to 0");
    cr_expect_eq(rf_checkpoint_rank(c, 0, NULL), -EINVAL);
    cr_expect_eq(rf_checkpoint_processed(c, NULL, 0, 0, 4, ids), -EINVAL);
    world_open(&other, 21);
    rf_dataset *d = dataset(&other);
    cr_expect_eq(rf_checkpoint_processed(c, d, 0, 0, 4, NULL), -EINVAL);
    cr_expect_eq(rf_checkpoint_processed(c, d, 0, 0, 4, ids), -EINVAL);
    says(rf_checkpoint_error(c), "fingerprint", "");
    rf_dataset_close(d);
    world_close(&other);
    cr_expect_eq(rf_restore(NULL, c), -EINVAL);
    cr_expect_eq(rf_rebalance(NULL), -EINVAL);
    cr_expect_not_null(rf_rebalance_reason(NULL));
    cr_expect_eq(rf_next(NULL, 0, &b), -EINVAL);
    cr_expect_eq(rf_release(NULL, &b), -EINVAL);
    cr_expect_eq(rf_reset(NULL), -EINVAL);
    cr_expect_eq(rf_set_epoch(NULL, 1), -EINVAL);
    cr_expect_eq(rf_prefetch(NULL, 1), -EINVAL);
    says(rf_last_error(), "rf_attach", "null pointer");
    rf_trainer *t = world_attach(&w, 0);
    cr_expect_eq(rf_restore(t, NULL), -EINVAL);
    cr_expect_eq(rf_next(t, 0, NULL), -EINVAL);
    cr_expect_eq(rf_release(t, NULL), -EINVAL);
    says(rf_trainer_error(t), "rf_next", "null pointer");
    memset(&b, 0xa5, sizeof b);
    cr_expect_eq(rf_release(t, &b), -EINVAL);
    cr_expect_eq(rf_rebalance(t), 0, "%s", rf_trainer_error(t));
    cr_expect_str_eq(rf_rebalance_reason(t), "off");
    cr_expect_eq(world_rest(&w, t), 20);
    rf_checkpoint_close(c);
    rf_detach(t);
    world_close(&w);
}

/* Their bytes are theirs until they are released, whatever became of the ring. */
static void give_back_intact(rf_trainer *t, const rf_batch *b, int n)
{
    for (int h = 0; h < n; h++) {
        for (uint32_t s = 0; s < b[h].n_samples; s++)
            for (uint64_t x = 0; x < WORLD_RECORD; x++)
                if (rf_batch_sample(&b[h], s)[x] != world_byte(b[h].ids[s], x))
                    cr_assert_fail("a held batch has changed: ticket %lu", (unsigned long)b[h].ticket);
        cr_assert_eq(rf_release(t, &b[h]), 0, "%s", rf_trainer_error(t));
    }
}

/* Held batches, prefetched ones and reads in flight: after a restore comes the checkpoint's batch, then its order. */
TEST(no_stale_sample_ever_follows_a_restore)
{
    struct world w;
    rf_checkpoint *c[8] = {0};
    uint64_t at[8][2], ids[7];
    unsigned random = 1;
    rf_order *order;
    world_open(&w, 300);
    w.o.batch = 7;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.s.epochs = 3;
    w.s.prefetch = 6;
    world_start(&w);
    rf_order_options v = w.o;
    v.samples = 300;
    cr_assert_eq(rf_order_open(&v, NULL, &order), 0);
    rf_trainer *t = world_attach(&w, 0);
    uint64_t epoch = 0, batch = 0;
    for (int i = 0; i < 8; i++) { /* 43 batches an epoch; the last ones are in epoch 1 and 2 */
        c[i] = take(&w);
        stands_at(c[i], 0, epoch, batch);
        at[i][0] = epoch;
        at[i][1] = batch;
        for (int k = 0; k < 14; k++) {
            step(&w, t, NULL);
            if (++batch == 43) {
                batch = 0;
                epoch++;
            }
        }
    }
    for (int round = 0; round < 150; round++) {
        rf_batch held[3], b;
        int k = rand_r(&random) % 8, n_held = rand_r(&random) % 3, steps = 1 + rand_r(&random) % 9;
        if (round % 3 == 0)
            world_await_ready(&w, 0, 3);
        for (int i = 0; i < n_held; i++)
            world_next(&w, t, &held[i]);
        cr_assert_eq(rf_restore(t, c[k]), 0, "%s", rf_trainer_error(t));
        epoch = at[k][0];
        batch = at[k][1];
        for (int i = 0; i < steps; i++) {
            int rc = rf_next(t, WORLD_WAIT_MS, &b);
            if (rc == -EDEADLK || (i == 1 && rc == RF_OK)) { /* the new content may lie behind what is held */
                give_back_intact(t, held, n_held);
                n_held = 0;
            }
            if (rc == -EDEADLK)
                rc = rf_next(t, WORLD_WAIT_MS, &b);
            cr_assert_eq(rc, RF_OK, "%s", rf_trainer_error(t));
            cr_assert(b.epoch == epoch && b.batch == batch, "round %d: epoch %lu batch %lu came, not %lu %lu", round,
                      (unsigned long)b.epoch, (unsigned long)b.batch, (unsigned long)epoch, (unsigned long)batch);
            cr_assert_eq(rf_order_batch(order, epoch, 0, batch, ids, NULL), b.n_samples);
            cr_assert_arr_eq(ids, b.ids, b.n_samples * sizeof *ids);
            give_back_intact(t, &b, 1);
            if (++batch == 43) {
                batch = 0;
                epoch++;
            }
        }
        give_back_intact(t, held, n_held);
    }
    for (int i = 0; i < 8; i++)
        rf_checkpoint_close(c[i]);
    rf_order_close(order);
    rf_detach(t);
    world_close(&w);
}

TEST(a_restore_to_where_the_rank_stands_is_no_operation_and_one_to_the_end_is_the_end)
{
    struct world w;
    rf_batch b;
    world_open(&w, 40);
    w.o.world_size = 2; /* the second rank keeps the run alive */
    w.o.batch = 4;
    w.s.epochs = 2;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    for (int i = 0; i < 3; i++)
        step(&w, t, NULL);
    rf_checkpoint *here = take(&w);
    world_await_ready(&w, 0, 2);
    cr_assert_eq(rf_restore(t, here), 0);
    world_next(&w, t, &b);
    cr_expect_eq(b.ticket, 3, "a restore to where the rank stands made a cut");
    cr_assert_eq(rf_release(t, &b), 0);
    world_rest(&w, t);
    rf_checkpoint *end = take(&w);
    stands_at(end, 0, 2, 0);
    cr_assert_eq(rf_restore(t, end), 0, "%s", rf_trainer_error(t));
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    cr_assert_eq(rf_restore(t, here), 0, "%s", rf_trainer_error(t)); /* and back from the end */
    world_next(&w, t, &b);
    cr_expect_eq(b.batch, 3);
    cr_assert_eq(rf_release(t, &b), 0);
    cr_assert_eq(rf_restore(t, end), 0, "%s", rf_trainer_error(t)); /* right over all that is left */
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    rf_checkpoint_close(here);
    rf_checkpoint_close(end);
    rf_detach(t);
    rf_trainer *last = world_attach(&w, 1);
    world_rest(&w, last);
    rf_detach(last);
    world_close(&w);
}

TEST(set_epoch_and_reset_are_what_a_checkpoint_says)
{
    struct world w;
    rf_batch b;
    rf_checkpoint *c;
    world_open(&w, 40);
    w.o.batch = 4;
    w.s.epochs = 5;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    step(&w, t, NULL);
    cr_assert_eq(rf_set_epoch(t, 3), 0);
    c = take(&w);
    stands_at(c, 0, 3, 0);
    rf_checkpoint_close(c);
    for (int i = 0; i < 4; i++)
        step(&w, t, NULL);
    world_next(&w, t, &b);
    cr_assert_eq(rf_set_epoch(t, 1), 0);
    c = take(&w); /* a batch is held: the checkpoint cannot be behind it */
    stands_at(c, 0, 3, 4);
    rf_checkpoint_close(c);
    cr_assert_eq(rf_release(t, &b), 0);
    c = take(&w);
    stands_at(c, 0, 1, 0);
    rf_checkpoint_close(c);
    step(&w, t, NULL);
    step(&w, t, NULL);
    cr_assert_eq(rf_reset(t), 0);
    c = take(&w);
    stands_at(c, 0, 1, 0);
    cr_assert_eq(rf_set_epoch(t, 4), 0);
    step(&w, t, NULL);
    cr_assert_eq(rf_restore(t, c), 0, "%s", rf_trainer_error(t));
    rf_checkpoint_close(c);
    cr_expect_eq(world_rest(&w, t), 160); /* epochs 1 to 4 */
    rf_detach(t);
    world_close(&w);
}

/* Another run that differs in one thing. */
static void refused(struct world *w, rf_checkpoint *c, int code, const char *a, const char *b)
{
    world_start(w);
    rf_trainer *t = world_attach(w, 0);
    rf_batch first;
    cr_expect_eq(rf_restore(t, c), code, "%s", rf_trainer_error(t));
    says(rf_trainer_error(t), a, b);
    world_next(w, t, &first); /* and it stands where it stood */
    cr_expect(first.epoch == 0 && first.batch == 0);
    cr_assert_eq(rf_release(t, &first), 0);
    rf_detach(t);
    cr_assert_eq(rf_server_stop(w->server), 0);
    w->server = NULL;
}

TEST(a_checkpoint_of_something_else_is_refused_with_both_values)
{
    struct world w, other;
    world_open(&w, 40);
    w.o.batch = 4;
    w.o.seed = 3;
    w.o.shuffle = RF_SHUFFLE_FULL;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    step(&w, t, NULL);
    rf_checkpoint *c = take(&w);
    rf_detach(t);
    cr_assert_eq(rf_server_stop(w.server), 0);
    w.server = NULL;
    w.o.seed = 4;
    refused(&w, c, -EINVAL, "is 3 in the checkpoint", "4 in the run");
    w.o.seed = 3;
    w.o.batch = 5;
    refused(&w, c, -EINVAL, "is 4 in the checkpoint", "5 in the run");
    w.o.batch = 4;
    w.o.shuffle = RF_SHUFFLE_NONE;
    refused(&w, c, -EINVAL, "full", "none");
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.o.world_size = 2;
    refused(&w, c, -EINVAL, "world of 1", "has 2");
    w.o.world_size = 1;
    w.o.strategy = RF_ADAPTIVE;
    refused(&w, c, -EINVAL, "round-robin", "adaptive");
    world_open(&other, 41);
    other.o = w.o;
    refused(&other, c, -EINVAL, "of dataset", "serves");
    rf_checkpoint_close(c);
    w.o.world_size = 2; /* of the same order, and the ranks exchange batches */
    world_start(&w);
    t = world_attach(&w, 0);
    c = take(&w);
    step(&w, t, NULL);
    cr_expect_eq(rf_restore(t, c), -ENOTSUP, "%s", rf_trainer_error(t));
    says(rf_trainer_error(t), "exchange batches", w.name);
    rf_batch b;
    world_next(&w, t, &b);
    cr_expect_eq(b.batch, 1);
    cr_assert_eq(rf_release(t, &b), 0);
    rf_checkpoint_close(c);
    rf_detach(t);
    world_close(&other);
    world_close(&w);
}

TEST(the_server_writes_and_resumes_also_with_another_world)
{
    struct world w;
    struct taken taken[3] = {0};
    const char *resume[1];
    unsigned seen[100] = {0};
    char path[160];
    world_open(&w, 100);
    file_in(&w, "run.json", path, sizeof path);
    w.o.batch = 3;
    w.o.shuffle = RF_SHUFFLE_FULL;
    w.s.checkpoint = path;
    w.s.checkpoint_every = 9;
    world_start(&w);
    rf_trainer *t = world_attach(&w, 0);
    for (int i = 0; i < 7; i++)
        step(&w, t, &taken[0]);
    rf_detach(t);
    cr_assert_eq(rf_server_stop(w.server), 0);
    for (uint64_t i = 0; i < taken[0].n; i++)
        seen[taken[0].ids[i]]++;
    rf_checkpoint *c = NULL;
    cr_assert_eq(rf_checkpoint_open(path, &c), 0, "%s", rf_last_error());
    stands_at(c, 0, 0, 7);
    rf_checkpoint_close(c);
    resume[0] = path;
    w.s.resume = resume;
    w.s.n_resume = 1;
    w.o.world_size = 3;
    memset(taken, 0, sizeof taken);
    world_start(&w);
    rf_dataset *d = dataset(&w);
    rf_trainer *ts[3];
    for (uint32_t r = 0; r < 3; r++) {
        ts[r] = world_attach(&w, r);
        for (uint32_t i = 0; i <= 2 * r; i++)
            step(&w, ts[r], &taken[r]);
    }
    c = take(&w);
    for (uint32_t r = 0; r < 3; r++) { /* what was dealt anew, not what the plain order says */
        stands_at(c, r, 0, 2 * r + 1);
        processed_are(c, d, r, &taken[r]);
    }
    rf_checkpoint_close(c);
    kill_server(&w);
    for (uint32_t r = 0; r < 3; r++)
        rf_detach(ts[r]);
    resume[0] = "auto";
    world_start(&w);
    for (uint32_t r = 0; r < 3; r++) {
        ts[r] = world_attach(&w, r);
        rf_batch b;
        int rc;
        while ((rc = rf_next(ts[r], WORLD_WAIT_MS, &b)) == RF_OK) {
            note(&taken[r], &b);
            cr_assert_eq(rf_release(ts[r], &b), 0);
        }
        cr_assert_eq(rc, RF_END, "%s", rf_trainer_error(ts[r]));
        rf_detach(ts[r]);
        for (uint64_t i = 0; i < taken[r].n; i++)
            seen[taken[r].ids[i]]++;
    }
    for (int i = 0; i < 100; i++)
        cr_assert_eq(seen[i], 1, "sample %d came %u times", i, seen[i]);
    rf_dataset_close(d);
    int status = -1;
    cr_assert_eq(rf_server_wait(w.server, WORLD_WAIT_MS, &status), 0);
    remove_file(path);
    world_close(&w);
}

TEST(options_of_the_server_are_checked_with_a_text)
{
    struct world w;
    const char *two[] = {"auto", "file.json"}, *none[] = {NULL}, *missing[] = {"/no/such/file.json"};
    world_open(&w, 10);
    w.s.resume = two;
    w.s.n_resume = 2;
    cr_expect_lt(rf_server_start(&w.s, WORLD_WAIT_MS, &w.server), 0);
    says(rf_last_error(), "auto", "file");
    w.s.resume = none;
    w.s.n_resume = 1;
    cr_expect_lt(rf_server_start(&w.s, WORLD_WAIT_MS, &w.server), 0);
    w.s.resume = NULL;
    cr_expect_lt(rf_server_start(&w.s, WORLD_WAIT_MS, &w.server), 0);
    w.s.resume = missing;
    cr_expect_lt(rf_server_start(&w.s, WORLD_WAIT_MS, &w.server), 0);
    says(rf_last_error(), "/no/such/file.json", "");
    w.s.resume = NULL;
    w.s.n_resume = 0;
    w.s.checkpoint_every = 5;
    cr_expect_lt(rf_server_start(&w.s, WORLD_WAIT_MS, &w.server), 0);
    says(rf_last_error(), "checkpoint", "");
    cr_expect_null(w.server);
    world_close(&w);
}

/* A trainer that takes two, releases one, and is killed. */
struct victim {
    const char *name;
    int to;
};

static int take_and_wait(void *ctx)
{
    const struct victim *v = ctx;
    rf_trainer *t;
    rf_batch b;
    if (rf_attach(v->name, 1, NULL, &t) < 0 || rf_next(t, WORLD_WAIT_MS, &b) != RF_OK || rf_release(t, &b) < 0 ||
        rf_next(t, WORLD_WAIT_MS, &b) != RF_OK)
        return 1;
    if (write(v->to, "x", 1) != 1)
        return 2;
    pause();
    return 3;
}

TEST(what_a_dead_rank_left_goes_to_the_living)
{
    struct world w;
    struct child child = {0};
    struct victim v;
    int fds[2];
    char byte;
    world_open(&w, 60);
    w.o.world_size = 2;
    w.o.batch = 3;
    w.s.epochs = 2;
    w.s.redistribute = 1;
    world_start(&w);
    cr_assert_eq(pipe(fds), 0);
    v = (struct victim){w.name, fds[1]};
    cr_assert_eq(child_fork(&child, take_and_wait, &v), 0);
    close(fds[1]); /* a child that fails ends the read below */
    cr_assert_eq(read(fds[0], &byte, 1), 1);
    rf_trainer *t = world_attach(&w, 0);
    child_signal(&child, SIGKILL);
    cr_assert_eq(child_wait(&child, WORLD_WAIT_MS), 0);
    /* Ten of its own and nine of the dead one's ten, then all twenty of the next epoch. */
    cr_expect_eq(world_rest(&w, t), 60 - 3 + 60);
    rf_detach(t);
    close(fds[0]);
    child_end(&child);
    world_close(&w);
}

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* One rank takes a batch every 20 ms, the other one as fast as they come, as two handles of one thread. */
TEST(moved_batches_are_in_the_checkpoint)
{
    struct world w;
    struct taken taken[2] = {0};
    unsigned seen[2000] = {0};
    world_open(&w, 2000);
    w.o.world_size = 2;
    w.o.batch = 2;
    w.o.strategy = RF_ADAPTIVE;
    w.o.base = RF_CONTIGUOUS;
    w.o.shuffle = RF_SHUFFLE_FULL;
    world_start(&w);
    rf_trainer *t[2] = {world_attach(&w, 0), world_attach(&w, 1)};
    int moved = 0;
    uint64_t from = now_ms(), slow = 0, fast = 0;
    while (!moved && now_ms() - from < 20000) {
        if (fast < 480 && now_ms() - from >= 5 * fast) {
            step(&w, t[0], &taken[0]);
            fast++;
        } else if (now_ms() - from >= 50 * slow) {
            step(&w, t[1], &taken[1]);
            slow++;
            rf_stat s;
            cr_assert_geq(rf_rebalance(t[slow % 2]), 0);
            cr_assert_gt(strlen(rf_rebalance_reason(t[0])), 1);
            cr_assert_eq(rf_stat_read(w.name, &s), 0);
            moved = s.rebalances > 0;
            rf_stat_free(&s);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    cr_assert(moved, "nothing was moved: %s", rf_rebalance_reason(t[0]));
    while (taken[0].n < 1100) /* into what came from the other rank */
        step(&w, t[0], &taken[0]);
    rf_checkpoint *c = take(&w);
    rf_dataset *d = dataset(&w);
    processed_are(c, d, 0, &taken[0]);
    processed_are(c, d, 1, &taken[1]);
    rf_checkpoint_close(c);
    rf_dataset_close(d);
    rf_batch b;
    for (int r = 0; r < 2; r++)
        while (rf_next(t[r], 200, &b) == RF_OK) { /* one may wait for the other at the end of the epoch */
            note(&taken[r], &b);
            rf_release(t[r], &b);
        }
    for (int r = 0; r < 2; r++)
        for (uint64_t i = 0; i < taken[r].n; i++)
            seen[taken[r].ids[i]]++;
    for (int i = 0; i < 2000; i++)
        cr_assert_eq(seen[i], 1, "sample %d came %u times", i, seen[i]);
    rf_detach(t[0]);
    rf_detach(t[1]);
    world_close(&w);
}

/* Closes every socket of this process: what a program does that closes all descriptors to become a daemon. */
static void close_sockets(void)
{
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat s;
        int fd = atoi(e->d_name), kind;
        socklen_t n = sizeof kind;
        if (fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &n) == 0 &&
            kind == SOCK_SEQPACKET)
            close(fd);
    }
    closedir(dir);
}

TEST(a_handle_that_lost_its_rank_says_so_and_disturbs_nobody)
{
    struct world w;
    rf_batch b, held, mine;
    world_open(&w, 40);
    w.o.batch = 2;
    world_start(&w);
    rf_trainer *old = world_attach(&w, 0);
    step(&w, old, NULL);
    world_next(&w, old, &held);
    close_sockets();
    rf_trainer *t = world_attach(&w, 0); /* the rank is free: its connection is gone */
    world_next(&w, t, &mine);
    cr_expect_eq(mine.batch, 1, "goes on at the first batch that was not released");
    cr_expect_eq(rf_next(old, 1000, &b), -EPIPE);
    says(rf_trainer_error(old), "rank 0", "another trainer");
    cr_expect_eq(rf_release(old, &held), -EPIPE);
    cr_expect_eq(rf_reset(old), -EPIPE);
    cr_assert_eq(rf_release(t, &mine), 0);
    for (uint64_t k = 2; k < 20; k++) {
        world_next(&w, t, &b);
        cr_assert_eq(b.batch, k);
        if (k == 10) {
            rf_detach(old); /* its number may be another file's by now: not closed by us in this test */
            old = NULL;
        }
        cr_assert_eq(rf_release(t, &b), 0, "%s", rf_trainer_error(t));
    }
    cr_expect_eq(rf_next(t, 1000, &b), RF_END);
    rf_detach(t);
    world_close(&w);
}
