/* The order as numbers. It is a contract: a run that is repeated, resumed or checked years later must
 * get the same samples. If one of these fails, the change that made it fail changes what every user's
 * seed delivers; the vectors are not to be regenerated for it. */
#include "fixture.h"

#include "order/key.h"
#include "order/membership.h"
#include "order/permutation.h"

#include <stdio.h>

enum { SHOWN = 8 };

struct golden {
    const char *name;
    uint64_t samples;
    uint32_t world, rank;
    rf_strategy strategy;
    rf_shuffle shuffle;
    uint64_t seed, epoch, from;
    uint64_t want[SHOWN];
};

/* clang-format off */
static const struct golden cases[] = {
    {"table", 10, 1, 0, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 0, 0, 0, {3, 6, 8, 9, 0, 7, 5, 2}},
    {"table", 1000, 4, 2, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 42, 1, 0, {182, 880, 648, 636, 933, 695, 523, 137}},
    {"table", 65536, 1, 0, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 42, 1, 30000, {39117, 25981, 52593, 22017, 56587, 26647, 64592, 45945}},
    {"network", 65537, 1, 0, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 42, 1, 30000, {32282, 55240, 4922, 65166, 61934, 53407, 51167, 38216}},
    {"network", 1000000, 8, 7, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 43, 0, 0, {332389, 698274, 793418, 348722, 60130, 534111, 99235, 676491}},
    {"network", 10000000000, 8, 7, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 43, 0, 123456789, {3285176408, 3126736337, 8294933480, 4638132317, 7379370426, 6185520811, 7428483186, 8030134291}},
    {"network", UINT64_C(9223372036854775808), 1, 0, RF_ROUND_ROBIN, RF_SHUFFLE_FULL, 1, 2, 77, {493409471679337306, UINT64_C(7384480722456861183), UINT64_C(5820663040476425256), 593018246757291432, UINT64_C(7043074638885492088), 4044507270817154122, 4370492519980376195, UINT64_C(7455851485296705132)}},
    {"block", 5000, 3, 1, RF_ROUND_ROBIN, RF_SHUFFLE_BLOCK, 7, 5, 600, {2925, 1150, 1554, 4951, 4992, 1295, 2255, 1581}},
    {"block", 10000000000, 3, 1, RF_ROUND_ROBIN, RF_SHUFFLE_BLOCK, 7, 5, 600000, {9936181623, 3431516443, 5438403364, 2877360878, 1371380444, 1371380454, 4470519250, 5714711652}},
    {"contiguous", 1000, 3, 1, RF_CONTIGUOUS, RF_SHUFFLE_FULL, 7, 0, 0, {664, 415, 525, 659, 481, 409, 340, 610}},
    {"contiguous block", 1000000, 3, 1, RF_CONTIGUOUS, RF_SHUFFLE_BLOCK, 7, 0, 5000, {540179, 396464, 656536, 602194, 644675, 407520, 378876, 644683}},
    {"hash", 1000, 3, 1, RF_HASH, RF_SHUFFLE_NONE, 0, 0, 0, {4, 9, 15, 16, 21, 25, 26, 28}},
    {"hash", 200000, 9, 8, RF_HASH, RF_SHUFFLE_FULL, 5, 6, 1000, {160328, 185203, 127313, 11922, 40267, 198038, 4260, 61241}},
    {"stratified", 1000, 3, 1, RF_STRATIFIED, RF_SHUFFLE_NONE, 0, 0, 0, {5, 6, 7, 8, 16, 17, 18, 26}},
    {"stratified", 1000, 3, 1, RF_STRATIFIED, RF_SHUFFLE_FULL, 5, 6, 100, {488, 426, 238, 848, 207, 395, 543, 638}},
    {"split", 1000, 1, 0, RF_ROUND_ROBIN, RF_SHUFFLE_NONE, 0, 0, 0, {1, 6, 13, 16, 17, 19, 21, 23}},
};
/* clang-format on */

static _Bool label(void *ctx, uint64_t i, int64_t *ret)
{
    *ret = (int64_t)(i * 5 % 7);
    return 1;
}

static void fill(const struct golden *g, uint64_t *ids)
{
    struct rfi_order_source source = {.samples = g->samples, .mean_bytes = 100000, .label = label};
    rf_order_options o = some_options(g->world);
    o.strategy = g->strategy;
    o.shuffle = g->shuffle;
    o.seed = g->seed;
    if (strcmp(g->name, "split") == 0) {
        o.split = "train:0.8,val:0.2";
        o.use = "val";
    }
    struct fixture f = open_fixture(&o, &source);
    rfi_view_seek(f.view, g->epoch, g->rank);
    memset(ids, 255, SHOWN * sizeof *ids);
    rfi_view_fill(f.view, g->from, SHOWN, ids);
    close_fixture(&f);
}

Test(golden, orders, .timeout = 30)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t ids[SHOWN];
        fill(&cases[i], ids);
        for (unsigned k = 0; k < SHOWN; k++)
            cr_expect_eq(ids[k], cases[i].want[k], "%s, N %llu: position %llu is %llu, was %llu", cases[i].name,
                         (unsigned long long)cases[i].samples, (unsigned long long)cases[i].from + k,
                         (unsigned long long)ids[k], (unsigned long long)cases[i].want[k]);
    }
}

Test(golden, keys, .timeout = 5)
{
    struct rfi_key k = rfi_key_make(42, 1, RFI_KEY_FULL, 3, 4);
    cr_expect(k.lo == UINT64_C(0x8ab8cd3e89ae5aac) && k.hi == UINT64_C(0x1964e306ab057e47), "%#llx %#llx",
              (unsigned long long)k.lo, (unsigned long long)k.hi);
    cr_expect_eq(rfi_hash_partition(0, "abc", 3, 1024), 441, "%llu",
                 (unsigned long long)rfi_hash_partition(0, "abc", 3, 1024));
}
