/* See budget.h. */
#include "coordinator/budget.h"

#include "base/bytes.h"

/* A burst of so many seconds may be saved up, and a debt of so many is remembered (a sweep claims a lot at once). */
#define SAVED 0.1
#define OWED 2.0

/* A worker that is at work for more than this part of its time has none left for another's. */
#define FULL 0.6
#define MUCH_PAUSED 0.25

/* A trainer that waits for so much of its time, or finds so much not ready, could do with more; one that waits for so much
 * asks for more than there is. */
#define WAITED_LEAST 0.005
#define MISSED_LEAST 0.01
#define WAITED_MOST 0.4

enum { WINDOWS_UNEVEN = 2, REST_FIRST = 8, CALM_FIRST = 8, CALM_MOST = 512, SOON = 8 };

bool rfi_budget_step(struct rfi_budget *b, double elapsed, double used)
{
    double saved = SAVED * b->cores, owed = -OWED * b->cores;
    if (b->cores <= 0)
        return false;
    b->account += elapsed * b->cores - used;
    b->account = b->account > saved ? saved : b->account < owed ? owed : b->account;
    b->paused = b->account < 0;
    return b->paused;
}

bool rfi_reach_step(struct rfi_reach *r, double waited, double missed)
{
    bool uneven = r->windows++ > 0 && (waited > WAITED_LEAST || missed > MISSED_LEAST) && waited < WAITED_MOST;
    r->uneven = uneven ? r->uneven + 1 : 0;
    if (r->uneven < WINDOWS_UNEVEN)
        return false;
    *r = (struct rfi_reach){0};
    return true;
}

void rfi_crew_init(struct rfi_crew *c, uint32_t least, uint32_t start, uint32_t most)
{
    *c = (struct rfi_crew){.least = least, .most = most, .calm_needed = CALM_FIRST, .since_less = UINT32_MAX};
    rfi_climb_init(&c->climb, least, start, most, REST_FIRST);
}

static uint32_t set(struct rfi_crew *c, uint32_t n, const char *why)
{
    rfi_climb_set(&c->climb, n);
    c->calm = 0;
    c->why = why;
    return n;
}

/* Fewer workers could have done what was done. */
static uint32_t enough(double busy)
{
    double n = busy / FULL;
    return (uint32_t)n + ((double)(uint32_t)n < n);
}

uint32_t rfi_crew_step(struct rfi_crew *c, const struct rfi_crew_facts *f)
{
    uint32_t now = rfi_climb_now(&c->climb), needed = (uint32_t)rfi_max(enough(f->busy), c->least);
    if (c->since_less < UINT32_MAX)
        c->since_less++;
    c->calm = !f->starved && needed < now ? c->calm + 1 : 0;
    if (f->paused >= MUCH_PAUSED && c->climb.value > c->least)
        return set(c, c->climb.value - 1, "the CPU budget does not last for more");
    if (f->starved && c->since_less <= SOON && c->climb.value < c->most) {
        c->calm_needed = (uint32_t)rfi_min(2 * c->calm_needed, CALM_MOST);
        c->since_less = UINT32_MAX;
        return set(c, c->climb.value + 1, "trainers had to wait");
    }
    if (c->calm >= c->calm_needed) {
        c->since_less = 0;
        return set(c, now - 1, "trainers do not wait, and the others have time left");
    }
    /* With a budget that is spent, more workers only spend it sooner. */
    c->climb.high = f->paused > 0 ? c->climb.value : c->most;
    c->climb.low = c->climb.value; /* fewer while trainers wait would gain nothing for them */
    c->why = "measured in turns";
    return rfi_climb_step(&c->climb, f->rate, f->starved);
}
