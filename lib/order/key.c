/* Hashing of keys. Words are laid out little-endian before they are hashed, so that every machine
 * computes the same order. */
#include "order/key.h"

#include <endian.h>
#include <xxhash.h>

struct rfi_key rfi_key_make(uint64_t seed, uint64_t epoch, enum rfi_purpose purpose, uint64_t rank, uint64_t part)
{
    uint64_t words[5] = {htole64(seed), htole64(epoch), htole64((uint64_t)purpose), htole64(rank), htole64(part)};
    XXH128_hash_t h = XXH3_128bits(words, sizeof words);
    return (struct rfi_key){.lo = h.low64, .hi = h.high64};
}

void rfi_random_init(struct rfi_random *r, struct rfi_key key)
{
    /* The state needs 256 bits and may not be all zero: hash the key once more for the other half. */
    uint64_t words[2] = {htole64(key.lo), htole64(key.hi)};
    XXH128_hash_t h = XXH3_128bits_withSeed(words, sizeof words, 1);
    r->s[0] = key.lo;
    r->s[1] = key.hi;
    r->s[2] = h.low64;
    r->s[3] = h.high64 | 1;
}
