/* How the run reads (reader/choose.h): found out at birth from a few of the first reads, and again while it runs from
 * what the workers count. One word in the coordinator's block tells them. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "reader/choose.h"
#include "segment/room.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOKS = 64, INTERVAL_NS = 500000000 };
#define TRIAL_EVERY_NS UINT64_C(10000000000)

struct rfi_engine {
    struct rfi_choice choice;
    uint64_t looked_ns;
    struct rfi_trial *trial; /* under way; NULL: none */
    uint64_t tried_ns; /* when the last one began; 0: none has */
    bool again; /* what is read how has changed since */
    uint64_t hot, cold, bytes; /* counted by all workers at the last look; bytes: when the choice changed */
};

static uint64_t page_cache_room(void)
{
    return rfi_min(rfi_room_available(), rfi_room_cgroup());
}

/* Whether sample `id` is in memory, as far as that can be told. */
static void look_at(struct rfi_coordinator *c, uint64_t id, struct rfi_choice *choice)
{
    struct rfi_extent e;
    char path[4096];
    if (rfi_dataset_extent(c->dataset, id, &e) < 0 || e.bytes == 0 ||
        rfi_dataset_path(c->dataset, e.file, path, sizeof path) < 0)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) /* the workers will say why */
        return;
    int there = rfi_reader_resident(fd, e.offset, (uint32_t)rfi_min(e.bytes, UINT32_MAX));
    close(fd);
    choice->hot += there > 0;
    choice->cold += there == 0;
}

/* The first samples that the first rank here will get. */
static void look_at_first(struct rfi_coordinator *c, struct rfi_choice *choice)
{
    const struct rfi_position *at = &rfi_state_last(&c->plan.birth)->at[c->plan.config.first_rank];
    struct rfi_error err;
    struct rfi_view *view;
    uint64_t ids[LOOKS];
    if (rfi_view_create(c->order, &view, &err) < 0) /* it will be met again, and told */
        return;
    rfi_view_seek(view, at->epoch, c->plan.config.first_rank);
    uint64_t n = rfi_view_fill(view, at->batch * c->plan.config.batch, LOOKS, ids);
    for (uint64_t i = 0; i < n; i++)
        look_at(c, ids[i], choice);
    rfi_view_destroy(view);
}

static uint32_t pinned_bits(const struct rfi_coordinator *c)
{
    bool copies = c->o->engine != RF_ENGINE_AUTO || c->o->direct == RF_ON, direct = c->o->direct != RF_AUTO;
    return (copies ? RFI_READ_COPIES : 0) | (direct || c->o->engine == RF_ENGINE_NULL ? RFI_READ_DIRECT : 0);
}

static void tell(struct rfi_coordinator *c)
{
    /* Relaxed: workers may hear of it a round later. */
    atomic_store_explicit(&c->run.coordinator->reading, c->engine->choice.now, memory_order_relaxed);
    atomic_store_explicit(&c->run.coordinator->reading_why, c->engine->choice.why, memory_order_relaxed);
}

int rfi_engine_open(struct rfi_coordinator *c)
{
    rf_dataset_info info;
    struct rfi_engine *e = c->engine = calloc(1, sizeof *e);
    if (!e)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    rfi_dataset_info(c->o->dataset, &info);
    struct rfi_choice *choice = &e->choice;
    *choice = (struct rfi_choice){.pinned = pinned_bits(c),
                                  .direct_possible = c->plan.direct_possible,
                                  .dataset_bytes = info.bytes,
                                  .free_bytes = page_cache_room()};
    if (c->o->engine == RF_ENGINE_MAPPED || c->o->engine == RF_ENGINE_NULL)
        choice->now |= RFI_READ_COPIES;
    if (c->run.config.direct)
        choice->now |= RFI_READ_DIRECT;
    if (choice->pinned != (RFI_READ_COPIES | RFI_READ_DIRECT)) {
        look_at_first(c, choice);
        choice->hot *= RFI_CHOICE_READS; /* few samples may be all there are: their share counts */
        choice->cold *= RFI_CHOICE_READS;
        choice->now = rfi_choose(choice);
    }
    choice->hot = choice->cold = 0;
    tell(c);
    return 0;
}

void rfi_engine_close(struct rfi_coordinator *c)
{
    if (c->engine)
        rfi_trial_close(c, c->engine->trial);
    free(c->engine);
    c->engine = NULL;
}

void rfi_engine_abandon(const struct rfi_coordinator *c)
{
    if (c->engine->trial)
        rfi_trial_abandon(c->engine->trial);
}

static void say(const struct rfi_coordinator *c, uint32_t before)
{
    const struct rfi_choice *choice = &c->engine->choice;
    char was[RFI_ENGINE_NAME], is[RFI_ENGINE_NAME];
    rfi_run_engine_name(&c->run.config, before, was);
    rfi_run_engine_name(&c->run.config, choice->now, is);
    if (choice->why == RFI_WHY_DIRECT_SLOWER)
        rfi_log(RFI_LOG_INFO,
                "reading with %s instead of %s: a read takes %" PRIu64 " us with O_DIRECT and %" PRIu64 " us without",
                is, was, choice->direct_ns / 1000, choice->buffered_ns / 1000);
    else
        rfi_log(RFI_LOG_INFO, "reading with %s instead of %s: %u %% of the reads found their data in memory%s", is, was,
                rfi_choice_hot_percent(choice), choice->spilled ? ", which does not hold the dataset" : "");
}

/* Compared only where the answer would change something: when the run reads with O_DIRECT by its own choice, or would.
 * At the start that is once the first batch was published, so that nothing of it comes before. */
static bool worth_a_trial(const struct rfi_coordinator *c, uint64_t now, uint64_t bytes)
{
    const struct rfi_engine *e = c->engine;
    bool open = !(e->choice.pinned & RFI_READ_DIRECT) && e->choice.direct_possible && !c->stopping;
    bool due = !e->tried_ns || (e->again && now - e->tried_ns >= TRIAL_EVERY_NS);
    return open && due && bytes && c->run.config.engine == RF_ENGINE_URING &&
           (e->choice.now & RFI_READ_DIRECT || e->choice.why == RFI_WHY_DIRECT_SLOWER);
}

static void try_both(struct rfi_coordinator *c, uint64_t now, uint64_t bytes)
{
    struct rfi_engine *e = c->engine;
    if (!e->trial && worth_a_trial(c, now, bytes)) {
        e->tried_ns = now;
        e->again = false;
        e->trial = rfi_trial_open(c);
        return;
    }
    if (!e->trial || rfi_trial_step(c, e->trial))
        return;
    uint64_t direct = rfi_trial_median_ns(e->trial, true), buffered = rfi_trial_median_ns(e->trial, false);
    rfi_trial_close(c, e->trial);
    e->trial = NULL;
    if (!direct || !buffered)
        return;
    e->choice.direct_ns = direct;
    e->choice.buffered_ns = buffered;
    atomic_store_explicit(&c->run.coordinator->direct_ns, direct, memory_order_relaxed);
    atomic_store_explicit(&c->run.coordinator->buffered_ns, buffered, memory_order_relaxed);
    rfi_log(RFI_LOG_INFO, "a read takes %" PRIu64 " us with O_DIRECT and %" PRIu64 " us through the page cache",
            direct / 1000, buffered / 1000);
}

void rfi_engine_step(struct rfi_coordinator *c)
{
    struct rfi_engine *e = c->engine;
    struct rfi_choice *choice = &e->choice;
    uint64_t now = rfi_now_ns(), hot = 0, cold = 0, bytes = 0;
    uint32_t before = choice->now;
    for (uint32_t w = 0; w < c->run.config.workers; w++) {
        hot += atomic_load_explicit(&c->run.workers[w].hot, memory_order_relaxed);
        cold += atomic_load_explicit(&c->run.workers[w].cold, memory_order_relaxed);
        bytes += atomic_load_explicit(&c->run.workers[w].bytes, memory_order_relaxed);
    }
    try_both(c, now, bytes);
    if (now - e->looked_ns < INTERVAL_NS)
        return;
    e->looked_ns = now;
    choice->hot = hot - e->hot;
    choice->cold = cold - e->cold;
    choice->bytes = bytes - e->bytes;
    choice->free_bytes = page_cache_room();
    choice->now = rfi_choose(choice);
    if (choice->hot + choice->cold >= RFI_CHOICE_READS) { /* else they are counted on */
        e->hot = hot;
        e->cold = cold;
    }
    atomic_store_explicit(&c->run.coordinator->reading_why, choice->why, memory_order_relaxed);
    if (choice->now == before)
        return;
    e->again = true;
    e->bytes = bytes;
    tell(c);
    say(c, before);
}
