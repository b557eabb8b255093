#include "fixture.h"

void fixture_make(struct fixture *f, uint32_t depth, uint64_t blocks, uint64_t first_ticket)
{
    struct rfi_generation first = {.first_ticket = first_ticket, .end_ticket = UINT64_MAX};

    ring_world_make(&f->world, depth, blocks * BLOCK, &first);
    f->r = &f->world.ring;
    f->max_blocks = blocks;
}

void fixture_free(struct fixture *f)
{
    ring_world_free(&f->world);
}

uint64_t fixture_bytes(const struct fixture *f, uint64_t epoch, uint64_t batch)
{
    return BLOCK * (1 + ring_mix(epoch * 7919 + batch) % f->max_blocks);
}

int fixture_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    *ret = fixture_bytes(ctx, g->epoch, g->batch + ticket - g->first_ticket);
    return 0;
}

int fixture_claim(struct fixture *f, unsigned worker, struct rfi_claim *c)
{
    return rfi_ring_claim(f->r, worker, fixture_footprint, f, c);
}

void fixture_publish(struct fixture *f, unsigned worker, const struct rfi_claim *c)
{
    if (c->end)
        rfi_ring_publish_end(f->r, worker, c);
    else
        rfi_ring_publish(f->r, worker, c);
}

void fixture_release(struct fixture *f, uint64_t released)
{
    atomic_store(&f->r->tr->taken, released);
    rfi_ring_release(f->r, released);
}

uint64_t fixture_cut(struct fixture *f, uint64_t epoch, uint64_t end_after)
{
    uint64_t cut = rfi_ring_hold(f->r);
    struct rfi_generation g = {.epoch = epoch, .end_ticket = end_after == UINT64_MAX ? end_after : cut + end_after};
    rfi_ring_append(f->r, cut, &g);
    return cut;
}

uint64_t fixture_word(const struct fixture *f, uint64_t ticket)
{
    return atomic_load(&f->r->slots[ticket % f->r->depth].word);
}

uint64_t reference_place(uint64_t before, uint64_t before_bytes, uint64_t bytes, uint64_t lap, uint64_t arena_bytes)
{
    uint64_t at = before + before_bytes;
    while (at % arena_bytes + bytes > lap) /* would leave the lap: try one block further */
        at += BLOCK;
    return at;
}
