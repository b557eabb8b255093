/* See climb.h. More is kept when it gains 5 %, less when it loses 2 % at most, and in both cases no window may
 * say otherwise: where the noise is larger than that, nothing changes. */
#include "base/climb.h"

#include "base/bytes.h"

#define GAIN 1.05
#define LOSS 0.98
#define FAR 0.3

enum { PAUSE_FIRST = 32, PAUSE_MOST = 512, UNUSUAL_MOST = 4 };

void rfi_climb_init(struct rfi_climb *c, uint32_t low, uint32_t value, uint32_t high, uint32_t rest)
{
    *c = (struct rfi_climb){.low = low, .high = high, .value = value, .rest = rest, .pause = PAUSE_FIRST};
}

void rfi_climb_set(struct rfi_climb *c, uint32_t value)
{
    c->value = value;
    c->turn = 0;
    c->in_vain = 0;
    c->rest = c->pause = PAUSE_FIRST;
    c->usual = 0;
}

static uint32_t candidate(const struct rfi_climb *c)
{
    uint64_t value = c->downwards ? c->value / 2 : (uint64_t)c->value * 2;
    return (uint32_t)rfi_max(c->low, rfi_min(value, c->high));
}

/* Upwards and downwards in turn. A bound may lie on the wrong side of the value: then there is no choice there. */
static void begin(struct rfi_climb *c, double rate)
{
    for (int tries = 0; tries < 2; tries++, c->downwards = !c->downwards) {
        c->other = candidate(c);
        if (c->downwards ? c->other >= c->value : c->other <= c->value)
            continue;
        c->turn = 1;
        c->with = 0;
        c->without = c->best_without = rate;
        return;
    }
    c->rest = c->pause;
}

static bool better(const struct rfi_climb *c)
{
    double with = c->with / RFI_CLIMB_TURNS, without = c->without / (RFI_CLIMB_TURNS + 1);
    return c->downwards ? c->worst_with >= LOSS * c->best_without
                        : with >= GAIN * without && c->worst_with > c->best_without;
}

static void decide(struct rfi_climb *c)
{
    c->turn = 0;
    c->rest = 1;
    if (better(c)) {
        c->value = c->other;
        c->usual = 0;
        c->in_vain = 0;
        c->pause = PAUSE_FIRST;
        return;
    }
    c->downwards = !c->downwards;
    if (++c->in_vain < 2 && candidate(c) != c->value) /* the other direction, at once */
        return;
    c->in_vain = 0;
    c->rest = c->pause;
    c->pause = (uint32_t)rfi_min(2 * c->pause, PAUSE_MOST);
}

static void turn(struct rfi_climb *c, double rate)
{
    if (c->turn % 2) {
        c->worst_with = c->turn == 1 ? rate : rate < c->worst_with ? rate : c->worst_with;
        c->with += rate;
    } else {
        c->best_without = rate > c->best_without ? rate : c->best_without;
        c->without += rate;
    }
    if (c->turn++ == 2 * RFI_CLIMB_TURNS)
        decide(c);
}

/* When the rate stays far from what was usual the work has changed: it is time to try again. */
static void watch(struct rfi_climb *c, double rate)
{
    bool far = c->usual > 0 && (rate > (1 + FAR) * c->usual || rate < (1 - FAR) * c->usual);
    c->unusual = far ? c->unusual + 1 : 0;
    if (!far)
        c->usual = c->usual > 0 ? 0.875 * c->usual + 0.125 * rate : rate;
    if (c->unusual < UNUSUAL_MOST)
        return;
    c->unusual = 0;
    c->usual = 0;
    c->pause = PAUSE_FIRST;
    c->rest = 0;
}

uint32_t rfi_climb_step(struct rfi_climb *c, double rate, bool binding)
{
    if (!binding) {
        c->turn = 0; /* a trial that was under way has told nothing */
        c->rest -= c->rest > 0;
    } else if (c->turn) {
        turn(c, rate);
    } else {
        watch(c, rate);
        if (c->rest)
            c->rest--;
        else
            begin(c, rate);
    }
    return rfi_climb_now(c);
}
