/* Places against a reference that knows nothing of laps, tags or helpers; and helpers that sleep: the
 * footprint callback is where a helper stands between its look and its CAS, so whatever happens in there
 * happens behind its back. */
#include "fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <string.h>

/* Which ticket uses which block of the arena: nobody may be given a block in use. */
static void own(uint64_t *owner, const struct rfi_claim *c, uint64_t alive_from)
{
    for (uint64_t b = c->data_offset / BLOCK; b < (c->data_offset + c->footprint) / BLOCK; b++) {
        cr_assert(owner[b] == 0 || owner[b] - 1 < alive_from, "ticket %llu overwrites ticket %llu",
                  (unsigned long long)c->ticket, (unsigned long long)owner[b] - 1);
        owner[b] = c->ticket + 1;
    }
}

/* What a run is like: an arena of `laps` laps, of which one is in use at first, and `ahead` tickets of `depth`. Where that is less,
 * the ring grows every thousand tickets, and goes on with its content. */
struct shape {
    uint32_t depth, ahead;
    uint64_t lap_blocks, laps, max_blocks, tickets, seed;
};

/* Claims everything it can, publishes out of order, releases a random number; all against the reference. */
static void run_against_the_reference(struct shape s)
{
    struct rfi_generation first = {.end_ticket = UINT64_MAX};
    struct fixture f;
    struct rfi_claim c[64];
    uint64_t owner[256] = {0}, lap = s.lap_blocks * BLOCK, arena = s.laps * lap;
    uint64_t place = 0, bytes = 0, next = 0, released = 0, grown_at = 0;
    bool cut = true;

    ring_world_make_wide(&f.world, s.depth, s.ahead, lap, arena, &first);
    f.r = &f.world.ring;
    f.max_blocks = s.max_blocks;
    while (next < s.tickets) {
        unsigned n = 0;
        while (n < s.depth && fixture_claim(&f, 1, &c[n]) == 1) {
            uint64_t own_bytes = fixture_bytes(&f, 0, next);
            if (!cut)
                place = reference_place(place, bytes, own_bytes, lap, arena);
            else if (next > 0)
                place = (place / arena + 1) * arena;
            cut = false;
            bytes = own_bytes;
            cr_assert(eq(u64, c[n].ticket, next));
            cr_assert(eq(u64, c[n].generation.batch + c[n].ticket - c[n].generation.first_ticket, next),
                      "the same content");
            cr_assert(eq(u64, c[n].footprint, bytes));
            cr_assert(eq(u64, c[n].data_offset, place % arena));
            cr_assert(c[n].data_offset + bytes <= lap);
            cr_assert(next < released + s.ahead);
            own(owner, &c[n], released);
            n++;
            next++;
        }
        cr_assert(n > 0 || released < next, "stuck at ticket %llu", (unsigned long long)next);
        while (n > 0)
            fixture_publish(&f, 1, &c[--n]);
        released += 1 + ring_random(&s.seed) % (next - released);
        if (next > grown_at + 1000 && s.ahead < s.depth) {
            grown_at = next;
            s.ahead = 2 * s.ahead < s.depth ? 2 * s.ahead : s.depth;
            cr_assert(rfi_ring_grow(f.r, s.ahead));
            lap = 2 * lap < arena ? 2 * lap : arena;
            cut = true;
        }
        fixture_release(&f, released);
    }
    cr_assert(eq(u32, s.ahead, s.depth));
    fixture_free(&f);
}

Test(places, equal_a_block_by_block_reference_over_many_laps, .timeout = 30)
{
    /* depth 2: 10,000 laps, the tag goes round 19 times */
    run_against_the_reference((struct shape){2, 2, 16, 1, 8, 20000, 1});
    run_against_the_reference((struct shape){1, 1, 5, 1, 5, 5000, 2});
    run_against_the_reference((struct shape){3, 3, 8, 1, 8, 20000, 3});
    run_against_the_reference((struct shape){7, 7, 100, 1, 30, 20000, 4});
    run_against_the_reference((struct shape){64, 64, 256, 1, 20, 20000, 5});
}

Test(places, of_a_ring_that_grows, .timeout = 30)
{
    run_against_the_reference((struct shape){8, 2, 16, 4, 8, 6000, 1});
    run_against_the_reference((struct shape){7, 2, 20, 3, 10, 6000, 2}); /* the last lap is less than twice as long */
    run_against_the_reference((struct shape){16, 2, 64, 4, 32, 6000, 3});
}

Test(grow, is_not_for_what_lies_behind_the_end)
{
    struct fixture f;
    struct rfi_claim c;

    fixture_make(&f, 4, 16, 0);
    f.max_blocks = 2;
    fixture_cut(&f, 1, 2);
    for (int i = 0; i < 3; i++)
        cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    cr_assert(c.end);
    cr_assert(eq(int, rfi_ring_grow(f.r, 4), 0));
    cr_assert(eq(u64, atomic_load(&f.r->sh->freed), 0), "let go again");
    fixture_free(&f);
}

static int five_blocks(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    *ret = 5 * BLOCK;
    return 0;
}

Test(places, what_does_not_fit_before_the_end_of_the_arena_begins_the_next_lap)
{
    struct fixture f;
    struct rfi_claim c[3];

    fixture_make(&f, 4, 13, 0);
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c[0]), 1));
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c[1]), 1));
    cr_assert(eq(u64, c[1].data_offset, 5 * BLOCK));
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c[2]), 0), "its lap is still ticket 0's");
    fixture_publish(&f, 1, &c[0]);
    fixture_release(&f, 1);
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c[2]), 1));
    cr_assert(eq(u64, c[2].data_offset, 0));
    fixture_free(&f);
}

/* ---- behind a helper's back ---- */

enum trick { CUT, HOLD_ONLY, LAPS, CUT_AND_LAPS, CUT_AND_ERROR };

struct sleeper {
    struct fixture f;
    struct rfi_ring other; /* another process's handle */
    enum trick trick;
    uint64_t laps;
    uint64_t asleep_at; /* ticket at which it sleeps, once */
    bool done;
};

static void others_work(struct sleeper *s)
{
    struct fixture f = s->f;
    struct rfi_claim c;

    f.r = &s->other;
    for (uint64_t i = 0; i < s->laps * f.r->depth; i++) {
        cr_assert(eq(int, rfi_ring_claim(&s->other, 2, fixture_footprint, &f, &c), 1));
        rfi_ring_publish(&s->other, 2, &c);
        fixture_release(&f, c.ticket + 1);
    }
}

static int sleeping_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    struct sleeper *s = ctx;

    if (ticket == s->asleep_at && !s->done) {
        struct fixture f = s->f;
        f.r = &s->other;
        s->done = true;
        if (s->trick == HOLD_ONLY)
            rfi_ring_hold(&s->other);
        else if (s->trick != LAPS)
            fixture_cut(&f, 1, UINT64_MAX);
        if (s->trick == LAPS || s->trick == CUT_AND_LAPS)
            others_work(s);
        if (s->trick == CUT_AND_ERROR)
            return -EBADMSG;
    }
    return fixture_footprint(&s->f, g, ticket, ret);
}

static void sleeper_make(struct sleeper *s, enum trick trick, uint64_t asleep_at, uint64_t laps)
{
    memset(s, 0, sizeof *s);
    fixture_make(&s->f, 4, 32, 0);
    s->f.max_blocks = 6;
    s->other = *s->f.r;
    s->trick = trick;
    s->asleep_at = asleep_at;
    s->laps = laps;
}

/* Ticket 0 comes and goes, so that a new generation's lap is free. */
static void first_ticket(struct sleeper *s)
{
    struct rfi_claim c;

    cr_assert(eq(int, rfi_ring_claim(s->f.r, 1, sleeping_footprint, s, &c), 1));
    rfi_ring_publish(s->f.r, 1, &c);
    fixture_release(&s->f, 1);
}

/* From here on, with everything else done: the chain of generation `epoch` that began at `first`. */
static void check_chain(struct sleeper *s, uint64_t epoch, uint64_t first, struct rfi_claim *c)
{
    struct rfi_generation g;
    uint64_t place, t;

    rfi_ring_generation(s->f.r, c->ticket, &g);
    cr_assert(eq(u64, g.epoch, epoch));
    cr_assert(eq(u64, c->generation.epoch, epoch));
    place = g.first_place;
    for (t = first; t < c->ticket; t++)
        place = reference_place(place, fixture_bytes(&s->f, epoch, t - first),
                                fixture_bytes(&s->f, epoch, t + 1 - first), s->f.r->arena_bytes, s->f.r->arena_bytes);
    cr_assert(eq(u64, c->data_offset, place % s->f.r->arena_bytes));
    cr_assert(eq(u64, c->footprint, fixture_bytes(&s->f, epoch, c->ticket - first)));
}

Test(sleepers, a_cut_between_look_and_claim_gives_the_new_content)
{
    struct sleeper s;
    struct rfi_claim c;

    for (uint64_t at = 0; at < 2; at++) {
        sleeper_make(&s, CUT, at, 0);
        if (at > 0)
            first_ticket(&s);
        cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 1));
        cr_assert(s.done);
        cr_assert(eq(u64, c.ticket, at));
        check_chain(&s, 1, at, &c);
        fixture_free(&s.f);
    }
}

/* The place is set already: the cut comes after the last look before the claim. */
Test(sleepers, a_cut_right_before_the_claim_is_noticed_after_it)
{
    struct sleeper s;
    struct rfi_claim c;

    sleeper_make(&s, CUT, 1, 0);
    first_ticket(&s);
    cr_assert(eq(int, rfi_ring_claim(&s.other, 2, fixture_footprint, &s.f, &c), 1));
    rfi_ring_unclaim(&s.other, 2, &c);
    cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 1));
    cr_assert(s.done);
    cr_assert(eq(u64, c.ticket, 1));
    check_chain(&s, 1, 1, &c);
    fixture_free(&s.f);
}

Test(sleepers, a_cut_in_progress_hides_its_tickets)
{
    struct sleeper s;
    struct rfi_claim c;
    struct rfi_generation g = {.epoch = 1, .end_ticket = UINT64_MAX};

    sleeper_make(&s, HOLD_ONLY, 1, 0);
    first_ticket(&s);
    cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 0));
    cr_assert(s.done);
    rfi_ring_append(&s.other, 1, &g);
    cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 1));
    cr_assert(eq(u64, c.ticket, 1));
    check_chain(&s, 1, 1, &c);
    fixture_free(&s.f);
}

Test(sleepers, an_error_from_a_record_that_was_replaced_is_forgotten)
{
    struct sleeper s;
    struct rfi_claim c;

    sleeper_make(&s, CUT_AND_ERROR, 1, 0);
    first_ticket(&s);
    cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 1));
    cr_assert(s.done);
    check_chain(&s, 1, 1, &c);
    fixture_free(&s.f);
}

Test(sleepers, one_that_slept_for_laps_changes_nothing, .timeout = 30)
{
    static const uint64_t laps[] = {1, 2, 3, 511, 512, 513, 1024};

    for (unsigned i = 0; i < sizeof laps / sizeof laps[0]; i++) {
        for (enum trick trick = LAPS; trick <= CUT_AND_LAPS; trick++) {
            struct sleeper s;
            struct rfi_claim c;
            uint64_t first = trick == LAPS ? 0 : 1;

            sleeper_make(&s, trick, 1, laps[i]);
            first_ticket(&s);
            cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 1));
            cr_assert(s.done);
            for (unsigned k = 0; k < 8; k++) { /* and it left nothing that others trip over */
                check_chain(&s, trick != LAPS, first, &c);
                rfi_ring_publish(s.f.r, 1, &c);
                fixture_release(&s.f, c.ticket + 1);
                cr_assert(eq(int, rfi_ring_claim(s.f.r, 1, sleeping_footprint, &s, &c), 1));
            }
            fixture_free(&s.f);
        }
    }
}

Test(blocked, says_so_only_for_the_generation_that_is, .timeout = 30)
{
    struct fixture f;
    struct rfi_claim c;

    fixture_make(&f, 4, 13, 0);
    for (uint64_t t = 0; t < 2; t++) {
        cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c), 1));
        rfi_ring_publish(f.r, 1, &c);
    }
    cr_assert(not(rfi_ring_blocked_by(f.r, 2, 0)), "nobody has looked");
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c), 0));
    cr_assert(rfi_ring_blocked_by(f.r, 2, 0));
    cr_assert(not(rfi_ring_blocked_by(f.r, 2, 1)));
    fixture_release(&f, 1);
    cr_assert(eq(u64, fixture_cut(&f, 1, UINT64_MAX), 2));
    cr_assert(not(rfi_ring_blocked_by(f.r, 2, 0)), "the note was about other content");
    cr_assert(eq(int, rfi_ring_claim(f.r, 1, five_blocks, NULL, &c), 1));
    fixture_free(&f);
}
