/* A small ring driven by one thread that plays all parts. Footprints are a formula of (epoch, batch), or
 * whatever a test's own callback says. */
#pragma once

#include "ring/ring_words.h"
#include "ring_world.h"

enum { BLOCK = 512 };

struct fixture {
    struct ring_world world;
    struct rfi_ring *r; /* of the world: worker, trainer and parent alike */
    uint64_t max_blocks; /* footprints are 1 .. max_blocks */
};

/* Generation 0 has epoch 0, batch 0, no end. */
void fixture_make(struct fixture *f, uint32_t depth, uint64_t blocks, uint64_t first_ticket);
void fixture_free(struct fixture *f);

uint64_t fixture_bytes(const struct fixture *f, uint64_t epoch, uint64_t batch);
int fixture_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret);
int fixture_claim(struct fixture *f, unsigned worker, struct rfi_claim *c);
void fixture_publish(struct fixture *f, unsigned worker, const struct rfi_claim *c);
/* Takes and gives back everything published, in order, up to `ticket`. */
void fixture_release(struct fixture *f, uint64_t released);
/* hold + append; the cut. */
uint64_t fixture_cut(struct fixture *f, uint64_t epoch, uint64_t end_after);
uint64_t fixture_word(const struct fixture *f, uint64_t ticket);

/* Independent of the ring: the virtual place after one that begins at `before`, block by block, in laps of `lap` bytes. */
uint64_t reference_place(uint64_t before, uint64_t before_bytes, uint64_t bytes, uint64_t lap, uint64_t arena_bytes);
