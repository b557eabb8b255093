/* The shuffle passes the battery; shuffles that are known to be bad fail the same battery. All keys are
 * fixed, so the results never change. */
#include "battery.h"

#include "order/order.h"
#include "order/permutation.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double accepted = 4.0, rejected = 12.0;

/* Ours, through the whole order: round-robin over one rank, shuffle full. */
static void ours(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t *out)
{
    rf_order_options o = {.size = sizeof o, .world_size = 1, .batch = 1, .shuffle = RF_SHUFFLE_FULL, .seed = seed};
    struct rfi_order_source source = {.samples = n, .mean_bytes = 1};
    struct rfi_order *order;
    struct rfi_view *v;
    if (rfi_order_create(&o, &source, NULL, &order, NULL) < 0 || rfi_view_create(order, &v, NULL) < 0)
        abort();
    rfi_view_seek(v, epoch, 0);
    if (rfi_view_fill(v, 0, n, out) != n)
        abort();
    rfi_view_destroy(v);
    rfi_order_destroy(order);
}

/* The classic that must not pass: multiply and add modulo a power of two, walking. */
static void lcg(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t *out)
{
    struct rfi_key key = rfi_key_make(seed, epoch, RFI_KEY_FULL, 0, 0);
    uint64_t mask = ((uint64_t)1 << (64 - __builtin_clzll(n - 1))) - 1, x = key.lo & mask;
    for (uint64_t i = 0; i < n; i++) {
        do
            x = (x * ((key.hi & ~(uint64_t)7) | 5) + (key.lo | 1)) & mask;
        while (x >= n);
        out[i] = x;
    }
}

/* Two rounds of a network whose round function is as good as any. */
static void two_rounds(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t *out)
{
    struct rfi_key key = rfi_key_make(seed, epoch, RFI_KEY_FULL, 0, 0);
    unsigned bits = 64 - (unsigned)__builtin_clzll(n - 1), right_bits = bits - bits / 2;
    uint64_t right_mask = ((uint64_t)1 << right_bits) - 1, left_mask = ((uint64_t)1 << bits / 2) - 1;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t x = i;
        do {
            uint64_t right = x & right_mask, left = x >> right_bits;
            left ^= rfi_key_make(key.lo, right, RFI_KEY_FULL, 0, 0).lo & left_mask;
            right ^= rfi_key_make(key.hi, left, RFI_KEY_FULL, 0, 0).lo & right_mask;
            x = left << right_bits | right;
        } while (x >= n);
        out[i] = x;
    }
}

static double worst(const struct battery *b, const char *who)
{
    double z = 0;
    for (unsigned i = 0; i < b->n; i++) {
        if (getenv("RF_VERBOSE"))
            fprintf(stderr, "%-12s %-28s n = %-8llu z = %9.2f\n", who, b->tests[i].name,
                    (unsigned long long)b->tests[i].samples, b->tests[i].z);
        if (fabs(b->tests[i].z) > fabs(z))
            z = b->tests[i].z;
    }
    return z;
}

Test(battery, table_passes, .timeout = 120)
{
    struct battery b;
    battery_small(ours, &b);
    cr_assert_lt(fabs(worst(&b, "ours")), accepted);
    battery_large(ours, 50000, &b);
    cr_assert_lt(fabs(worst(&b, "ours")), accepted);
}

Test(battery, network_passes, .timeout = 120)
{
    static const uint64_t sizes[] = {65537, 100000, 131072, 300007};
    struct battery b;
    for (unsigned i = 0; i < 4; i++) {
        battery_large(ours, sizes[i], &b);
        cr_assert_lt(fabs(worst(&b, "ours")), accepted, "n = %llu", (unsigned long long)sizes[i]);
    }
}

Test(battery, rejects_lcg, .timeout = 120)
{
    struct battery b;
    battery_small(lcg, &b);
    cr_assert_gt(fabs(worst(&b, "lcg")), rejected);
    battery_large(lcg, 100000, &b);
    cr_assert_gt(fabs(worst(&b, "lcg")), rejected);
    battery_large(lcg, 131072, &b);
    cr_assert_gt(fabs(worst(&b, "lcg")), rejected);
}

Test(battery, rejects_two_rounds, .timeout = 120)
{
    struct battery b;
    battery_small(two_rounds, &b);
    cr_assert_gt(fabs(worst(&b, "two rounds")), rejected);
    battery_large(two_rounds, 100000, &b);
    cr_assert_gt(fabs(worst(&b, "two rounds")), rejected);
    battery_large(two_rounds, 131072, &b);
    cr_assert_gt(fabs(worst(&b, "two rounds")), rejected);
}

/* Seed 42 epoch 1 is not seed 43 epoch 0, nor any such sum or product. */
Test(battery, seeds_and_epochs_are_unrelated, .timeout = 30)
{
    enum { N = 1000, SIDE = 6 };
    static uint64_t orders[SIDE * SIDE][N];
    for (uint64_t s = 0; s < SIDE; s++)
        for (uint64_t e = 0; e < SIDE; e++)
            ours(N, 40 + s, e, orders[s * SIDE + e]);
    for (unsigned a = 0; a < SIDE * SIDE; a++)
        for (unsigned b = 0; b < a; b++) {
            unsigned same = 0;
            for (unsigned p = 0; p < N; p++)
                same += orders[a][p] == orders[b][p];
            cr_assert_lt(same, 10, "orders %u and %u agree in %u places of %u", a, b, same, N);
        }
}
