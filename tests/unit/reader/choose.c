/* How a run reads: every rule of the choice, its thresholds from both sides, and that options have the last word. */
#include "reader/choose.h"

#include <criterion/criterion.h>
#include <string.h>

enum { GIB = 1 << 30 };

/* A dataset that fits into memory, on files that take O_DIRECT, nothing pinned, nothing measured. */
static struct rfi_choice fresh(uint32_t now)
{
    return (struct rfi_choice){
        .now = now, .direct_possible = true, .dataset_bytes = GIB, .free_bytes = (uint64_t)16 * GIB};
}

static uint32_t after(struct rfi_choice c, uint64_t hot, uint64_t cold)
{
    c.hot = hot;
    c.cold = cold;
    return rfi_choose(&c);
}

Test(choose, copies_begin_at_a_quarter_and_end_below_a_tenth)
{
    struct rfi_choice off = fresh(0), on = fresh(RFI_READ_COPIES);
    cr_assert_eq(after(off, 24, 76), 0);
    cr_assert_eq(after(off, 25, 75), RFI_READ_COPIES);
    cr_assert_eq(after(on, 10, 90), RFI_READ_COPIES);
    cr_assert_eq(after(on, 9, 91), 0);
    cr_assert_eq(after(on, 1000, 0), RFI_READ_COPIES);
}

Test(choose, few_reads_decide_nothing)
{
    for (uint64_t n = 0; n < RFI_CHOICE_READS; n++) {
        cr_assert_eq(after(fresh(0), n, 0), 0);
        cr_assert_eq(after(fresh(RFI_READ_COPIES), 0, n), RFI_READ_COPIES);
    }
    cr_assert_eq(after(fresh(0), RFI_CHOICE_READS, 0), RFI_READ_COPIES);
}

Test(choose, data_that_does_not_fit_is_read_past_the_page_cache_unless_it_is_there)
{
    struct rfi_choice c = fresh(0);
    c.dataset_bytes = c.free_bytes / 2 + 1;
    cr_assert_eq(after(c, 0, 100), RFI_READ_DIRECT);
    cr_assert_eq(after(c, 0, 0), RFI_READ_DIRECT, "without a measurement the size decides");
    cr_assert_eq(after(c, 60, 40), RFI_READ_COPIES);
    c.dataset_bytes = c.free_bytes / 2;
    cr_assert_eq(after(c, 0, 100), 0);
}

Test(choose, between_the_sizes_nothing_changes)
{
    struct rfi_choice c = fresh(RFI_READ_DIRECT);
    c.dataset_bytes = c.free_bytes / 4 + 1;
    cr_assert_eq(after(c, 0, 100), RFI_READ_DIRECT);
    c.dataset_bytes = c.free_bytes / 4;
    cr_assert_eq(after(c, 0, 100), 0);
}

Test(choose, a_page_cache_that_does_not_keep_the_data_is_given_up_for_good)
{
    struct rfi_choice c = fresh(0);
    c.cold = 100;
    c.bytes = c.dataset_bytes;
    cr_assert_eq(rfi_choose(&c), 0, "the first time everything is cold");
    c.bytes = c.dataset_bytes / 4 * 5 + 1;
    cr_assert_eq(rfi_choose(&c), RFI_READ_DIRECT);
    cr_assert(c.spilled);
    c.now = RFI_READ_DIRECT;
    c.bytes = 0;
    cr_assert_eq(rfi_choose(&c), RFI_READ_DIRECT, "though it would fit by its size");
}

Test(choose, options_have_the_last_word)
{
    const uint32_t all = RFI_READ_COPIES | RFI_READ_DIRECT;
    for (uint32_t pinned = 0; pinned <= all; pinned++)
        for (uint32_t now = 0; now <= all; now++)
            for (int hot = 0; hot < 2; hot++) {
                struct rfi_choice c = fresh(now);
                c.pinned = pinned;
                c.hot = hot ? 1000 : 0;
                c.cold = hot ? 0 : 1000;
                c.dataset_bytes = hot ? 1 : c.free_bytes;
                cr_assert_eq(rfi_choose(&c) & pinned, now & pinned);
            }
}

Test(choose, o_direct_is_never_chosen_where_it_is_not_to_be_had)
{
    struct rfi_choice c = fresh(0);
    c.direct_possible = false;
    c.dataset_bytes = c.free_bytes;
    cr_assert_eq(after(c, 0, 1000), 0);
}

Test(choose, a_slower_o_direct_is_left_and_taken_up_again_with_some_distance)
{
    struct rfi_choice c = fresh(RFI_READ_DIRECT);
    c.dataset_bytes = 2 * c.free_bytes;
    const struct {
        uint32_t now;
        uint64_t direct_ns, buffered_ns;
        uint32_t next;
    } table[] = {
        {RFI_READ_DIRECT, 0, 100, RFI_READ_DIRECT},
        {RFI_READ_DIRECT, 100, 0, RFI_READ_DIRECT},
        {RFI_READ_DIRECT, 200, 100, RFI_READ_DIRECT},
        {RFI_READ_DIRECT, 201, 100, 0},
        {0, 151, 100, 0},
        {0, 150, 100, RFI_READ_DIRECT},
        {0, 50, 100, RFI_READ_DIRECT},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        c.now = table[i].now;
        c.direct_ns = table[i].direct_ns;
        c.buffered_ns = table[i].buffered_ns;
        cr_assert_eq(after(c, 0, 100), table[i].next, "line %zu", i);
    }
    c.spilled = true;
    c.now = RFI_READ_DIRECT;
    c.direct_ns = 1000;
    cr_assert_eq(after(c, 0, 100), 0, "nor when the page cache keeps nothing");
    c.pinned = RFI_READ_DIRECT;
    cr_assert_eq(after(c, 0, 100), RFI_READ_DIRECT, "an option has the last word");
}

Test(choose, says_what_decided)
{
    struct rfi_choice c = fresh(0);
    rfi_choose(&c);
    cr_assert_eq(c.why, RFI_WHY_FITS);
    c.dataset_bytes = 2 * c.free_bytes;
    rfi_choose(&c);
    cr_assert_eq(c.why, RFI_WHY_TOO_LARGE);
    c.hot = 100;
    rfi_choose(&c);
    cr_assert_eq(c.why, RFI_WHY_IN_MEMORY);
    c.direct_possible = false;
    rfi_choose(&c);
    cr_assert_eq(c.why, RFI_WHY_IMPOSSIBLE);
    c.pinned = RFI_READ_DIRECT;
    rfi_choose(&c);
    cr_assert_eq(c.why, RFI_WHY_PINNED);
    for (uint32_t why = 0; why < RFI_N_WHY + 2; why++)
        cr_assert_gt(strlen(rfi_choice_word(why)), 0);
}
