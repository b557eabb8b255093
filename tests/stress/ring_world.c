#include "ring_world.h"

#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, ALIGN = 512 };

static uint64_t place_of(uint64_t *at, uint64_t bytes)
{
    uint64_t offset = *at;
    *at = rfi_align_up(offset + bytes, PAGE);
    return offset;
}

void ring_world_make_wide(struct ring_world *w, uint32_t depth, uint32_t ahead, uint64_t lap, uint64_t arena_bytes,
                          const struct rfi_generation *first)
{
    uint32_t cap = 1;
    while (cap < depth + 2)
        cap *= 2;
    uint64_t end = 0;
    uint64_t head = place_of(&end, sizeof(struct rfi_ring_shared));
    uint64_t slots = place_of(&end, depth * sizeof(struct rfi_slot_shared));
    uint64_t generations = place_of(&end, cap * sizeof(struct rfi_generation));
    uint64_t trainer = place_of(&end, sizeof(struct rfi_trainer_shared));
    uint64_t bell = place_of(&end, sizeof(struct rfi_bell_shared));
    uint64_t arena = place_of(&end, arena_bytes);
    char *m = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED) {
        perror("ring_world_make: mmap");
        exit(1);
    }
    *w = (struct ring_world){
        .memory = m,
        .bytes = end,
        .arena = (unsigned char *)m + arena,
        .ring = {.sh = (void *)(m + head),
                 .slots = (void *)(m + slots),
                 .generations = (void *)(m + generations),
                 .tr = (void *)(m + trainer),
                 .bell = (void *)(m + bell),
                 .depth = depth,
                 .generations_cap = cap,
                 .arena_bytes = arena_bytes,
                 .lap_bytes = lap,
                 .ahead = ahead,
                 .align = ALIGN},
    };
    rfi_ring_init(&w->ring, first);
}

void ring_world_make(struct ring_world *w, uint32_t depth, uint64_t arena_bytes, const struct rfi_generation *first)
{
    ring_world_make_wide(w, depth, depth, arena_bytes, arena_bytes, first);
}

void ring_world_free(struct ring_world *w)
{
    munmap(w->memory, w->bytes);
}

uint64_t ring_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t ring_random(uint64_t *state)
{
    return ring_mix((*state)++);
}
