/* The move to a fresh arena. One thread plays all parts, the hung device included. */
#include "fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

enum { ARENA = 7, ALIVE = 1, DEAD = 2 };

#define BIT(n) (UINT64_C(1) << (n))

static void make(struct fixture *f, uint32_t depth)
{
    fixture_make(f, depth, 64, 0);
    f->max_blocks = 8;
}

static struct rfi_claim claim(struct fixture *f, unsigned worker)
{
    struct rfi_claim c;
    cr_assert(eq(int, fixture_claim(f, worker, &c), 1));
    rfi_ring_writers_begin(f->r, c.slot, worker);
    return c;
}

static void publish(struct fixture *f, unsigned worker, const struct rfi_claim *c)
{
    rfi_ring_writers_end(f->r, c->slot, worker);
    fixture_publish(f, worker, c);
}

Test(move, takes_what_is_not_published_to_the_new_arena)
{
    struct fixture f;
    struct rfi_claim c[4], d;
    uint64_t until, arena_of[4] = {0};

    make(&f, 4);
    for (int i = 0; i < 4; i++)
        c[i] = claim(&f, i % 2 ? DEAD : ALIVE);
    publish(&f, ALIVE, &c[0]);
    publish(&f, ALIVE, &c[2]);
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 1));
    cr_assert(eq(u64, until, 3), "ticket 2 still lies in the old arena");
    cr_assert(eq(int, rfi_ring_look(f.r, 0), RFI_TAKE_READY));
    cr_assert(eq(int, rfi_ring_look(f.r, 2), RFI_TAKE_READY), "and is still there");
    cr_assert(eq(u64, f.r->slots[2].data_offset, c[2].data_offset));
    for (int i = 0; i < 4; i++)
        cr_assert(eq(u64, atomic_load(&f.r->slots[i].writers), 0), "what they still write is elsewhere");
    for (int i = 1; i < 4; i += 2) {
        d = claim(&f, ALIVE);
        cr_assert(eq(u64, d.ticket, (uint64_t)i));
        cr_assert(eq(u32, rfi_arena_number(&d.generation), ARENA));
        cr_assert(eq(u64, d.generation.batch + d.ticket - d.generation.first_ticket, d.ticket), "the same content");
        if (i == 1)
            cr_assert(eq(u64, d.data_offset, 0), "from the start, although ticket 0 is not released");
        publish(&f, ALIVE, &d);
    }
    for (int i = 0; i < 4; i++)
        arena_of[i] = f.r->slots[i].arena;
    cr_assert(arena_of[0] == 0 && arena_of[1] == ARENA && arena_of[2] == 0 && arena_of[3] == ARENA);
    fixture_free(&f);
}

Test(move, waits_for_the_living)
{
    struct fixture f;
    struct rfi_claim alive, other, dead, c;
    uint64_t until;

    make(&f, 4);
    alive = claim(&f, ALIVE);
    dead = claim(&f, DEAD);
    other = claim(&f, 3);
    (void)dead;
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 0));
    cr_assert(eq(int, fixture_claim(&f, 4, &c), 0), "held");
    publish(&f, ALIVE, &alive);
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 0));
    rfi_ring_writers_end(f.r, other.slot, 3);
    rfi_ring_unclaim(f.r, 3, &other); /* found no room: FREE again, behind the parent's back */
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 1));
    cr_assert(eq(u64, until, 1));
    c = claim(&f, DEAD); /* and once more, for the same ticket */
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA + 1, &until), 1));
    cr_assert(eq(u64, until, 0), "no batch lies in the arena that is left now");
    for (uint64_t t = 1; t < 4; t++) {
        c = claim(&f, ALIVE);
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(u32, rfi_arena_number(&c.generation), ARENA + 1));
    }
    fixture_free(&f);
}

Test(move, can_be_given_up)
{
    struct fixture f;
    struct rfi_claim alive, dead, c;
    uint64_t until;

    make(&f, 4);
    alive = claim(&f, ALIVE);
    dead = claim(&f, DEAD);
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 0));
    rfi_ring_move_cancel(f.r); /* the reads have ended after all */
    cr_assert(eq(uint, rfi_ring_reclaim(f.r, DEAD, DEAD), 1));
    publish(&f, ALIVE, &alive);
    c = claim(&f, ALIVE);
    cr_assert(eq(u64, c.ticket, 1));
    cr_assert(eq(u64, c.data_offset, dead.data_offset));
    cr_assert(eq(u32, rfi_arena_number(&c.generation), 0));
    fixture_free(&f);
}

Test(move, keeps_the_contents_of_every_generation)
{
    struct fixture f;
    struct rfi_claim a, b, c;
    uint64_t until, records;

    make(&f, 6);
    a = claim(&f, ALIVE);
    publish(&f, ALIVE, &a);
    b = claim(&f, DEAD); /* 1 */
    cr_assert(eq(u64, fixture_cut(&f, 1, 2), 2)); /* epoch 1: 2, 3, END at 4 */
    records = f.r->sh->n_generations;
    cr_assert(eq(u64, f.r->sh->moves, 2)); /* the cut wrote records too */
    (void)b;
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 1));
    cr_assert(eq(u64, f.r->sh->n_generations, records + 1));
    cr_assert(eq(u64, f.r->sh->moves, 4));
    for (uint64_t t = 1; t < 5; t++) {
        c = claim(&f, ALIVE);
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(u64, c.generation.epoch, t < 2 ? 0 : 1));
        cr_assert(eq(u64, c.generation.batch + t - c.generation.first_ticket, t < 2 ? 1 : t - 2));
        cr_assert(eq(int, c.end, t >= 4));
        cr_assert(eq(u32, rfi_arena_number(&c.generation), ARENA));
        publish(&f, ALIVE, &c);
        fixture_release(&f, t + 1);
    }
    cr_assert(eq(u64, fixture_cut(&f, 2, UINT64_MAX), 5));
    c = claim(&f, ALIVE);
    cr_assert(eq(u64, c.generation.epoch, 2));
    cr_assert(eq(u32, rfi_arena_number(&c.generation), ARENA), "a later cut stays in the arena");
    fixture_free(&f);
}

Test(move, gives_way_to_a_cut_between_two_steps)
{
    struct fixture f;
    struct rfi_claim alive, c;
    uint64_t until;

    make(&f, 4);
    alive = claim(&f, ALIVE);
    claim(&f, DEAD);
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 0));
    cr_assert(eq(u64, fixture_cut(&f, 5, UINT64_MAX), 2), "the dead one's claim is still in use");
    publish(&f, ALIVE, &alive);
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 1));
    for (uint64_t t = 1; t < 4; t++) {
        c = claim(&f, ALIVE);
        cr_assert(eq(u64, c.ticket, t));
        cr_assert(eq(u64, c.generation.epoch, t < 2 ? 0 : 5));
        publish(&f, ALIVE, &c);
        fixture_release(&f, t + 1);
    }
    fixture_free(&f);
}

Test(move, batches_that_stayed_can_be_recycled_before_anyone_needs_their_places)
{
    struct fixture f;
    struct rfi_claim c[4], d;
    uint64_t until;

    make(&f, 4);
    for (int i = 0; i < 4; i++)
        c[i] = claim(&f, i == 0 ? DEAD : ALIVE);
    for (int i = 1; i < 4; i++)
        publish(&f, ALIVE, &c[i]);
    cr_assert(eq(int, rfi_ring_move(f.r, BIT(DEAD), BIT(DEAD), ARENA, &until), 1));
    d = claim(&f, ALIVE);
    cr_assert(eq(u64, d.ticket, 0));
    publish(&f, ALIVE, &d);
    fixture_release(&f, 4); /* the places of 1 to 3 were wiped, and no claim asks for them */
    for (uint64_t t = 4; t < 20; t++) {
        d = claim(&f, ALIVE);
        cr_assert(eq(u64, d.ticket, t));
        publish(&f, ALIVE, &d);
        fixture_release(&f, t + 1);
    }
    fixture_free(&f);
}

/* Anything in any order, against a plain list of who uses which bytes of which arena. */
struct play {
    struct fixture f;
    uint64_t random;
    uint32_t arena; /* where the ring is */
    uint64_t epoch[4096], batch[4096]; /* content of a ticket, as first claimed */
    bool known[4096];
    struct rfi_claim claims[4][8];
    unsigned n_claims[4];
    struct {
        uint64_t ticket, from, to;
        uint32_t arena;
        bool used;
    } regions[64];
    uint64_t next, released; /* trainer */
};

static uint64_t pick(struct play *p, uint64_t n)
{
    return ring_random(&p->random) % n;
}

/* A batch is in its region from the claim to the release. */
static void occupy(struct play *p, const struct rfi_claim *c)
{
    uint32_t arena = rfi_arena_number(&c->generation);
    int place = -1;

    cr_assert(eq(u32, arena, p->arena), "ticket %llu is in an arena that the ring has left",
              (unsigned long long)c->ticket);
    for (int i = 0; i < 64; i++) {
        if (!p->regions[i].used) {
            place = i;
            continue;
        }
        if (p->regions[i].ticket < p->released || p->regions[i].ticket == c->ticket) {
            p->regions[i].used = false;
            place = i;
            continue;
        }
        cr_assert(p->regions[i].arena != arena || c->data_offset >= p->regions[i].to ||
                      c->data_offset + c->footprint <= p->regions[i].from,
                  "tickets %llu and %llu overlap", (unsigned long long)c->ticket,
                  (unsigned long long)p->regions[i].ticket);
    }
    cr_assert(place >= 0);
    p->regions[place].used = true;
    p->regions[place].ticket = c->ticket;
    p->regions[place].from = c->data_offset;
    p->regions[place].to = c->data_offset + c->footprint;
    p->regions[place].arena = arena;
}

static bool play_claim(struct play *p, unsigned w)
{
    struct rfi_claim *c = &p->claims[w][p->n_claims[w]];
    uint64_t batch;

    if (p->n_claims[w] == 8 || fixture_claim(&p->f, w, c) != 1)
        return false;
    rfi_ring_writers_begin(p->f.r, c->slot, w);
    batch = c->generation.batch + c->ticket - c->generation.first_ticket;
    if (p->known[c->ticket])
        cr_assert(p->epoch[c->ticket] == c->generation.epoch && p->batch[c->ticket] == batch, "content of %llu",
                  (unsigned long long)c->ticket);
    p->known[c->ticket] = true;
    p->epoch[c->ticket] = c->generation.epoch;
    p->batch[c->ticket] = batch;
    occupy(p, c);
    p->n_claims[w]++;
    return true;
}

static void play_publish(struct play *p, unsigned w)
{
    unsigned i;
    if (!p->n_claims[w])
        return;
    i = (unsigned)pick(p, p->n_claims[w]);
    publish(&p->f, w, &p->claims[w][i]);
    p->claims[w][i] = p->claims[w][--p->n_claims[w]];
}

/* Death of w: drained, or its reads never end and the ring moves. */
static void play_death(struct play *p, unsigned w)
{
    uint64_t until;
    if (pick(p, 2)) {
        rfi_ring_reclaim(p->f.r, w, w);
        p->n_claims[w] = 0;
        return;
    }
    while (!rfi_ring_move(p->f.r, BIT(w), BIT(w), p->arena + 1, &until)) {
        unsigned alive = (unsigned)pick(p, 4);
        if (alive != w)
            play_publish(p, alive);
        else
            rfi_ring_move_cancel(p->f.r); /* a cut came in between, say */
    }
    p->arena++;
    p->n_claims[w] = 0;
    cr_assert(le(u64, until, rfi_ring_freed(p->f.r) + p->f.r->depth));
}

static void play_trainer(struct play *p)
{
    while (rfi_ring_look(p->f.r, p->next) == RFI_TAKE_READY && pick(p, 4))
        p->next++;
    if (p->next > p->released && pick(p, 2)) {
        p->released += 1 + pick(p, p->next - p->released);
        fixture_release(&p->f, p->released);
    }
}

/* Whatever happened before, the rest is delivered. */
static void play_on(struct play *p)
{
    for (unsigned idle = 0; p->next < 1500; idle++) {
        cr_assert(lt(uint, idle, 10), "ticket %llu never comes", (unsigned long long)p->next);
        for (unsigned w = 0; w < 4; w++) {
            play_claim(p, w);
            while (p->n_claims[w])
                play_publish(p, w);
        }
        while (rfi_ring_look(p->f.r, p->next) == RFI_TAKE_READY)
            p->next++, idle = 0;
        p->released = p->next;
        fixture_release(&p->f, p->released);
    }
}

Test(move, anything_in_any_order, .timeout = 60)
{
    static struct play p;

    for (uint64_t seed = 1; seed <= 150; seed++) {
        memset(&p, 0, sizeof p);
        p.random = seed;
        make(&p.f, 1 + (uint32_t)(seed % 7));
        p.f.max_blocks = 20;
        for (unsigned step = 0; p.next < 1000 && p.arena < 60000; step++) {
            cr_assert(lt(uint, step, 200000), "seed %llu: ticket %llu never comes", (unsigned long long)seed,
                      (unsigned long long)p.next);
            switch (pick(&p, 8)) {
            case 0:
            case 1:
            case 2:
                play_claim(&p, (unsigned)pick(&p, 4));
                break;
            case 3:
            case 4:
                play_publish(&p, (unsigned)pick(&p, 4));
                break;
            case 5:
            case 6:
                play_trainer(&p);
                break;
            default:
                if (pick(&p, 4) == 0)
                    play_death(&p, (unsigned)pick(&p, 4));
                break;
            }
        }
        play_on(&p);
        cr_assert(gt(u32, p.arena, 0));
        fixture_free(&p.f);
    }
}
