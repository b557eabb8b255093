#include "ring_body.h"

#include "ring/ring_words.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void body_fail(struct body_shared *sh, const char *fmt, ...)
{
    int none = 0;

    if (atomic_compare_exchange_strong(&sh->failed, &none, 1)) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(sh->why, sizeof sh->why, fmt, ap);
        va_end(ap);
        atomic_store(&sh->failed, 2);
    }
    atomic_store(&sh->stop, 1);
}

/* Ends of generations: mostly never, else soon, so that END is met often. */
static uint64_t random_end(uint64_t *random, uint64_t first)
{
    uint64_t x = ring_random(random);
    return x % 4 != 0 ? UINT64_MAX : first + (x >> 8) % 40;
}

/* The log knows of a generation before any ticket of it can be claimed. */
static void log_generation(struct body_shared *sh, uint64_t cut, const struct rfi_generation *g)
{
    uint64_t n = atomic_load(&sh->n_log);
    struct body_cut *c = &sh->log[n % BODY_LOG];

    atomic_store(&c->first, cut);
    atomic_store(&c->epoch, g->epoch);
    atomic_store(&c->batch, g->batch);
    atomic_store(&c->end, g->end_ticket);
    atomic_store(&sh->n_log, n + 1);
}

void body_make(struct body *b, uint32_t depth, uint64_t lap_bytes, uint64_t seed)
{
    struct rfi_generation first = {.epoch = 1};

    *b = (struct body){.random = ring_mix(seed)};
    b->sh = mmap(NULL, sizeof(*b->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b->sh == MAP_FAILED) {
        perror("body_make: mmap");
        exit(1);
    }
    first.end_ticket = random_end(&b->random, 0);
    log_generation(b->sh, 0, &first);
    ring_world_make_wide(&b->world, depth, depth / 2, lap_bytes, 4 * lap_bytes, &first);
}

void body_free(struct body *b)
{
    ring_world_free(&b->world);
    munmap(b->sh, sizeof(*b->sh));
}

static void cut(struct body *b, bool may_cancel)
{
    struct rfi_ring *r = &b->world.ring;
    struct rfi_generation g = {0};
    uint64_t at = rfi_ring_hold(r);

    if (may_cancel && ring_random(&b->random) % 4 == 0) {
        rfi_ring_cancel(r);
        atomic_fetch_add(&b->sh->cancelled, 1);
        return;
    }
    g.epoch = atomic_load(&b->sh->n_log) + 1;
    g.batch = ring_random(&b->random) % 1000;
    g.end_ticket = random_end(&b->random, at);
    log_generation(b->sh, at, &g);
    if (ring_random(&b->random) % 4 == 0) { /* a ring of the library only grows: here it is any size */
        g.grown = (uint32_t)(ring_random(&b->random) % 4);
        atomic_store(&r->sh->ahead, 1 + (uint32_t)(ring_random(&b->random) % r->depth));
        rfi_cut_append(r, at, &g);
    } else {
        rfi_ring_append(r, at, &g);
    }
    atomic_fetch_add(&b->sh->cuts, 1);
    atomic_store(&b->sh->answer_cut, at);
}

void body_parent_step(struct body *b)
{
    struct rfi_ring *r = &b->world.ring;
    uint64_t asked = atomic_load(&b->sh->asked);

    if (asked != atomic_load(&b->sh->answered)) {
        cut(b, false);
        atomic_store(&b->sh->answered, asked);
    } else if (ring_random(&b->random) % 16 == 0) {
        cut(b, true);
    } else if (ring_random(&b->random) % 16 == 0) { /* the log need not know: the content is the same */
        atomic_fetch_add(&b->sh->grown, rfi_ring_grow(r, 1 + (uint32_t)(ring_random(&b->random) % r->depth)));
    }
    if (ring_random(&b->random) % 8 == 0) /* the parent may recycle too: through a look at nothing */
        (void)rfi_ring_claimable(&b->world.ring);
}

void body_parent_reclaim(struct body *b, unsigned worker)
{
    atomic_fetch_add(&b->sh->reclaimed, rfi_ring_reclaim(&b->world.ring, worker, worker));
}

static void print_counter(const char *name, uint64_t value)
{
    printf("  %-16s %llu\n", name, (unsigned long long)value);
}

/* Every word that matters, for whoever has to find out. */
static void dump(const struct body *b)
{
    const struct rfi_ring *r = &b->world.ring;

    printf("freed %" PRIx64 " released %" PRIu64 " taken %" PRIu64 " waiting %u sleepers %u cuts %" PRIu64 "\n",
           r->sh->freed, r->tr->released, r->tr->taken, r->tr->waiting, r->bell->sleepers, r->sh->cuts);
    for (uint32_t i = 0; i < r->depth; i++) {
        const struct rfi_slot_shared *s = &r->slots[i];
        printf("slot %u: ticket %" PRIu64 " state %d worker %u places %" PRIx64 " %" PRIx64 " writers %" PRIx64 "\n", i,
               rfi_word_ticket(s->word), (int)rfi_word_state(s->word), rfi_word_worker(s->word), s->place[0],
               s->place[1], s->writers);
    }
    for (uint64_t i = r->sh->n_generations, n = 0; i-- > 0 && n < 4; n++) {
        const struct rfi_generation *g = &r->generations[i & (r->generations_cap - 1)];
        printf("generation %" PRIu64 ": first %" PRIu64 " end %" PRIx64 " epoch %" PRIu64 " place %" PRIx64 "\n", i,
               g->first_ticket, g->end_ticket, g->epoch, g->first_place);
    }
}

int body_report(const struct body *b, const char *what, uint64_t worker_deaths, uint64_t trainer_deaths)
{
    const struct body_shared *sh = b->sh;
    bool all =
        sh->taken && sh->ends && sh->errors && sh->resets && sh->cuts && sh->cancelled && sh->grown && worker_deaths;

    printf("%s:\n", what);
    print_counter("published", sh->published);
    print_counter("taken", sh->taken);
    print_counter("ends", sh->ends);
    print_counter("errors", sh->errors);
    print_counter("resets", sh->resets);
    print_counter("cuts", sh->cuts);
    print_counter("cuts cancelled", sh->cancelled);
    print_counter("grown", sh->grown);
    print_counter("worker deaths", worker_deaths);
    print_counter("claims reclaimed", sh->reclaimed);
    print_counter("trainer deaths", trainer_deaths);
    if (sh->failed) {
        printf("FAILED: %s\n", sh->why);
        dump(b);
    } else if (!all) {
        printf("FAILED: something above never happened: run it for longer\n");
    }
    return sh->failed || !all;
}
