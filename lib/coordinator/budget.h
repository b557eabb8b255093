/* CPU time that a server may use, as an account: it fills with time, up to a tenth of a second's worth, and is debited with
 * what was used. While it is overdrawn nobody claims. And how many workers are worth having. Pure functions. */
#pragma once

#include "base/climb.h"

#include <stdbool.h>
#include <stdint.h>

struct rfi_budget {
    double cores; /* that may be used; 0: any number */
    double account; /* seconds of CPU time */
    bool paused;
};

/* `elapsed` seconds went by in which the server used `used` seconds of CPU time. True: nobody claims now. */
bool rfi_budget_step(struct rfi_budget *b, double elapsed, double used);

/* Whether more should be read ahead for a trainer. */
struct rfi_reach {
    uint32_t windows, uneven; /* seen; of the last ones, in a row, those in which it waited now and then */
};

/* `waited`: part of a window that the trainer spent waiting; `missed`: part of its samples that were not ready when asked for.
 * Twice in a row some (0.5 %, 1 %), and there is time left in the mean which a longer way ahead could use: true, and it begins
 * anew. Who waits for 40 % of the time asks for more than can be read. The first window is the start, or the first one after a
 * growth, and says nothing. */
bool rfi_reach_step(struct rfi_reach *r, double waited, double missed);

/* What was measured in a window. */
struct rfi_crew_facts {
    double rate; /* bytes a second */
    double busy; /* workers that were at work, in the mean */
    double paused; /* part of the window in which the budget let nobody claim */
    bool starved; /* trainers had to wait for more than a little of what they got */
};

struct rfi_crew {
    struct rfi_climb climb; /* number of active workers */
    uint32_t least, most; /* bounds: of the caller */
    uint32_t calm; /* windows in a row with work for fewer, and no trainer waiting */
    uint32_t calm_needed; /* for one less */
    uint32_t since_less; /* windows since the last time that one was sent to rest */
    const char *why; /* of the last change */
};

void rfi_crew_init(struct rfi_crew *c, uint32_t least, uint32_t start, uint32_t most);

/* Once a window; how many workers are to be active. */
uint32_t rfi_crew_step(struct rfi_crew *c, const struct rfi_crew_facts *f);
