/* One ring in shared anonymous memory, for tests and benchmarks: what the segment layer lays out in a real
 * run. Mapped before any fork, so addresses are the same in every process. */
#pragma once

#include "ring/ring.h"

#include <stddef.h>

struct ring_world {
    void *memory;
    size_t bytes;
    unsigned char *arena;
    struct rfi_ring ring; /* copy it: one handle a thread */
};

/* The first generation begins at `first`: epoch, batch and end_ticket are taken from it. Ends the program
 * when memory is short. */
void ring_world_make(struct ring_world *w, uint32_t depth, uint64_t arena_bytes, const struct rfi_generation *first);
/* In laps of `lap` bytes of a larger arena, and `ahead` tickets at first. */
void ring_world_make_wide(struct ring_world *w, uint32_t depth, uint32_t ahead, uint64_t lap, uint64_t arena_bytes,
                          const struct rfi_generation *first);
void ring_world_free(struct ring_world *w);

/* A 64-bit mix, and a stream of random numbers from it. */
uint64_t ring_mix(uint64_t x);
uint64_t ring_random(uint64_t *state);
