/* rf_order_*: what a C program calls. Errors come with a text; nothing crashes on wrong arguments. */
#include <criterion/criterion.h>
#include <errno.h>
#include <ringfeed/ringfeed.h>
#include <string.h>

static rf_order *open_virtual(uint64_t samples, uint32_t world, uint64_t batch, rf_tail tail)
{
    rf_order_options o;
    rf_order *order = NULL;
    rf_order_options_init(&o);
    o.samples = samples;
    o.world_size = world;
    o.batch = batch;
    o.tail = tail;
    o.shuffle = RF_SHUFFLE_FULL;
    o.seed = 42;
    cr_assert_eq(rf_order_open(&o, NULL, &order), RF_OK, "%s", rf_last_error());
    return order;
}

Test(public_order, defaults, .timeout = 5)
{
    rf_order_options o;
    memset(&o, 255, sizeof o);
    rf_order_options_init(&o);
    cr_assert(o.size == sizeof o && o.world_size == 1 && o.batch == 1 && o.seed == 0);
    cr_assert(o.strategy == RF_ROUND_ROBIN && o.shuffle == RF_SHUFFLE_NONE && o.tail == RF_TAIL_UNEVEN);
    cr_assert(o.hash_key == RF_HASH_INDEX && !o.ranges && !o.subset && !o.split && !o.use);
    cr_assert_eq(rf_order_validate(&o), RF_OK);
}

Test(public_order, validate_says_what_is_wrong, .timeout = 5)
{
    rf_order_options o;
    rf_order *order = NULL;
    rf_order_options_init(&o);
    o.batch = 0;
    cr_assert_eq(rf_order_validate(&o), -EINVAL);
    cr_assert(strstr(rf_last_error(), "--batch 0"), "%s", rf_last_error());
    cr_assert_eq(rf_order_open(&o, NULL, &order), -EINVAL);
    cr_assert_null(order);
    cr_assert_eq(rf_order_validate(NULL), -EINVAL);
    cr_assert_eq(rf_order_open(&o, NULL, NULL), -EINVAL);
}

/* len is exact: as many batches as rf_order_batch gives, for each rank and tail. */
Test(public_order, len_is_exact, .timeout = 10)
{
    for (uint64_t n = 0; n < 40; n += 3)
        for (int tail = RF_TAIL_UNEVEN; tail <= RF_TAIL_PAD; tail++) {
            rf_order *order = open_virtual(n, 3, 4, (rf_tail)tail);
            cr_assert_eq(rf_order_samples(order), n);
            for (uint32_t r = 0; r < 3; r++) {
                uint64_t ids[4], len = rf_order_len(order, r), b = 0;
                while (rf_order_batch(order, 0, r, b, ids, NULL) > 0)
                    b++;
                cr_assert_eq(b, len);
                cr_assert_eq(rf_order_rank_samples(order, r), n / 3 + (r < n % 3));
            }
            rf_order_close(order);
        }
}

Test(public_order, fill_batch_and_locate_agree, .timeout = 10)
{
    rf_order *order = open_virtual(100003, 4, 32, RF_TAIL_UNEVEN);
    uint64_t ids[32], filled[32], position;
    uint8_t flags[32];
    uint32_t rank;
    for (uint64_t b = 0; b < rf_order_len(order, 3); b += 97) {
        int64_t n = rf_order_batch(order, 5, 3, b, ids, flags);
        cr_assert_eq(rf_order_fill(order, 5, 3, b * 32, 32, filled), n);
        cr_assert_eq(memcmp(ids, filled, (size_t)n * sizeof *ids), 0);
        for (int64_t i = 0; i < n; i++) {
            cr_assert_eq(rf_order_locate(order, 5, ids[i], &rank, &position), RF_OK);
            cr_assert(rank == 3 && position == b * 32 + (uint64_t)i && flags[i] == 0);
        }
    }
    rf_order_close(order);
}

Test(public_order, wrong_arguments, .timeout = 5)
{
    rf_order *order = open_virtual(10, 2, 4, RF_TAIL_DROP);
    uint64_t ids[4], position;
    uint32_t rank;
    cr_assert_eq(rf_order_batch(order, 0, 2, 0, ids, NULL), -ERANGE);
    cr_assert(strstr(rf_order_error(order), "rank 2"), "%s", rf_order_error(order));
    cr_assert_eq(rf_order_fill(order, 0, UINT32_MAX, 0, 1, ids), -ERANGE);
    cr_assert_eq(rf_order_batch(order, 0, 0, 0, NULL, NULL), -EINVAL);
    cr_assert_eq(rf_order_locate(order, 0, 10, &rank, &position), -ENOENT);
    cr_assert(strstr(rf_order_error(order), "sample 10"), "%s", rf_order_error(order));
    cr_assert_eq(rf_order_locate(order, 0, 1, NULL, NULL), -EINVAL);
    cr_assert_eq(rf_order_len(order, 2), 0);
    cr_assert_eq(rf_order_rank_samples(order, 2), 0);
    cr_assert_eq(rf_order_batch(order, 0, 0, UINT64_MAX, ids, NULL), 0);
    cr_assert_eq(rf_order_fill(order, 0, 0, UINT64_MAX, 1, ids), 0);
    rf_order_close(order);
    rf_order_close(NULL);
}
