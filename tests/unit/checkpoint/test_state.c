/* The text of a state: there and back, cut at every byte, with every byte flipped, with a right checksum over
 * wrong content. And files: two are kept, and a crash between the renames leaves one. */
#include "checkpoint/state.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static struct rfi_state some_state(void)
{
    struct rfi_state s = {.samples = 1234, .time_s = 1764300000, .start_epoch = 2};
    struct rfi_error err = {0};
    rf_order_options o = {.size = sizeof o, .world_size = 3, .batch = 7, .seed = UINT64_MAX};
    struct rfi_move moves[2] = {{4, 0, 2, 10, 5}, {4, 1, 2, 3, UINT64_MAX / 4}};
    snprintf(s.fingerprint, sizeof s.fingerprint, "0123456789abcdef0123456789abcdef");
    snprintf(s.run, sizeof s.run, "fedcba9876543210fedcba9876543210");
    snprintf(s.name, sizeof s.name, "a_name-1");
    cr_assert_eq(rfi_state_add_stage(&s, &o, &err), 0);
    for (uint32_t r = 0; r < 3; r++) {
        s.stages[0].known[r] = true;
        s.stages[0].at[r] = (struct rfi_position){3 + r, r * 100};
    }
    cr_assert_eq(rfi_state_set_moves(&s.stages[0], moves, 2, &err), 0);
    struct rfi_fault faults[2] = {{.epoch = 4,
                                   .rank = 2,
                                   .batch = 7,
                                   .slot = 6,
                                   .sample = 99,
                                   .substitute = 98,
                                   .offset = 512,
                                   .file = 3,
                                   .error = 5},
                                  {.epoch = 5, .sample = 1, .substitute = RFI_FAULT_SKIPPED, .error = 84}};
    cr_assert_eq(rfi_state_set_faults(&s.stages[0], faults, 2, &err), 0);
    o.world_size = 2;
    o.ranges = "0:10,10:20";
    o.subset = "a file with \"quotes\" and \\ and \xc3\xa9";
    o.split = "train:0.9,val:0.1";
    o.use = "train";
    o.strategy = RF_ADAPTIVE;
    o.base = RF_RANGE;
    o.shuffle = RF_SHUFFLE_BLOCK;
    o.tail = RF_TAIL_PAD;
    o.hash_key = RF_HASH_LABEL;
    o.allow_gaps = 1;
    o.repeat_order = 1;
    cr_assert_eq(rfi_state_add_stage(&s, &o, &err), 0);
    s.stages[1].known[1] = true;
    s.stages[1].at[1] = (struct rfi_position){9, 8};
    cr_assert_eq(rfi_state_set_moves(&s.stages[1], NULL, 0, &err), 0);
    return s;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void same(const struct rfi_state *a, const struct rfi_state *b)
{
    cr_assert(!strcmp(a->fingerprint, b->fingerprint) && !strcmp(a->run, b->run) && !strcmp(a->name, b->name));
    cr_assert(a->samples == b->samples && a->time_s == b->time_s && a->start_epoch == b->start_epoch);
    cr_assert_eq(a->n_stages, b->n_stages);
    for (uint32_t i = 0; i < a->n_stages; i++) {
        const struct rfi_stage_state *x = &a->stages[i], *y = &b->stages[i];
        cr_assert(x->o.world_size == y->o.world_size && x->o.batch == y->o.batch && x->o.seed == y->o.seed);
        cr_assert(x->o.strategy == y->o.strategy && x->o.base == y->o.base && x->o.shuffle == y->o.shuffle);
        cr_assert(x->o.repeat_order == y->o.repeat_order && x->o.tail == y->o.tail && x->o.hash_key == y->o.hash_key &&
                  x->o.allow_gaps == y->o.allow_gaps);
        cr_assert(same_text(x->o.ranges, y->o.ranges) && same_text(x->o.subset, y->o.subset));
        cr_assert(same_text(x->o.split, y->o.split) && same_text(x->o.use, y->o.use));
        for (uint32_t r = 0; r < x->o.world_size; r++) {
            cr_assert_eq(x->known[r], y->known[r]);
            cr_assert(!x->known[r] || (x->at[r].epoch == y->at[r].epoch && x->at[r].batch == y->at[r].batch));
        }
        cr_assert_eq(x->n_moves, y->n_moves);
        cr_assert_eq(x->n_faults, y->n_faults);
        cr_assert(x->n_faults == 0 || memcmp(x->faults, y->faults, x->n_faults * sizeof *x->faults) == 0);
        cr_assert(x->n_moves == 0 || memcmp(x->moves, y->moves, x->n_moves * sizeof *x->moves) == 0);
    }
}

Test(state, there_and_back, .timeout = 10)
{
    struct rfi_state s = some_state(), back, copy;
    struct rfi_error err = {0};
    size_t bytes;
    char *text = rfi_state_text(&s, &bytes);
    cr_assert_not_null(text);
    cr_assert_eq(bytes, strlen(text));
    cr_assert_eq(rfi_state_parse(text, bytes, "text", &back, &err), 0, "%s", err.text);
    same(&s, &back);
    cr_assert_eq(rfi_state_copy(&back, &copy, &err), 0);
    rfi_state_fini(&back);
    same(&s, &copy);
    rfi_state_fini(&copy);
    rfi_state_fini(&s);
    free(text);
}

/* Every cut and, for every byte, every other value: 255 flips of one byte are 255 tests of the checksum. */
Test(state, no_damage_is_believed, .timeout = 120)
{
    struct rfi_state s = some_state(), back;
    struct rfi_error err = {0};
    size_t bytes;
    char *text = rfi_state_text(&s, &bytes);
    for (size_t at = 0; at < bytes; at++) {
        cr_assert_eq(rfi_state_parse(text, at, "cut", &back, &err), -EBADMSG, "cut at %zu", at);
        cr_assert(strstr(err.text, "cut: damaged"), "%s", err.text);
        for (int flip = 1; flip < 256; flip++) {
            text[at] = (char)(text[at] ^ flip);
            cr_assert_eq(rfi_state_parse(text, bytes, "flip", &back, &err), -EBADMSG, "byte %zu flip %d", at, flip);
            text[at] = (char)(text[at] ^ flip);
        }
    }
    rfi_state_fini(&s);
    free(text);
}

/* Content with a checksum that fits it: refused or read, never a crash. */
static int parse_body(const char *body, struct rfi_error *err)
{
    char text[8192];
    struct rfi_state back;
    int n = snprintf(text, sizeof text, "%s,\n  \"checksum\": \"%016" PRIx64 "\"\n}\n", body,
                     (uint64_t)XXH3_64bits(body, strlen(body)));
    int rc = rfi_state_parse(text, (size_t)n, "made", &back, err);
    if (rc == 0)
        rfi_state_fini(&back);
    return rc;
}

#define HEAD(version)                                                                                                  \
    "{ \"ringfeed_checkpoint\": " version ", \"run\": \"r\", \"name\": \"n\", \"time_s\": 1, \"fingerprint\": \"f\", " \
    "\"samples\": 5, \"start_epoch\": 0, \"stages\": "
#define ORDER(world)                                                                                                   \
    "\"world_size\": " world ", \"batch\": 1, \"strategy\": \"round-robin\", \"base\": \"round-robin\", \"shuffle\": " \
    "\"none\", \"seed\": 0, \"repeat_order\": 0, \"tail\": \"uneven\", \"block_samples\": 0, \"window_blocks\": 0, "   \
    "\"hash_partitions\": "                                                                                            \
    "0, "                                                                                                              \
    "\"hash_seed\": 0, \"hash_key\": \"index\", \"allow_gaps\": 0, \"allow_overlap\": 0, "

Test(state, wrong_content_with_a_right_checksum_is_refused, .timeout = 20)
{
    static const struct {
        const char *body, *word;
    } cases[] = {
        {HEAD("2") "[]", "version 2"},
        {HEAD("1") "[]", "no stage"},
        {HEAD("1") "{}", "stages"},
        {HEAD("1") "[{" ORDER("0") "\"ranks\": [], \"moves\": [], \"faults\": []}]", "of 0"},
        {HEAD("1") "[{" ORDER("1000001") "\"ranks\": [], \"moves\": [], \"faults\": []}]", "world_size"},
        {HEAD("1") "[{" ORDER("-1") "\"ranks\": [], \"moves\": [], \"faults\": []}]", "world_size"},
        {HEAD("1") "[{" ORDER("2") "\"moves\": [], \"faults\": []}]", "ranks"},
        {HEAD("1") "[{" ORDER(
             "2") "\"ranks\": [{\"rank\": 2, \"epoch\": 0, \"batch\": 0}], \"moves\": [], \"faults\": []}]",
         "rank"},
        {HEAD("1") "[{" ORDER(
             "2") "\"ranks\": [{\"rank\": 0, \"epoch\": -4, \"batch\": 0}], \"moves\": [], \"faults\": []}]",
         "epoch"},
        {HEAD("1") "[{" ORDER("2") "\"ranks\": [{\"rank\": 0, \"epoch\": 0, \"batch\": 0}, {\"rank\": 0, \"epoch\": 0, "
                                   "\"batch\": 0}], \"moves\": [], \"faults\": []}]",
         "twice"},
        {HEAD("1") "[{" ORDER("2") "\"ranks\": [], \"moves\": [{\"epoch\": 0}]}]", "donor"},
        {HEAD("1") "[{" ORDER("1") "\"ranks\": [], \"moves\": [], \"faults\": []}, {" ORDER(
             "1") "\"ranks\": [], \"moves\": [], \"faults\": []}]",
         "lacks a rank"},
        {HEAD("1") "[7, null, \"x\"]", "world_size"},
        {"[1, 2", "JSON"},
        {"{ \"a\"", "JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rfi_error err = {0};
        cr_assert_eq(parse_body(cases[i].body, &err), -EBADMSG, "case %zu: %s", i, err.text);
        cr_assert(strstr(err.text, cases[i].word), "case %zu: \"%s\" is not in: %s", i, cases[i].word, err.text);
    }
    struct rfi_error err = {0};
    cr_assert_eq(parse_body(HEAD("1") "[{" ORDER("2") "\"ranks\": [], \"moves\": [], \"faults\": []}]", &err), 0, "%s",
                 err.text);
}

static uint64_t batch_in(const char *path)
{
    struct rfi_state s;
    struct rfi_error note, err = {0};
    int rc = rfi_state_read_either(path, &s, &note, &err);
    if (rc < 0)
        return UINT64_MAX;
    uint64_t batch = s.stages[1].at[1].batch;
    rfi_state_fini(&s);
    return batch;
}

Test(state, the_last_two_files_are_kept, .timeout = 20)
{
    char folder[] = "/tmp/rf-state-XXXXXX", path[64], prev[80];
    struct rfi_state s = some_state();
    struct rfi_error err = {0};
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/state.json", folder);
    snprintf(prev, sizeof prev, "%s.prev", path);
    for (uint64_t i = 1; i <= 3; i++) {
        s.stages[1].at[1].batch = i;
        cr_assert_eq(rfi_state_write(&s, path, &err), 0, "%s", err.text);
        cr_assert_eq(batch_in(path), i);
    }
    cr_assert_eq(batch_in(prev), 2);
    char new_file[80];
    snprintf(new_file, sizeof new_file, "%s.new", path);
    FILE *left = fopen(new_file, "w"); /* a crash while writing: used again, not kept */
    cr_assert_not_null(left);
    for (int i = 0; i < 100000; i++)
        fputs("garbage ", left);
    fclose(left);
    s.stages[1].at[1].batch = 2;
    cr_assert_eq(rfi_state_write(&s, path, &err), 0, "%s", err.text);
    cr_assert_eq(batch_in(path), 2);
    cr_assert_neq(access(new_file, F_OK), 0);
    int writer = open(new_file, O_WRONLY | O_CREAT, 0600); /* somebody else is writing there */
    cr_assert(writer >= 0 && flock(writer, LOCK_EX) == 0);
    cr_assert_eq(rfi_state_write(&s, path, &err), 0, "%s", err.text);
    cr_assert_eq(access(new_file, F_OK), 0);
    close(writer);
    cr_assert_eq(unlink(new_file), 0);
    cr_assert_eq(unlink(path), 0); /* a crash between the two renames */
    cr_assert_eq(batch_in(path), 2);
    FILE *f = fopen(path, "w"); /* what no crash of ours leaves, but a full disk of somebody else may */
    cr_assert_not_null(f);
    fputs("{", f);
    fclose(f);
    cr_assert_eq(batch_in(path), 2);
    cr_assert_eq(unlink(prev), 0);
    cr_assert_eq(batch_in(path), UINT64_MAX);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(rfi_state_write(&s, path, &err), -EINVAL);
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(rmdir(folder), 0, "something is left in %s", folder);
    rfi_state_fini(&s);
}
