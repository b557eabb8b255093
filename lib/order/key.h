/* Keys of permutations: 128 bits hashed from everything that tells one permutation from another, so
 * that any two seeds, epochs or purposes are unrelated (seed 42 epoch 1 is not seed 43 epoch 0).
 *
 * The bytes that are hashed, the purposes' numbers and the generator below are part of the contract
 * of the order: a change of any of them is a change of what users' runs deliver. */
#pragma once

#include <stdint.h>

enum rfi_purpose {
    RFI_KEY_FULL = 1, /* shuffle of the whole epoch or of a rank's members */
    RFI_KEY_BLOCKS = 2, /* order of the blocks */
    RFI_KEY_WINDOW = 3, /* samples inside a window of blocks */
    RFI_KEY_SPLIT = 4, /* which samples are train, val, … */
    RFI_KEY_HASH = 5, /* virtual partition of a sample */
    RFI_KEY_CACHE = 6, /* which samples the resident cache keeps */
};

/* Stands for "of all ranks" where a key has a rank. */
#define RFI_KEY_GLOBAL UINT64_MAX

struct rfi_key {
    uint64_t lo, hi;
};

struct rfi_key rfi_key_make(uint64_t seed, uint64_t epoch, enum rfi_purpose purpose, uint64_t rank, uint64_t part);

/* Random words of a key: xoshiro256++ (Blackman and Vigna). */
struct rfi_random {
    uint64_t s[4];
};

void rfi_random_init(struct rfi_random *r, struct rfi_key key);

static inline uint64_t rfi_rotl(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

static inline uint64_t rfi_random_next(struct rfi_random *r)
{
    uint64_t result = rfi_rotl(r->s[0] + r->s[3], 23) + r->s[0];
    uint64_t t = r->s[1] << 17;
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rfi_rotl(r->s[3], 45);
    return result;
}

/* Exactly uniform in [0, n), n >= 1: multiply and reject (Lemire). */
static inline uint64_t rfi_random_below(struct rfi_random *r, uint64_t n)
{
    unsigned __int128 m = (unsigned __int128)rfi_random_next(r) * n;
    if ((uint64_t)m < n) {
        uint64_t least = -n % n;
        while ((uint64_t)m < least)
            m = (unsigned __int128)rfi_random_next(r) * n;
    }
    return (uint64_t)(m >> 64);
}
