/* Finds the best value of one number by trying: the value now and another one in turn, several times, so that a change
 * from outside meets both alike. A pure state machine: the caller measures, and asks once a window. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Windows with the other value in one trial; those with the present one are one more. */
enum { RFI_CLIMB_TURNS = 3 };

struct rfi_climb {
    uint32_t low, high; /* the caller may move them at any time */
    uint32_t value; /* the best so far */
    uint32_t other; /* what is tried beside it */
    uint32_t turn; /* window of the trial that is under way, from 1 on; odd ones have the other value. 0: no trial */
    double with, without, worst_with, best_without; /* sums, lowest and highest, of the trial's rates */
    bool downwards; /* where the next trial goes */
    uint32_t in_vain; /* trials in a row that changed nothing */
    uint32_t rest, pause; /* windows until the next trial; and after the next ones in vain */
    double usual; /* rate while nothing is tried, smoothed; 0: not known */
    uint32_t unusual; /* windows in a row that were far from it */
};

/* `rest` windows pass before the first trial. */
void rfi_climb_init(struct rfi_climb *c, uint32_t low, uint32_t value, uint32_t high, uint32_t rest);

/* A window has ended in which the number was what rfi_climb_now says. `rate`: what was achieved in it. `binding`: it was
 * this number that limited the rate; if not, nothing can be learnt. Returns the number for the next window. */
uint32_t rfi_climb_step(struct rfi_climb *c, double rate, bool binding);

/* Another value, decided elsewhere. Ends a trial; the next one comes after a pause. */
void rfi_climb_set(struct rfi_climb *c, uint32_t value);

/* What is in effect now. */
static inline uint32_t rfi_climb_now(const struct rfi_climb *c)
{
    return c->turn % 2 ? c->other : c->value;
}
