/* Who gets what: stratified balance, hash balance and movement, against counting by the test. */
#include "fixture.h"

#include "order/membership.h"

#include <endian.h>
#include <math.h>
#include <stdio.h>

struct labels {
    uint64_t classes;
    uint64_t missing; /* a sample without label; UINT64_MAX: none */
    int scattered; /* labels far apart and negative */
};

static int64_t class_of(const struct labels *l, uint64_t i)
{
    uint64_t c = i * 2654435761u % 1000003 % l->classes;
    return l->scattered ? (int64_t)(c * UINT64_C(0x123456789abcdef)) : (int64_t)c;
}

static _Bool label(void *ctx, uint64_t i, int64_t *ret)
{
    const struct labels *l = ctx;
    *ret = class_of(l, i);
    return i != l->missing;
}

static int compare_labels(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sorted labels of a rank, or of everything (rank UINT32_MAX). */
static int64_t *labels_of(struct fixture *f, const struct labels *l, uint32_t rank, uint64_t samples, uint64_t *ret_n)
{
    uint64_t n = samples, *ids = rank == UINT32_MAX ? NULL : sequence_of(f, rank, &n);
    int64_t *list = malloc((n + 1) * sizeof *list);
    for (uint64_t i = 0; i < n; i++)
        list[i] = class_of(l, ids ? ids[i] : i);
    qsort(list, n, sizeof *list, compare_labels);
    free(ids);
    *ret_n = n;
    return list;
}

static uint64_t count_label(const int64_t *list, uint64_t n, int64_t value)
{
    uint64_t lo = 0, count = 0;
    while (lo < n && list[lo] < value)
        lo++;
    for (; lo < n && list[lo] == value; lo++)
        count++;
    return count;
}

/* Every class within one of n_c / W on every rank, and the totals too. */
static void check_stratified(uint64_t samples, uint32_t world, struct labels l)
{
    struct rfi_order_source source = {.samples = samples, .mean_bytes = 1, .ctx = &l, .label = label};
    rf_order_options o = some_options(world);
    o.strategy = RF_STRATIFIED;
    struct fixture f = open_fixture(&o, &source);
    uint64_t n_all, n, total = 0;
    int64_t *all = labels_of(&f, &l, UINT32_MAX, samples, &n_all);
    for (uint32_t r = 0; r < world; r++) {
        int64_t *mine = labels_of(&f, &l, r, samples, &n);
        cr_assert(n == samples / world || n == samples / world + 1, "rank %u has %llu", r, (unsigned long long)n);
        total += n;
        for (uint64_t i = 0; i < n_all; i++) {
            if (i && all[i] == all[i - 1])
                continue;
            uint64_t have = count_label(mine, n, all[i]), of = count_label(all, n_all, all[i]);
            cr_assert(have == of / world || have == of / world + (of % world != 0),
                      "rank %u has %llu of the %llu samples of class %lld", r, (unsigned long long)have,
                      (unsigned long long)of, (long long)all[i]);
        }
        free(mine);
    }
    cr_assert_eq(total, samples);
    free(all);
    close_fixture(&f);
}

Test(stratified, balances_classes_and_totals, .timeout = 60)
{
    static const uint32_t worlds[] = {1, 2, 3, 7, 8, 16};
    for (unsigned w = 0; w < 6; w++) {
        check_stratified(1000, worlds[w], (struct labels){.classes = 1, .missing = UINT64_MAX});
        check_stratified(1000, worlds[w], (struct labels){.classes = 10, .missing = UINT64_MAX});
        check_stratified(997, worlds[w], (struct labels){.classes = 300, .missing = UINT64_MAX, .scattered = 1});
    }
}

/* 1,000 classes of 9: rounding each class by itself would give some ranks far too much. */
static _Bool label_of_nine(void *ctx, uint64_t i, int64_t *ret)
{
    *ret = (int64_t)(i * 7 % 1000);
    return 1;
}

Test(stratified, thousand_classes_of_nine, .timeout = 30)
{
    struct rfi_order_source source = {.samples = 9000, .mean_bytes = 1, .label = label_of_nine};
    for (uint32_t world = 2; world <= 16; world++) {
        rf_order_options o = some_options(world);
        uint64_t counts[1000], n;
        o.strategy = RF_STRATIFIED;
        o.classes = 1000;
        struct fixture f = open_fixture(&o, &source);
        for (uint32_t r = 0; r < world; r++) {
            uint64_t *ids = sequence_of(&f, r, &n);
            memset(counts, 0, sizeof counts);
            for (uint64_t i = 0; i < n; i++)
                counts[ids[i] * 7 % 1000]++;
            for (unsigned c = 0; c < 1000; c++)
                cr_assert(counts[c] == 9 / world || counts[c] == 9 / world + (9 % world != 0));
            cr_assert(n == 9000 / world || n == 9000 / world + 1);
            free(ids);
        }
        close_fixture(&f);
    }
}

Test(stratified, names_the_sample_without_label, .timeout = 10)
{
    struct labels l = {.classes = 3, .missing = 77};
    struct rfi_order_source source = {.samples = 100, .mean_bytes = 1, .ctx = &l, .label = label};
    rf_order_options o = some_options(2);
    o.strategy = RF_STRATIFIED;
    refused(&o, &source, EINVAL, "sample 77 ", "no label");
    source.label = NULL;
    refused(&o, &source, EINVAL, "stratified", "no labels");
}

Test(stratified, checks_the_number_of_classes, .timeout = 10)
{
    struct labels l = {.classes = 3, .missing = UINT64_MAX};
    struct rfi_order_source source = {.samples = 100, .mean_bytes = 1, .ctx = &l, .label = label};
    rf_order_options o = some_options(2);
    o.classes = 4;
    refused(&o, &source, EINVAL, "--classes 4", " 3 distinct");
}

/* ---- hash ---- */

static uint32_t *ranks_by_hash(uint64_t samples, uint32_t world, uint64_t partitions, uint64_t hash_seed, uint64_t seed)
{
    struct rfi_order_source source = {.samples = samples, .mean_bytes = 1};
    rf_order_options o = some_options(world);
    uint32_t *rank_of = malloc(samples * sizeof *rank_of);
    uint64_t n;
    o.strategy = RF_HASH;
    o.shuffle = RF_SHUFFLE_FULL;
    o.hash_partitions = partitions;
    o.hash_seed = hash_seed;
    o.seed = seed;
    struct fixture f = open_fixture(&o, &source);
    for (uint32_t r = 0; r < world; r++) {
        uint64_t *ids = sequence_of(&f, r, &n);
        for (uint64_t i = 0; i < n; i++)
            rank_of[ids[i]] = r;
        free(ids);
    }
    close_fixture(&f);
    return rank_of;
}

/* Within 5 sigma of even, and never further off than one partition. */
Test(hash, is_even, .timeout = 60)
{
    static const uint32_t worlds[] = {2, 3, 7, 8, 9, 16, 60};
    static const uint64_t sizes[] = {1000, 10007, 100000, 1000000};
    for (unsigned s = 0; s < 4; s++)
        for (unsigned w = 0; w < 7; w++) {
            uint64_t counts[64] = {0}, samples = sizes[s];
            double share = 1.0 / worlds[w], even = (double)samples * share, sigma = sqrt(even * (1 - share));
            uint32_t *rank_of = ranks_by_hash(samples, worlds[w], 0, s, 1);
            for (uint64_t i = 0; i < samples; i++)
                counts[rank_of[i]]++;
            for (uint32_t r = 0; r < worlds[w]; r++)
                cr_assert_lt(fabs((double)counts[r] - even), 5 * sigma, "N %llu W %u rank %u: %llu, even is %.1f",
                             (unsigned long long)samples, worlds[w], r, (unsigned long long)counts[r], even);
            free(rank_of);
        }
}

/* Whatever W is, all samples of a partition are on one rank. */
Test(hash, moves_whole_partitions, .timeout = 60)
{
    enum { SAMPLES = 50000, PARTITIONS = 1024 };
    for (uint32_t world = 1; world <= 64; world = world * 2 + (world & 1)) {
        uint32_t rank_of_partition[PARTITIONS];
        uint32_t *rank_of = ranks_by_hash(SAMPLES, world, PARTITIONS, 5, 1);
        memset(rank_of_partition, 255, sizeof rank_of_partition);
        for (uint64_t i = 0; i < SAMPLES; i++) {
            uint64_t word = htole64(i), p = rfi_hash_partition(5, &word, sizeof word, PARTITIONS);
            if (rank_of_partition[p] == UINT32_MAX)
                rank_of_partition[p] = rank_of[i];
            cr_assert_eq(rank_of_partition[p], rank_of[i], "W %u: partition %llu is cut", world, (unsigned long long)p);
        }
        free(rank_of);
    }
}

/* Seen from outside, without the partition function: two samples that W = 64 separates by partition may
 * part, but the classes of "always together" must be as many as partitions, not as samples. */
Test(hash, keeps_partitions_together_across_world_sizes, .timeout = 60)
{
    enum { SAMPLES = 20000, PARTITIONS = 16, N_WORLDS = 8 };
    static uint64_t signature[SAMPLES];
    memset(signature, 0, sizeof signature);
    for (uint32_t world = 2; world < 2 + N_WORLDS; world++) {
        uint32_t *rank_of = ranks_by_hash(SAMPLES, world, PARTITIONS, 9, 1);
        for (uint64_t i = 0; i < SAMPLES; i++)
            signature[i] = signature[i] * 16 + rank_of[i];
        free(rank_of);
    }
    uint64_t distinct[PARTITIONS + 1];
    unsigned n = 0;
    for (uint64_t i = 0; i < SAMPLES; i++) {
        unsigned k = 0;
        while (k < n && distinct[k] != signature[i])
            k++;
        if (k == n)
            distinct[n++] = signature[i];
        cr_assert_leq(n, PARTITIONS, "more groups than partitions");
    }
    cr_assert_gt(n, PARTITIONS / 2);
}

Test(hash, ignores_seed_but_not_hash_seed, .timeout = 10)
{
    uint32_t *a = ranks_by_hash(5000, 4, 0, 1, 1), *b = ranks_by_hash(5000, 4, 0, 1, 2),
             *c = ranks_by_hash(5000, 4, 0, 2, 1);
    unsigned moved = 0;
    cr_assert_eq(memcmp(a, b, 5000 * sizeof *a), 0);
    for (unsigned i = 0; i < 5000; i++)
        moved += a[i] != c[i];
    cr_assert(moved > 3500 && moved < 4000, "%u of 5000 moved; three quarters are due", moved);
    free(a);
    free(b);
    free(c);
}

static const char *shared_key(void *ctx, uint64_t i, size_t *ret_bytes)
{
    static const char keys[] = "abcdefghijklmnopqrstuvwxyz";
    *ret_bytes = 3;
    return i == *(uint64_t *)ctx ? NULL : keys + i % 20;
}

static _Bool shared_label(void *ctx, uint64_t i, int64_t *ret)
{
    *ret = (int64_t)(i % 20) - 10;
    return i != *(uint64_t *)ctx;
}

/* Samples with one key, or one label, are on one rank. */
Test(hash, key_and_label, .timeout = 10)
{
    uint64_t missing = UINT64_MAX, n;
    struct rfi_order_source source = {
        .samples = 1000, .mean_bytes = 1, .ctx = &missing, .label = shared_label, .key = shared_key};
    for (int by = RF_HASH_KEY; by <= RF_HASH_LABEL; by++) {
        rf_order_options o = some_options(3);
        uint32_t rank_of[20], used = 0;
        memset(rank_of, 255, sizeof rank_of);
        o.strategy = RF_HASH;
        o.hash_key = (rf_hash_key)by;
        struct fixture f = open_fixture(&o, &source);
        for (uint32_t r = 0; r < 3; r++) {
            uint64_t *ids = sequence_of(&f, r, &n);
            used += n > 0;
            for (uint64_t i = 0; i < n; i++) {
                cr_assert(rank_of[ids[i] % 20] == UINT32_MAX || rank_of[ids[i] % 20] == r);
                rank_of[ids[i] % 20] = r;
            }
            free(ids);
        }
        cr_assert_eq(used, 3);
        close_fixture(&f);
    }
}

Test(hash, refusals, .timeout = 10)
{
    uint64_t missing = 42;
    struct rfi_order_source source = {
        .samples = 1000, .mean_bytes = 1, .ctx = &missing, .label = shared_label, .key = shared_key};
    rf_order_options o = some_options(9);
    o.strategy = RF_HASH;
    o.hash_key = RF_HASH_KEY;
    refused(&o, &source, EINVAL, "sample 42 ", "no key");
    o.hash_key = RF_HASH_LABEL;
    refused(&o, &source, EINVAL, "sample 42 ", "no label");
    source.key = NULL;
    source.label = NULL;
    refused(&o, &source, EINVAL, "--hash-key label", "no labels");
    o.hash_key = RF_HASH_KEY;
    refused(&o, &source, EINVAL, "--hash-key key", "no keys");
    o.hash_key = RF_HASH_INDEX;
    o.hash_partitions = 8;
    refused(&o, &source, EINVAL, "--hash-partitions 8", "9 ranks");
    o.hash_partitions = UINT64_MAX;
    refused(&o, &source, EINVAL, "--hash-partitions", "at most");
    o.hash_partitions = 0;
    source.samples = (uint64_t)UINT32_MAX + 2;
    refused(&o, &source, EINVAL, "hash", "4294967295");
}

/* The dealing by itself: no rank is further from another than the largest partition. */
Test(hash, dealing_spreads_at_most_one_partition, .timeout = 10)
{
    enum { N = 200 };
    for (uint32_t world = 1; world <= 40; world++) {
        uint64_t counts[N], load[40] = {0}, most = 0, least = UINT64_MAX, largest = 0;
        uint32_t rank_of[N];
        for (unsigned p = 0; p < N; p++) {
            counts[p] = p * 7919 % 1000;
            largest = counts[p] > largest ? counts[p] : largest;
        }
        memset(rank_of, 255, sizeof rank_of);
        cr_assert_eq(rfi_deal_partitions(counts, N, world, rank_of, NULL), 0);
        for (unsigned p = 0; p < N; p++) {
            cr_assert_lt(rank_of[p], world);
            load[rank_of[p]] += counts[p];
        }
        for (uint32_t r = 0; r < world; r++) {
            most = load[r] > most ? load[r] : most;
            least = load[r] < least ? load[r] : least;
        }
        cr_assert_leq(most - least, largest);
    }
}

/* 1,024 partitions of nearly equal size on 60 ranks: 17 or 18 each, yet no rank gets a whole one more. */
Test(hash, dealing_evens_out_one_partition_more, .timeout = 10)
{
    enum { N = 1024, WORLD = 60 };
    uint64_t counts[N], load[WORLD] = {0}, total = 0;
    uint32_t rank_of[N];
    for (unsigned p = 0; p < N; p++)
        total += counts[p] = 900 + p * 2654435761u % 153;
    cr_assert_eq(rfi_deal_partitions(counts, N, WORLD, rank_of, NULL), 0);
    for (unsigned p = 0; p < N; p++)
        load[rank_of[p]] += counts[p];
    for (unsigned r = 0; r < WORLD; r++)
        cr_assert_lt(fabs((double)load[r] - (double)total / WORLD), 300, "rank %u: %llu of %llu", r,
                     (unsigned long long)load[r], (unsigned long long)total / WORLD);
}
