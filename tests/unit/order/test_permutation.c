/* Permutations: bijective at every size, inverse exact, batched equals single, and never changing. */
#include "order/permutation.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool exhaustive(void)
{
    const char *text = getenv("RF_EXHAUSTIVE");
    return text && *text == '1';
}

/* Sanitizers make the network ten times slower and look at the code, not at its statistics. */
#if defined(__SANITIZE_ADDRESS__)
enum { POINTS = 50000, MOST_POWER = 18 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { POINTS = 50000, MOST_POWER = 18 };
#else
enum { POINTS = 1000000, MOST_POWER = 24 };
#endif
#else
enum { POINTS = 1000000, MOST_POWER = 24 };
#endif

struct bench {
    uint64_t *values;
    uint8_t *bits;
    uint16_t *storage;
};

static struct bench bench_make(uint64_t most)
{
    struct bench b = {malloc(most * 8), malloc(most / 8 + 1), malloc(2 * RFI_TABLE_MAX * sizeof(uint16_t))};
    cr_assert(b.values && b.bits && b.storage);
    return b;
}

static void bench_free(struct bench *b)
{
    free(b->values);
    free(b->bits);
    free(b->storage);
}

/* n different values below n: a bijection. */
static void check_values(struct bench *b, uint64_t n, const char *what)
{
    uint64_t twice = 0, outside = 0;
    memset(b->bits, 0, n / 8 + 1);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t x = b->values[i];
        if (x >= n) {
            outside++;
            continue;
        }
        twice += b->bits[x >> 3] >> (x & 7) & 1;
        b->bits[x >> 3] |= (uint8_t)(1u << (x & 7));
    }
    cr_assert(twice == 0 && outside == 0, "%s, n = %llu: %llu values twice, %llu outside", what, (unsigned long long)n,
              (unsigned long long)twice, (unsigned long long)outside);
}

static void check_network(struct bench *b, uint64_t n)
{
    struct rfi_feistel f;
    rfi_feistel_init(&f, n, rfi_key_make(n, 1, RFI_KEY_FULL, 0, 0));
    rfi_feistel_fill(&f, 0, 1, n, b->values);
    check_values(b, n, "network");
}

static void check_permutation(struct bench *b, uint64_t n)
{
    struct rfi_permutation p;
    rfi_permutation_init(&p, n, rfi_key_make(n, 2, RFI_KEY_FULL, 0, 0), b->storage);
    rfi_permutation_fill(&p, 0, 1, n, b->values);
    check_values(b, n, "permutation");
    for (uint64_t i = 0; i < n; i += 1 + n / 64) {
        cr_assert_eq(rfi_permutation_at(&p, i), b->values[i]);
        cr_assert_eq(rfi_permutation_inverse(&p, b->values[i]), i);
    }
}

/* Every n to 4,096 (70,000 with RF_EXHAUSTIVE=1), the network also where a table would be used. */
Test(permutation, bijective_at_every_small_size, .timeout = 600)
{
    struct bench b = bench_make(70000);
    uint64_t most = exhaustive() ? 70000 : 4096;
    check_permutation(&b, 0);
    for (uint64_t n = 1; n <= most; n++) {
        check_permutation(&b, n);
        if (n > RFI_TABLE_MAX)
            continue; /* that was the network */
        check_network(&b, n);
    }
    bench_free(&b);
}

Test(permutation, bijective_at_300_other_sizes, .timeout = 120)
{
    struct bench b = bench_make(70000);
    for (uint64_t k = 0; k < 300; k++) {
        uint64_t n = 4097 + (k * 2654435761u >> 3) % (70000 - 4097);
        check_permutation(&b, n);
        check_network(&b, n);
    }
    bench_free(&b);
}

Test(permutation, bijective_around_powers_of_two, .timeout = 300)
{
    struct bench b = bench_make(((uint64_t)1 << MOST_POWER) + 1);
    for (unsigned k = 1; k <= MOST_POWER; k++)
        for (int d = -1; d <= 1; d++) {
            uint64_t n = ((uint64_t)1 << k) + (uint64_t)d;
            check_permutation(&b, n);
            if (n <= RFI_TABLE_MAX)
                check_network(&b, n);
        }
    bench_free(&b);
}

Test(permutation, inverse_undoes_forward, .timeout = 300)
{
    for (unsigned k = 1; k <= 62; k++)
        for (int d = -1; d <= 1; d++) {
            uint64_t n = ((uint64_t)1 << k) + (uint64_t)d, points = k <= 40 ? POINTS : 10000, wrong = 0;
            struct rfi_feistel f;
            struct rfi_random random;
            rfi_feistel_init(&f, n, rfi_key_make(k, 3, RFI_KEY_FULL, 0, 0));
            rfi_random_init(&random, rfi_key_make(k, 4, RFI_KEY_FULL, 0, 0));
            for (uint64_t i = 0; i < points; i++) {
                uint64_t p = rfi_random_below(&random, n), value = rfi_feistel_at(&f, p);
                wrong += value >= n || rfi_feistel_inverse(&f, value) != p;
            }
            cr_assert_eq(wrong, 0, "n = 2^%u %+d: %llu wrong", k, d, (unsigned long long)wrong);
        }
}

Test(permutation, largest_size, .timeout = 10)
{
    struct rfi_feistel f;
    uint64_t n = (uint64_t)1 << 63;
    rfi_feistel_init(&f, n, rfi_key_make(1, 1, RFI_KEY_FULL, 0, 0));
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t p = i * (n / 1000), value = rfi_feistel_at(&f, p);
        cr_assert(value < n && rfi_feistel_inverse(&f, value) == p);
    }
}

/* Fill with any start, stride and length, across its inner pieces. */
Test(permutation, fill_equals_at, .timeout = 30)
{
    static const uint64_t sizes[] = {1, 1000, 65536, 65537, 100000, 1000003};
    struct bench b = bench_make(4096);
    for (unsigned s = 0; s < 6; s++) {
        struct rfi_permutation p;
        rfi_permutation_init(&p, sizes[s], rfi_key_make(5, s, RFI_KEY_FULL, 0, 0), b.storage);
        for (uint64_t stride = 1; stride <= 64; stride = stride * 3 + 1)
            for (uint64_t count = 0; count < 1200 && count * stride < sizes[s]; count += 1 + count / 2) {
                uint64_t start = (sizes[s] - count * stride) / 2;
                rfi_permutation_fill(&p, start, stride, count, b.values);
                for (uint64_t i = 0; i < count; i++)
                    cr_assert_eq(b.values[i], rfi_permutation_at(&p, start + i * stride));
            }
    }
    bench_free(&b);
}
