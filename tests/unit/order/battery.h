/* Statistical tests of shuffles. A generator writes the whole order of n samples for a seed and epoch;
 * the battery gives one z score a test: near 0 for a fair shuffle (standard normal), far out for
 * anything else. */
#pragma once

#include <stdint.h>

typedef void (*generator_fn)(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t *out);

enum { BATTERY_MOST = 24 };

struct battery {
    unsigned n;
    struct {
        const char *name;
        uint64_t samples;
        double z;
    } tests[BATTERY_MOST];
};

/* Tests of tiny orders over many keys, and of large orders over few. */
void battery_small(generator_fn g, struct battery *ret);
void battery_large(generator_fn g, uint64_t n, struct battery *ret);
