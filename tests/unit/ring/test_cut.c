/* The parent's cuts. Each test that names a race plays the other party's steps by hand. */
#include "fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void make(struct fixture *f, uint32_t depth)
{
    fixture_make(f, depth, 64, 0);
    f->max_blocks = 8;
}

Test(cut, falls_after_the_last_ticket_in_use)
{
    struct fixture f;
    struct rfi_claim a, b, c;

    make(&f, 4);
    cr_assert(eq(int, fixture_claim(&f, 1, &a), 1));
    cr_assert(eq(int, fixture_claim(&f, 1, &b), 1));
    rfi_ring_unclaim(f.r, 1, &a); /* 0 is free again, 1 is not */
    cr_assert(eq(u64, rfi_ring_hold(f.r), 2));
    for (uint64_t t = 0; t < 4; t++)
        cr_assert(eq(int, rfi_word_state(fixture_word(&f, t)), t == 1 ? RFI_CLAIMED : RFI_HELD));
    cr_assert(eq(int, fixture_claim(&f, 2, &c), 0));
    rfi_ring_append(f.r, 2, &(struct rfi_generation){.epoch = 1, .batch = 10, .end_ticket = UINT64_MAX});
    cr_assert(eq(int, fixture_claim(&f, 2, &c), 1));
    cr_assert(eq(u64, c.ticket, 0));
    cr_assert(eq(u64, c.generation.epoch, 0), "below the cut the content stays");
    cr_assert(eq(u64, c.data_offset, a.data_offset));
    fixture_publish(&f, 2, &c);
    fixture_publish(&f, 1, &b);
    fixture_release(&f, 2); /* the next lap is ticket 0's until then */
    cr_assert(eq(int, fixture_claim(&f, 2, &c), 1));
    cr_assert(eq(u64, c.ticket, 2));
    cr_assert(eq(u64, c.generation.epoch, 1));
    cr_assert(eq(u64, c.generation.batch, 10));
    cr_assert(eq(u64, c.data_offset, 0), "a generation begins a lap");
    fixture_free(&f);
}

Test(cut, cancelled_changes_nothing)
{
    struct fixture f;
    struct rfi_claim c;
    uint32_t bell;

    make(&f, 3);
    bell = f.r->bell->value;
    cr_assert(eq(u64, rfi_ring_hold(f.r), 0));
    rfi_ring_cancel(f.r);
    cr_assert(eq(u32, f.r->bell->value, bell + 1), "workers that found everything held must look again");
    cr_assert(eq(u64, f.r->sh->n_generations, 1));
    cr_assert(eq(u64, f.r->sh->freed, 0));
    for (uint64_t t = 0; t < 3; t++)
        cr_assert(eq(u64, fixture_word(&f, t), rfi_free_word(t)));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    fixture_free(&f);
}

Test(cut, a_slot_recycled_during_it_cannot_be_claimed_with_old_content)
{
    struct fixture f;
    struct rfi_claim a, c;

    make(&f, 2);
    cr_assert(eq(int, fixture_claim(&f, 1, &a), 1));
    fixture_publish(&f, 1, &a);
    cr_assert(eq(u64, rfi_ring_hold(f.r), 1));
    fixture_release(&f, 1); /* now slot 0 could become ticket 2 */
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 0));
    cr_assert(eq(u64, rfi_ring_freed(f.r), 0), "frozen");
    rfi_ring_append(f.r, 1, &(struct rfi_generation){.epoch = 1, .end_ticket = UINT64_MAX});
    for (uint64_t t = 1; t < 3; t++) {
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(u64, c.generation.epoch, 1));
    }
    fixture_free(&f);
}

Test(cut, a_slot_recycled_half_way_is_not_cut_off)
{
    struct fixture f;
    struct rfi_claim a, c;

    make(&f, 2);
    cr_assert(eq(int, fixture_claim(&f, 1, &a), 1));
    fixture_publish(&f, 1, &a);
    fixture_release(&f, 1);
    atomic_store(&f.r->slots[0].word, rfi_free_word(2)); /* the recycler stopped before freed */
    cr_assert(eq(u64, fixture_cut(&f, 1, UINT64_MAX), 1));
    for (uint64_t t = 1; t < 3; t++) {
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(u64, c.generation.epoch, 1));
    }
    fixture_free(&f);
}

Test(cut, repeated_without_a_claim_replaces_the_record)
{
    struct fixture f;
    struct rfi_claim c;
    uint64_t first_place;

    make(&f, 4);
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    fixture_publish(&f, 1, &c);
    fixture_release(&f, 1);
    cr_assert(eq(u64, fixture_cut(&f, 1, UINT64_MAX), 1));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    first_place = c.generation.first_place;
    rfi_ring_unclaim(f.r, 1, &c);
    for (uint64_t epoch = 2; epoch < 1000; epoch++)
        cr_assert(eq(u64, fixture_cut(&f, epoch, UINT64_MAX), 1));
    cr_assert(eq(u64, f.r->sh->n_generations, 2));
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(eq(u64, c.generation.epoch, 999));
    cr_assert(eq(u64, c.generation.first_place, first_place));
    fixture_free(&f);
}

Test(cut, never_falls_below_an_earlier_one)
{
    struct fixture f;
    struct rfi_claim a, b, c;

    make(&f, 4);
    cr_assert(eq(int, fixture_claim(&f, 1, &a), 1));
    cr_assert(eq(int, fixture_claim(&f, 2, &b), 1));
    cr_assert(eq(u64, fixture_cut(&f, 1, UINT64_MAX), 2));
    fixture_release(&f, 2); /* the trainer was told */
    cr_assert(eq(uint, rfi_ring_reclaim(f.r, 1, 1), 1));
    cr_assert(eq(uint, rfi_ring_reclaim(f.r, 2, 2), 1));
    cr_assert(eq(u64, fixture_cut(&f, 2, UINT64_MAX), 2), "everything could be held, but 0 and 1 are released");
    for (uint64_t t = 0; t < 3; t++) {
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(u64, c.generation.epoch, t < 2 ? 0 : 2));
        fixture_publish(&f, 1, &c);
    }
    fixture_free(&f);
}

Test(cut, behind_the_end_leaves_no_hole)
{
    struct fixture f;
    struct rfi_claim c;

    make(&f, 4);
    cr_assert(eq(u64, fixture_cut(&f, 1, 1), 0)); /* END is ticket 1 */
    /* A claimant that saw generation 0 claims 3 and has not yet looked again: */
    atomic_store(&f.r->slots[3].word, rfi_word(3, RFI_CLAIMED, 9));
    cr_assert(eq(u64, fixture_cut(&f, 2, UINT64_MAX), 4));
    /* Now it looks and gives it back. 2 and 3 are beyond END and below the next generation. */
    atomic_store(&f.r->slots[3].word, rfi_free_word(3));
    for (uint64_t t = 0; t < 4; t++) {
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 1), "ticket %llu", (unsigned long long)t);
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(int, c.end, t >= 1));
        fixture_publish(&f, 1, &c);
    }
    fixture_release(&f, 4);
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(eq(u64, c.ticket, 4));
    cr_assert(eq(u64, c.generation.epoch, 2));
    fixture_free(&f);
}

Test(cut, at_the_end_starts_again)
{
    struct fixture f;
    struct rfi_claim c;
    uint64_t next = 0;

    make(&f, 3);
    for (uint64_t epoch = 1; epoch < 200; epoch++) {
        uint64_t cut = fixture_cut(&f, epoch, epoch % 5);
        fixture_release(&f, cut);
        cr_assert(eq(u64, cut, next));
        for (uint64_t i = 0; i <= epoch % 5; i++, next++) {
            cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
            cr_assert(eq(u64, c.ticket, next));
            cr_assert(eq(u64, c.generation.epoch, epoch));
            cr_assert(eq(int, c.end, i == epoch % 5));
            fixture_publish(&f, 1, &c);
            cr_assert(eq(int, rfi_ring_look(f.r, next), c.end ? RFI_TAKE_END : RFI_TAKE_READY));
            if (!c.end)
                fixture_release(&f, next + 1);
        }
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 0));
    }
    fixture_free(&f);
}

Test(cut, leaves_room_for_a_batch_whose_place_is_not_known)
{
    struct fixture f;
    struct rfi_claim c;
    uint64_t bytes = 0;

    /* Tickets 1 and 2 are claimed by workers that have not looked again since an earlier cut wiped their
     * places; then both die. Whatever places they get must end before the new generation's first. */
    make(&f, 4);
    f.max_blocks = 40;
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    for (uint64_t t = 1; t < 3; t++) {
        atomic_store(&f.r->slots[t].word, rfi_word(t, RFI_CLAIMED, 2));
        atomic_store(&f.r->slots[t].place[0], RFI_PLACE_WIPED | 1000 << 9);
    }
    cr_assert(eq(u64, fixture_cut(&f, 1, UINT64_MAX), 3));
    rfi_ring_reclaim(f.r, 2, 2);
    fixture_publish(&f, 1, &c);
    fixture_release(&f, 1);
    for (uint64_t t = 1; t < 4; t++) {
        uint64_t place;
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(rfi_place_get(f.r, t, &place));
        cr_assert(ge(u64, place, bytes), "tickets overlap");
        bytes = place + c.footprint;
        fixture_publish(&f, 1, &c);
        fixture_release(&f, t + 1);
    }
    cr_assert(eq(u64, c.generation.epoch, 1));
    fixture_free(&f);
}

/* As many generations as can be alive at once, looked up all the time. */
Test(cut, every_live_ticket_finds_its_generation, .timeout = 30)
{
    for (uint32_t depth = 1; depth <= 6; depth++) {
        struct fixture f;
        struct rfi_claim c;
        uint64_t random = depth, epoch_of[4096] = {0}, next = 0, released = 0;

        make(&f, depth);
        f.max_blocks = 3;
        for (uint64_t epoch = 1; next < 3000; epoch++) {
            cr_assert(eq(u64, fixture_cut(&f, epoch, UINT64_MAX), next));
            for (uint64_t n = ring_random(&random) % 3; n > 0; n--) {
                if (fixture_claim(&f, 1, &c) != 1)
                    break;
                cr_assert(eq(u64, c.ticket, next));
                cr_assert(eq(u64, c.generation.epoch, epoch));
                epoch_of[next++] = epoch;
                fixture_publish(&f, 1, &c);
            }
            for (uint64_t t = rfi_ring_freed(f.r); t < next; t++) {
                struct rfi_generation g;
                rfi_ring_generation(f.r, t, &g);
                cr_assert(eq(u64, g.epoch, epoch_of[t]), "ticket %llu, depth %u", (unsigned long long)t, depth);
            }
            if (next > released) {
                released += 1 + ring_random(&random) % (next - released);
                fixture_release(&f, released);
            }
        }
        fixture_free(&f);
    }
}
