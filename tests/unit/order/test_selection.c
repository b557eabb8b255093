/* Ranges, subsets, splits, and everything that is refused. */
#include "fixture.h"

#include "base/bytes.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct rfi_order_source plain(uint64_t n)
{
    return (struct rfi_order_source){.samples = n, .mean_bytes = 1};
}

static _Bool label(void *ctx, uint64_t i, int64_t *ret)
{
    *ret = (int64_t)(i % 3);
    return 1;
}

/* ---- ranges ---- */

static void range_refused(const char *ranges, uint32_t world, const char *word1, const char *word2)
{
    struct rfi_order_source source = plain(500);
    rf_order_options o = some_options(world);
    o.strategy = RF_RANGE;
    o.ranges = ranges;
    refused(&o, &source, EINVAL, word1, word2);
}

Test(ranges, wrong_ones_are_named, .timeout = 10)
{
    range_refused("0:250,249:500", 2, "249:500 of rank 1", "0:250 of rank 0");
    range_refused("300:500,0:301", 2, "300:500 of rank 0", "overlaps");
    range_refused("0:250,260:500", 2, "250:260", "no rank's range");
    range_refused("1:250,250:500", 2, "0:1", "no rank's range");
    range_refused("0:250,250:499", 2, "499:500", "no rank's range");
    range_refused("0:250,250:501", 2, "250:501 of rank 1", "500 samples");
    range_refused("0:250,500:250", 2, "rank 1, 500:250", "ends before");
    range_refused("0:250,250:500", 3, "2 ranges", "world size of 3");
    range_refused("0:500", 2, "1 range ", "world size of 2");
    range_refused("0:250,25x:500", 2, "rank 1", "25x:500");
    range_refused("0:250,", 2, "rank 1", "LO:HI");
    range_refused(",0:250", 2, "rank 0", "LO:HI");
    range_refused("", 1, "0 ranges", "world size of 1");
    range_refused("0:99999999999999999999", 1, "rank 0", "LO:HI");
    range_refused("-1:5", 1, "rank 0", "-1:5");
    range_refused("0:500 ", 1, "rank 0", "LO:HI");
    range_refused(NULL, 1, "range", "--ranges");
}

Test(ranges, gaps_and_overlaps_when_allowed, .timeout = 10)
{
    struct rfi_order_source source = plain(500);
    rf_order_options o = some_options(3);
    uint64_t n, position;
    uint32_t rank;
    o.strategy = RF_RANGE;
    o.ranges = "100:200,150:150,150:300";
    o.allow_gaps = 1;
    refused(&o, &source, EINVAL, "overlaps", "--allow-overlap");
    o.allow_overlap = 1;
    struct fixture f = open_fixture(&o, &source);
    uint64_t *ids = sequence_of(&f, 2, &n);
    cr_assert(n == 150 && ids[0] == 150 && ids[149] == 299);
    cr_assert_eq(rfi_order_len(f.order, 1), 0);
    cr_assert_eq(rfi_view_locate(f.view, 0, 299, &rank, &position), 0);
    cr_assert(rank == 2 && position == 149);
    cr_assert_eq(rfi_view_locate(f.view, 0, 99, &rank, &position), -ENOENT);
    free(ids);
    close_fixture(&f);
}

/* An empty range under pad is filled with all ranks' sequences, end to end. */
Test(ranges, empty_rank_is_padded_from_the_epoch_order, .timeout = 10)
{
    struct rfi_order_source source = plain(5);
    rf_order_options o = some_options(3);
    uint64_t ids[4];
    uint8_t flags[4];
    o.strategy = RF_RANGE;
    o.ranges = "3:5,0:0,0:3";
    o.tail = RF_TAIL_PAD;
    o.batch = 4;
    struct fixture f = open_fixture(&o, &source);
    static const uint64_t want[3][4] = {{3, 4, 3, 4}, {3, 4, 0, 1}, {0, 1, 2, 0}};
    static const uint8_t want_flags[3][4] = {{0, 0, 1, 1}, {1, 1, 1, 1}, {0, 0, 0, 1}};
    for (uint32_t r = 0; r < 3; r++) {
        rfi_view_seek(f.view, 0, r);
        cr_assert_eq(rfi_view_batch(f.view, 0, ids, flags), 4);
        cr_assert(memcmp(ids, want[r], sizeof ids) == 0 && memcmp(flags, want_flags[r], 4) == 0, "rank %u", r);
        cr_assert_eq(rfi_view_batch(f.view, 1, ids, flags), 0);
    }
    close_fixture(&f);
}

/* With gaps the sequences end to end are shorter than the dataset: fillers wrap at their end. */
Test(ranges, empty_rank_wraps_at_the_end_of_all_sequences, .timeout = 10)
{
    struct rfi_order_source source = plain(100);
    rf_order_options o = some_options(3);
    uint64_t ids[7];
    uint8_t flags[7];
    static const uint64_t want[7] = {10, 11, 50, 10, 11, 50, 10};
    o.strategy = RF_RANGE;
    o.ranges = "10:12,0:0,50:51";
    o.allow_gaps = 1;
    o.tail = RF_TAIL_PAD;
    o.batch = 7;
    struct fixture f = open_fixture(&o, &source);
    rfi_view_seek(f.view, 0, 1);
    cr_assert_eq(rfi_view_batch(f.view, 0, ids, flags), 7);
    cr_assert_eq(memcmp(ids, want, sizeof ids), 0);
    close_fixture(&f);
}

/* ---- subsets ---- */

static char path[64];

static void make_file(void)
{
    int fd;
    strcpy(path, "/tmp/rf-order-XXXXXX");
    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void remove_file(void)
{
    unlink(path);
}

static void write_file(const char *text, size_t bytes)
{
    FILE *f = fopen(path, "w");
    cr_assert(f && fwrite(text, 1, bytes, f) == bytes && fclose(f) == 0);
}

static void subset_file_refused(const char *text, size_t bytes, const char *word1, const char *word2)
{
    struct rfi_order_source source = plain(100);
    rf_order_options o = some_options(2);
    o.subset = path;
    write_file(text, bytes);
    refused(&o, &source, EINVAL, word1, word2);
}

TestSuite(subset, .init = make_file, .fini = remove_file, .timeout = 10);

Test(subset, wrong_files_are_refused)
{
    static const char nul[] = "1\n\0\n";
    subset_file_refused("1\n2\n100\n", 8, "line 3", "index 100 ");
    subset_file_refused("1\n99999999999999999999999999\n", 29, "line 2", "out of bounds");
    subset_file_refused("1\nx\n", 4, "line 2", "index");
    subset_file_refused("1 2\n", 4, "line 1", "index");
    subset_file_refused("-1\n", 3, "line 1", "index");
    subset_file_refused(nul, 4, "line 2", "index");
    subset_file_refused("5\n7\n5\n", 6, "index 5 ", "more than once");
    subset_file_refused("5\n5", 3, "index 5 ", "more than once");
}

Test(subset, other_refusals)
{
    struct rfi_order_source source = plain(100);
    rf_order_options o = some_options(2);
    o.subset = "/nonexistent/list";
    refused(&o, &source, ENOENT, "/nonexistent/list", "cannot be opened");
    o.subset = "/dev/null";
    refused(&o, &source, EINVAL, "/dev/null", "regular file");
    o.subset = "/tmp";
    refused(&o, &source, EINVAL, "/tmp", "regular file");
    o.subset = "50:40";
    refused(&o, &source, EINVAL, "50:40", "ends before");
    o.subset = "50:101";
    refused(&o, &source, EINVAL, "50:101", "100 samples");
    o.subset = "";
    refused(&o, &source, EINVAL, "--subset", "empty");
}

/* Members as they must be, through every strategy: 20:60, and the same by file. */
static void check_members(rf_strategy strategy, const char *subset, uint64_t lo, uint64_t hi, uint64_t table_bytes)
{
    struct rfi_order_source source = plain(100);
    rf_order_options o = some_options(3);
    uint64_t bytes, n, position;
    uint8_t seen[100] = {0};
    uint32_t rank;
    source.label = label;
    o.strategy = strategy;
    o.shuffle = RF_SHUFFLE_FULL;
    o.subset = subset;
    cr_assert_eq(rfi_order_table_bytes(&o, &source, &bytes, NULL), 0);
    cr_assert_eq(bytes, table_bytes, "strategy %d subset %s: %llu bytes", strategy, subset, (unsigned long long)bytes);
    struct fixture f = open_fixture(&o, &source);
    cr_assert_eq(rfi_order_samples(f.order), hi - lo);
    for (uint32_t r = 0; r < 3; r++) {
        uint64_t *ids = sequence_of(&f, r, &n);
        for (uint64_t i = 0; i < n; i++) {
            cr_assert(ids[i] >= lo && ids[i] < hi);
            seen[ids[i]]++;
            cr_assert_eq(rfi_view_locate(f.view, 0, ids[i], &rank, &position), 0);
            cr_assert(rank == r && position == i);
        }
        free(ids);
    }
    for (uint64_t i = 0; i < 100; i++) {
        cr_assert_eq(seen[i], i >= lo && i < hi);
        cr_assert_eq(rfi_view_locate(f.view, 0, i, &rank, &position), i >= lo && i < hi ? 0 : -ENOENT);
    }
    close_fixture(&f);
}

Test(subset, members_under_every_strategy)
{
    static const rf_strategy table_free[] = {RF_ROUND_ROBIN, RF_CONTIGUOUS}, with_table[] = {RF_HASH, RF_STRATIFIED};
    char text[400];
    size_t used = 0;
    for (int i = 59; i >= 20; i--) /* descending: the order in the file does not matter */
        used += (size_t)snprintf(text + used, 16, "%d\r\n", i);
    write_file(text, used);
    for (int k = 0; k < 2; k++) {
        check_members(table_free[k], "20:60", 20, 60, 0);
        check_members(table_free[k], path, 20, 60, 160);
        check_members(with_table[k], "20:60", 20, 60, 160);
        check_members(with_table[k], path, 20, 60, 160);
        check_members(table_free[k], "7:7", 7, 7, 0);
        check_members(with_table[k], "7:7", 7, 7, 0);
    }
    write_file("\n\n", 2);
    check_members(RF_ROUND_ROBIN, path, 0, 0, 0);
}

/* The caller's memory is filled exactly to table_bytes, and a list that grew is refused. */
Test(subset, table_of_the_caller)
{
    struct rfi_order_source source = plain(100);
    rf_order_options o = some_options(3);
    struct rfi_order *order;
    struct rfi_error err = {0};
    uint64_t bytes;
    o.subset = path;
    write_file("1\n5\n9\n", 6);
    cr_assert_eq(rfi_order_table_bytes(&o, &source, &bytes, NULL), 0);
    cr_assert_eq(bytes, 12);
    uint32_t *table = aligned_alloc(64, 64);
    memset(table, 255, 64);
    source.table_bytes = bytes;
    cr_assert_eq(rfi_order_create(&o, &source, table, &order, &err), 0, "%s", err.text);
    cr_assert(table[0] == 1 && table[1] == 5 && table[2] == 9 && table[3] == UINT32_MAX);
    rfi_order_destroy(order);
    write_file("1\n5\n9\n11\n", 9);
    cr_assert_eq(rfi_order_create(&o, &source, table, &order, &err), -ESTALE);
    cr_assert(strstr(err.text, "grew"));
    free(table);
}

/* ---- splits ---- */

static uint64_t split_members(uint64_t samples, const char *split, const char *use, uint64_t seed, uint8_t *seen)
{
    struct rfi_order_source source = plain(samples);
    rf_order_options o = some_options(1);
    uint64_t n;
    o.split = split;
    o.use = use;
    o.seed = seed;
    struct fixture f = open_fixture(&o, &source);
    uint64_t *ids = sequence_of(&f, 0, &n);
    for (uint64_t i = 0; i < n; i++) {
        cr_assert(ids[i] < samples && (i == 0 || ids[i] > ids[i - 1]), "not ascending");
        seen[ids[i]]++;
    }
    free(ids);
    close_fixture(&f);
    return n;
}

Test(split, disjoint_and_together_everything, .timeout = 30)
{
    static const uint64_t sizes[] = {0, 1, 2, 3, 10, 99, 1000, 70001};
    static const char split[] = "train:0.7,val:0.15,test:0.1,rest:0.05";
    static const char *const names[] = {"train", "val", "test", "rest"};
    static const double fractions[] = {0.7, 0.15, 0.1, 0.05};
    for (unsigned s = 0; s < 8; s++) {
        uint8_t *seen = calloc(sizes[s] + 1, 1);
        for (unsigned k = 0; k < 4; k++) {
            double n = (double)split_members(sizes[s], split, names[k], k, seen);
            cr_assert(n > (double)sizes[s] * fractions[k] - 1 && n < (double)sizes[s] * fractions[k] + 1);
        }
        for (uint64_t i = 0; i < sizes[s]; i++)
            cr_assert_eq(seen[i], 1, "N %llu: sample %llu is in %u splits", (unsigned long long)sizes[s],
                         (unsigned long long)i, seen[i]);
        free(seen);
    }
}

/* The same whatever the seed; spread over the whole range, not a prefix. */
Test(split, fixed_and_random, .timeout = 10)
{
    uint8_t a[1000] = {0}, b[1000] = {0};
    unsigned low = 0;
    split_members(1000, "a:0.5,b:0.5", "b", 1, a);
    split_members(1000, "a:0.5,b:0.5", "b", 2, b);
    cr_assert_eq(memcmp(a, b, 1000), 0);
    for (unsigned i = 0; i < 500; i++)
        low += a[i];
    cr_assert(low > 200 && low < 300);
}

Test(split, of_a_subset, .timeout = 10)
{
    struct rfi_order_source source = plain(1000);
    rf_order_options o = some_options(2);
    uint8_t seen[1000] = {0};
    uint64_t n;
    static const char *const names[] = {"x", "y"};
    for (int k = 0; k < 2; k++) {
        o.subset = "300:700";
        o.split = "x:0.25,y:.75";
        o.use = names[k];
        struct fixture f = open_fixture(&o, &source);
        cr_assert_eq(rfi_order_samples(f.order), k ? 300 : 100);
        for (uint32_t r = 0; r < 2; r++) {
            uint64_t *ids = sequence_of(&f, r, &n);
            for (uint64_t i = 0; i < n; i++)
                seen[ids[i]]++;
            free(ids);
        }
        close_fixture(&f);
    }
    for (unsigned i = 0; i < 1000; i++)
        cr_assert_eq(seen[i], i >= 300 && i < 700);
}

static void split_refused(const char *split, const char *use, const char *word1, const char *word2)
{
    struct rfi_order_source source = plain(100);
    rf_order_options o = some_options(1);
    o.split = split;
    o.use = use;
    refused(&o, &source, EINVAL, word1, word2);
}

Test(split, refusals, .timeout = 10)
{
    split_refused("a:0.5,b:0.4", "a", "0.900000", "not 1");
    split_refused("a:0.5,b:0.6", "a", "1.100000", "not 1");
    split_refused("a:1,b:1,c:1,d:1", "a", "more than 2", "not 1");
    split_refused("a:0.5,a:0.5", "a", "\"a\"", "twice");
    split_refused("a:0.5,b:0.5", "c", "--use c", "a:0.5,b:0.5");
    split_refused("a:0.5,b:x", "a", "b:x", "NAME:FRACTION");
    split_refused("a:0.5,:0.5", "a", ":0.5", "NAME:FRACTION");
    split_refused("a:0.5,b:", "a", "b:", "NAME:FRACTION");
    split_refused("a:0.5,b:.", "a", "b:.", "NAME:FRACTION");
    split_refused("a:2", "a", "a:2", "NAME:FRACTION");
    split_refused("a", "a", "\"a\"", "NAME:FRACTION");
    split_refused("", "a", "\"\"", "NAME:FRACTION");
    split_refused("a:1e0", "a", "a:1e0", "NAME:FRACTION");
    split_refused("a:-1", "a", "a:-1", "NAME:FRACTION");
    split_refused("a:1", NULL, "--split", "--use");
    split_refused(NULL, "a", "--use", "--split");
}

/* ---- options by themselves ---- */

static void invalid(const rf_order_options *o, int code, const char *word)
{
    struct rfi_error err = {0};
    cr_assert_eq(rfi_order_validate(o, &err), -code, "%s", err.text);
    cr_assert(strstr(err.text, word), "\"%s\" is not in: %s", word, err.text);
}

#define INVALID(code, word, ...)               \
    do {                                       \
        rf_order_options o_ = some_options(4); \
        __VA_ARGS__;                           \
        invalid(&o_, code, word);              \
    } while (0)

Test(validate, names_the_option, .timeout = 10)
{
    rf_order_options good = some_options(4);
    cr_assert_eq(rfi_order_validate(&good, NULL), 0);
    INVALID(EINVAL, "rf_order_options_init", o_.size = 0);
    INVALID(EINVAL, "size", o_.size = sizeof o_ + 8);
    INVALID(EINVAL, "reserved", o_.reserved[5] = 1);
    INVALID(EINVAL, "--world-size 0", o_.world_size = 0);
    INVALID(EINVAL, "--world-size 1000001", o_.world_size = 1000001);
    INVALID(EINVAL, "--batch 0", o_.batch = 0);
    INVALID(EINVAL, "--batch 4294967296", o_.batch = (uint64_t)UINT32_MAX + 1);
    INVALID(EINVAL, "--samples", o_.samples = UINT64_MAX);
    INVALID(EINVAL, "--strategy", o_.strategy = (rf_strategy)9);
    INVALID(EINVAL, "--shuffle", o_.shuffle = (rf_shuffle)3);
    INVALID(EINVAL, "--tail", o_.tail = (rf_tail)3);
    INVALID(EINVAL, "--hash-key", o_.hash_key = (rf_hash_key)3);
    INVALID(EINVAL, "--base", o_.base = RF_HASH);
    INVALID(EINVAL, "--hash-partitions 3", o_.strategy = RF_HASH; o_.hash_partitions = 3);
    INVALID(EINVAL, "--ranges", o_.ranges = "0:1");
    INVALID(EINVAL, "--ranges", o_.strategy = RF_RANGE);
    INVALID(EINVAL, "--subset 9:3", o_.subset = "9:3");
    INVALID(EINVAL, "--use", o_.split = "a:1");
    cr_assert_eq(rfi_order_validate(NULL, NULL), -EINVAL);
}

/* The largest numbers that are allowed must not overflow anywhere. */
Test(validate, extremes, .timeout = 60)
{
    static const rf_shuffle shuffles[] = {RF_SHUFFLE_NONE, RF_SHUFFLE_FULL, RF_SHUFFLE_BLOCK};
    static const uint64_t sizes[] = {(uint64_t)1 << 63, ((uint64_t)1 << 63) - 1, 10000000000};
    static const uint64_t blocks[][2] = {
        {1, 1}, {UINT64_MAX, UINT64_MAX}, {(uint64_t)1 << 62, 3}, {7, UINT64_MAX}, {0, 0}};
    for (unsigned k = 0; k < 3 * 3 * 5 * 2; k++) {
        struct rfi_order_source source = plain(sizes[k % 3]);
        rf_order_options o = some_options(k % 2 ? 1000000 : 3);
        uint64_t ids[8], position;
        uint32_t rank, last = o.world_size - 1;
        o.strategy = k / 45 ? RF_CONTIGUOUS : RF_ROUND_ROBIN;
        o.shuffle = shuffles[k / 3 % 3];
        o.tail = RF_TAIL_PAD;
        o.batch = UINT32_MAX;
        o.block_samples = blocks[k / 9 % 5][0];
        o.window_blocks = blocks[k / 9 % 5][1];
        struct fixture f = open_fixture(&o, &source);
        uint64_t n = rfi_order_rank_samples(f.order, last);
        cr_assert_eq(rfi_order_len(f.order, last), rfi_div_up(rfi_order_rank_samples(f.order, 0), UINT32_MAX));
        rfi_view_seek(f.view, UINT64_MAX, last);
        cr_assert_eq(rfi_view_fill(f.view, n - 4, 8, ids), 4);
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_lt(ids[i], sizes[k % 3]);
            cr_assert_eq(rfi_view_locate(f.view, UINT64_MAX, ids[i], &rank, &position), 0);
            cr_assert(rank == last && position == n - 4 + i);
        }
        close_fixture(&f);
    }
}
