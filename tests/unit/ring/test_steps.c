/* The slot's state machine, step by step, and what the trainer's garbage can do to it. */
#include "fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>

Test(steps, one_batch_goes_through_every_state)
{
    struct fixture f;
    struct rfi_claim c;

    fixture_make(&f, 2, 16, 0);
    cr_assert(eq(u64, fixture_word(&f, 0), rfi_word(0, RFI_FREE, RFI_WORKER_NONE)));
    cr_assert(eq(int, rfi_ring_look(f.r, 0), RFI_TAKE_NOT_YET));
    f.max_blocks = 4;
    cr_assert(eq(int, fixture_claim(&f, 7, &c), 1));
    cr_assert(eq(u64, c.ticket, 0));
    cr_assert(eq(u64, fixture_word(&f, 0), rfi_word(0, RFI_CLAIMED, 7)));
    cr_assert(eq(int, rfi_ring_look(f.r, 0), RFI_TAKE_NOT_YET));
    f.r->slots[0].n_samples = 5;
    rfi_ring_publish(f.r, 7, &c);
    cr_assert(eq(u64, fixture_word(&f, 0), rfi_word(0, RFI_READY, 7)));
    cr_assert(eq(int, rfi_ring_look(f.r, 0), RFI_TAKE_READY));
    cr_assert(eq(u32, f.r->slots[0].worker, 7));
    cr_assert(eq(u64, f.r->slots[0].footprint, fixture_bytes(&f, 0, 0)));
    cr_assert(eq(u64, f.r->sh->local_samples, 5));
    cr_assert(eq(u32, rfi_ring_ready(f.r), 1));
    fixture_release(&f, 1);
    cr_assert(eq(u32, rfi_ring_ready(f.r), 0));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 0), "released, but nobody has recycled it");
    cr_assert(eq(int, fixture_claim(&f, 7, &c), 1));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 1));
    cr_assert(eq(u64, fixture_word(&f, 0), rfi_word(2, RFI_FREE, RFI_WORKER_NONE)));
    cr_assert(eq(u64, c.ticket, 1));
    fixture_free(&f);
}

Test(steps, workers_take_the_oldest_and_never_the_same)
{
    struct fixture f;
    struct rfi_claim c[4], more;

    fixture_make(&f, 4, 64, 0);
    f.max_blocks = 8;
    for (unsigned i = 0; i < 4; i++) {
        cr_assert(eq(u32, rfi_ring_claimable(f.r), 4 - i));
        cr_assert(eq(int, fixture_claim(&f, i, &c[i]), 1));
        cr_assert(eq(u64, c[i].ticket, i));
    }
    cr_assert(eq(int, fixture_claim(&f, 9, &more), 0));
    rfi_ring_unclaim(f.r, 2, &c[2]);
    cr_assert(eq(u32, rfi_ring_claimable(f.r), 1));
    cr_assert(eq(int, fixture_claim(&f, 9, &more), 1));
    cr_assert(eq(u64, more.ticket, 2));
    cr_assert(eq(u64, more.data_offset, c[2].data_offset), "the place is the ticket's, not the worker's");
    rfi_ring_unclaim(f.r, 2, &c[2]); /* not its claim any more: nothing happens */
    cr_assert(eq(u64, fixture_word(&f, 2), rfi_word(2, RFI_CLAIMED, 9)));
    fixture_free(&f);
}

Test(steps, releases_count_in_order)
{
    struct fixture f;
    struct rfi_claim c[3], more;

    fixture_make(&f, 3, 64, 0);
    f.max_blocks = 8;
    for (unsigned i = 0; i < 3; i++)
        cr_assert(eq(int, fixture_claim(&f, 1, &c[i]), 1));
    fixture_publish(&f, 1, &c[1]);
    fixture_publish(&f, 1, &c[2]);
    rfi_ring_release(f.r, 3); /* 0 is not even published */
    cr_assert(eq(int, fixture_claim(&f, 1, &more), 0));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 0));
    fixture_publish(&f, 1, &c[0]);
    cr_assert(eq(u32, rfi_ring_claimable(f.r), 3));
    cr_assert(eq(int, fixture_claim(&f, 1, &more), 1));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 3));
    cr_assert(eq(u64, more.ticket, 3));
    fixture_free(&f);
}

Test(steps, garbage_from_a_trainer_frees_only_what_was_published)
{
    static const uint64_t garbage[] = {UINT64_MAX, UINT64_C(1) << 63, UINT64_C(1) << 48, 1000};
    struct fixture f;
    struct rfi_claim c, kept;

    fixture_make(&f, 4, 64, 0);
    f.max_blocks = 8;
    cr_assert(eq(int, fixture_claim(&f, 3, &kept), 1));
    for (unsigned i = 0; i < 4; i++) {
        atomic_store(&f.r->tr->released, garbage[i]);
        atomic_store(&f.r->tr->taken, ~garbage[i]);
        atomic_store(&f.r->tr->want, garbage[i]);
        atomic_store(&f.r->tr->waiting, (uint32_t)garbage[i]);
        while (fixture_claim(&f, 1, &c) == 1)
            fixture_publish(&f, 1, &c);
        (void)rfi_ring_ready(f.r);
        (void)rfi_ring_reclaim(f.r, 99, 5);
        rfi_ring_release(f.r, garbage[i]);
        cr_assert(eq(u64, fixture_word(&f, 0), rfi_word(0, RFI_CLAIMED, 3)));
        cr_assert(eq(u64, rfi_ring_freed(f.r), 0));
    }
    fixture_free(&f);
}

Test(steps, a_region_under_writing_is_neither_claimed_nor_recycled)
{
    struct fixture f;
    struct rfi_claim c, d;

    fixture_make(&f, 2, 64, 0);
    f.max_blocks = 8;
    rfi_ring_writers_begin(f.r, 0, 63);
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(eq(u64, c.ticket, 1), "slot 0 is being written");
    rfi_ring_writers_end(f.r, 0, 63);
    cr_assert(eq(int, fixture_claim(&f, 1, &d), 1));
    cr_assert(eq(u64, d.ticket, 0));
    fixture_publish(&f, 1, &d);
    fixture_publish(&f, 1, &c);
    fixture_release(&f, 2);
    rfi_ring_writers_begin(f.r, 0, 0);
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 0));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 0));
    cr_assert(eq(u32, rfi_ring_claimable(f.r), 0));
    rfi_ring_writers_end(f.r, 0, 0);
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(eq(u64, c.ticket, 2));
    fixture_free(&f);
}

Test(steps, the_dead_give_back_their_claims_and_bits_only)
{
    struct fixture f;
    struct rfi_claim a, b, c;

    fixture_make(&f, 4, 64, 0);
    f.max_blocks = 8;
    cr_assert(eq(int, fixture_claim(&f, 1, &a), 1));
    cr_assert(eq(int, fixture_claim(&f, 2, &b), 1));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    rfi_ring_writers_begin(f.r, a.slot, 1);
    rfi_ring_writers_begin(f.r, b.slot, 2);
    cr_assert(eq(uint, rfi_ring_reclaim(f.r, 1, 1), 2));
    cr_assert(eq(u64, f.r->slots[a.slot].writers, 0));
    cr_assert(eq(u64, f.r->slots[b.slot].writers, 4));
    cr_assert(eq(u64, fixture_word(&f, 0), rfi_word(0, RFI_FREE, RFI_WORKER_NONE)));
    cr_assert(eq(u64, fixture_word(&f, 1), rfi_word(1, RFI_CLAIMED, 2)));
    cr_assert(eq(u64, fixture_word(&f, 2), rfi_word(2, RFI_FREE, RFI_WORKER_NONE)));
    fixture_free(&f);
}

Test(steps, a_recycler_that_died_half_way_is_helped)
{
    struct fixture f;
    struct rfi_claim c;

    fixture_make(&f, 2, 64, 0);
    f.max_blocks = 8;
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    fixture_publish(&f, 1, &c);
    fixture_release(&f, 1);
    atomic_store(&f.r->slots[0].word, rfi_free_word(2)); /* and then it was killed */
    cr_assert(eq(u32, rfi_ring_claimable(f.r), 2));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(eq(u64, c.ticket, 1));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 1));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(eq(u64, c.ticket, 2));
    fixture_free(&f);
}

static int failing(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    const int64_t *answer = ctx;
    *ret = *answer > 0 ? (uint64_t)*answer : 0;
    return *answer < 0 ? (int)*answer : 0;
}

Test(steps, bad_footprints_end_the_claim)
{
    static const struct {
        int64_t answer;
        int rc;
    } cases[] = {{-EBADMSG, -EBADMSG}, {0, -EINVAL}, {100, -EINVAL}, {17 * BLOCK, -E2BIG}, {16 * BLOCK, 1}};
    struct fixture f;
    struct rfi_claim c;

    fixture_make(&f, 2, 16, 0);
    for (unsigned i = 0; i < 5; i++) {
        int64_t answer = cases[i].answer;
        cr_assert(eq(int, rfi_ring_claim(f.r, 1, failing, &answer, &c), cases[i].rc), "case %u", i);
        cr_assert(eq(int, rfi_word_state(fixture_word(&f, 0)), cases[i].rc == 1 ? RFI_CLAIMED : RFI_FREE));
    }
    fixture_free(&f);
}

Test(steps, errors_and_ends_are_told_apart)
{
    struct fixture f;
    struct rfi_claim c;
    uint64_t cut;

    fixture_make(&f, 4, 64, 0);
    f.max_blocks = 8;
    cut = fixture_cut(&f, 1, 1);
    cr_assert(eq(u64, cut, 0));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(not(c.end));
    rfi_ring_publish_error(f.r, 1, &c, 5);
    cr_assert(eq(int, rfi_ring_look(f.r, 0), RFI_TAKE_ERROR));
    cr_assert(eq(uint, rfi_word_worker(fixture_word(&f, 0)), 5));
    cr_assert(eq(u64, f.r->sh->errors, 1));
    cr_assert(eq(u32, rfi_ring_claimable(f.r), 1), "END is the last");
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(c.end);
    cr_assert(eq(u64, c.footprint, BLOCK));
    rfi_ring_publish_end(f.r, 1, &c);
    cr_assert(eq(int, rfi_ring_look(f.r, 1), RFI_TAKE_END));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 0));
    cr_assert(eq(u32, rfi_ring_claimable(f.r), 0));
    cr_assert(eq(u32, rfi_ring_ready(f.r), 2));
    fixture_free(&f);
}

static int whole_arena(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    *ret = ((const struct rfi_ring *)ctx)->arena_bytes;
    return 0;
}

Test(steps, the_end_needs_no_room)
{
    struct fixture f;
    struct rfi_claim c;

    fixture_make(&f, 4, 16, 0);
    fixture_cut(&f, 1, 2);
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, whole_arena, f.r, &c), 1));
    fixture_publish(&f, 1, &c);
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, whole_arena, f.r, &c), 0), "the arena is full");
    fixture_release(&f, 1);
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, whole_arena, f.r, &c), 1));
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, whole_arena, f.r, &c), 1), "a trainer that holds the last batch");
    cr_assert(c.end);
    fixture_free(&f);
}

Test(steps, tickets_stop_before_they_wrap)
{
    struct fixture f;
    struct rfi_claim c;
    uint64_t first = RFI_TICKET_LIMIT - 40, t = first;
    int rc;

    fixture_make(&f, 4, 64, first);
    f.max_blocks = 8;
    while ((rc = fixture_claim(&f, 1, &c)) == 1) {
        cr_assert(eq(u64, c.ticket, t));
        fixture_publish(&f, 1, &c);
        cr_assert(eq(int, rfi_ring_look(f.r, t), RFI_TAKE_READY));
        fixture_release(&f, ++t);
    }
    cr_assert(eq(int, rc, -EOVERFLOW));
    cr_assert(ge(u64, t, RFI_TICKET_LIMIT - 4));
    cr_assert(le(u64, t, RFI_TICKET_LIMIT));
    fixture_free(&f);
}
