/* When a dead worker's reads do not end: a hung device. Its io_uring is *retired*: nobody uses it until it has drained,
 * be it hours later; a spare one serves the next worker. Every ring into whose arena one of those reads may land
 * moves to a fresh arena (ring/move.c). The old one comes back when the queue is quiet and no batch in it is with the
 * trainer or waits for it. Arenas lie in one data object: the ranks' first, then the spares, which take memory only
 * when they are first used.
 *
 *   queue:  IN USE --not drained in time--> RETIRED --reaped and drained--> SPARE --> IN USE
 *   arena:  SPARE --ring moves in--> IN USE --ring moves out--> OLD --queues quiet, batches released--> SPARE */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "segment/room.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { POPULATE_BYTES = 16 << 20 }; /* a step, so that the loop goes on */
enum { WIDEN_ROOM = 64 << 20 }; /* of the memory left, what a ring that merely grows leaves to others */
enum { RETRY_NS = 1000000000 };

enum arena_state { ARENA_SPARE, ARENA_IN_USE, ARENA_OLD };

struct arena {
    enum arena_state state;
    uint32_t ring; /* last user */
    uint64_t queues; /* retired ones that may write into it */
    uint64_t until; /* no batch lies in it once the ring's `freed` is there */
    uint64_t populated;
};

struct move {
    uint64_t workers, queues; /* what drives the ring out: bits; 0: nothing */
    uint32_t arena, to;
    bool has_arena;
    uint64_t retry_ns;
};

struct retired {
    bool is;
    uint32_t worker;
    pid_t pid; /* not reaped yet; 0: it is */
};

struct rfi_spares {
    uint64_t queues; /* spare ones: bits */
    struct retired retired[RFI_MAX_WORKERS]; /* by queue */
    struct arena *arenas;
    struct move *moves; /* by rank */
};

static uint64_t bit(uint32_t i)
{
    return UINT64_C(1) << i;
}

static void count(struct rfi_coordinator *c)
{
    const struct rfi_spares *s = c->spares;
    uint32_t retired = 0, arenas = 0;
    for (uint32_t q = 0; q < c->run.config.queues; q++)
        retired += s->retired[q].is;
    for (uint32_t a = 0; a < c->run.config.arenas; a++)
        arenas += s->arenas[a].state == ARENA_SPARE;
    atomic_store_explicit(&c->run.coordinator->spare_queues, (uint32_t)__builtin_popcountll(s->queues),
                          memory_order_relaxed);
    atomic_store_explicit(&c->run.coordinator->spare_arenas, arenas, memory_order_relaxed);
    atomic_store_explicit(&c->run.coordinator->retired, retired, memory_order_relaxed);
}

int rfi_spares_open(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->run.config;
    struct rfi_spares *s = c->spares = calloc(1, sizeof *s);
    if (s)
        s->arenas = calloc(f->arenas, sizeof *s->arenas);
    if (s)
        s->moves = calloc(f->ranks, sizeof *s->moves);
    if (!s || !s->arenas || !s->moves)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    for (uint32_t q = f->workers; q < f->queues; q++)
        s->queues |= bit(q);
    for (uint32_t i = 0; i < f->ranks; i++) {
        s->arenas[i] = (struct arena){.state = ARENA_IN_USE, .ring = i, .populated = rfi_run_arena_at_first(f)};
        s->moves[i].arena = i;
    }
    count(c);
    return 0;
}

void rfi_spares_close(struct rfi_coordinator *c)
{
    if (!c->spares)
        return;
    free(c->spares->arenas);
    free(c->spares->moves);
    free(c->spares);
    c->spares = NULL;
}

/* Whether a read of this queue may still land in the ring's arena. Staged reads land elsewhere, and who would copy
 * from there is dead. */
static bool writes_into(const struct rfi_coordinator *c, uint32_t queue, uint32_t ring)
{
    for (uint32_t i = 0; i < c->run.config.queue_depth; i++) {
        const struct rfi_inflight_shared *e = rfi_run_inflight(&c->run, queue, i);
        if (atomic_load_explicit(&e->active, memory_order_acquire) && e->ring == ring && !e->staged)
            return true;
    }
    return false;
}

static void set_stuck(struct rfi_coordinator *c, uint32_t ring, enum rfi_stuck why)
{
    if (atomic_exchange_explicit(&c->run.ranks[ring].stuck, why, memory_order_release) != (uint32_t)why && why)
        rfi_log(RFI_LOG_ERROR,
                "rank %u cannot go on: reads into its memory do not end and %s. It goes on when the device answers; "
                "more --spares would bridge it",
                c->run.rings[ring].rank,
                why == RFI_STUCK_NO_QUEUE   ? "no spare io_uring is left"
                : why == RFI_STUCK_NO_ARENA ? "no spare arena is left"
                                            : "/dev/shm has no room for a spare arena");
}

/* No spare queue: rings that are not written into need not wait for it. */
static void no_queue(struct rfi_coordinator *c, uint32_t w, uint32_t queue)
{
    if (c->children[w].stuck)
        return;
    c->children[w].stuck = true;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (writes_into(c, queue, i))
            set_stuck(c, i, RFI_STUCK_NO_QUEUE);
        else
            rfi_ring_reclaim(&c->run.rings[i], w, queue);
}

bool rfi_spares_retire(struct rfi_coordinator *c, uint32_t w)
{
    struct rfi_spares *s = c->spares;
    struct rfi_child *child = &c->children[w];
    uint32_t queue = c->run.workers[w].queue;
    if (!s->queues) {
        no_queue(c, w, queue);
        return false;
    }
    uint32_t spare = (uint32_t)__builtin_ctzll(s->queues);
    s->queues &= ~bit(spare);
    s->retired[queue] =
        (struct retired){.is = true, .worker = w, .pid = child->state == RFI_WORKER_RUNNING ? child->pid : 0};
    rfi_log(RFI_LOG_WARNING, "the reads of dead worker %u do not end: its io_uring %u is retired, %u takes its place",
            w, queue, spare);
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        if (writes_into(c, queue, i)) {
            s->moves[i].workers |= bit(w);
            s->moves[i].queues |= bit(queue);
            s->moves[i].retry_ns = 0;
        } else {
            rfi_ring_reclaim(&c->run.rings[i], w, queue);
        }
    }
    c->run.workers[w].queue = spare;
    child->stuck = false;
    count(c);
    return true;
}

bool rfi_spares_moving(const struct rfi_coordinator *c, uint32_t w)
{
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (c->spares->moves[i].workers & bit(w))
            return true;
    return false;
}

bool rfi_spares_calm(const struct rfi_coordinator *c)
{
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (c->spares->moves[i].workers && !atomic_load_explicit(&c->run.ranks[i].stuck, memory_order_relaxed))
            return false;
    return true;
}

static void leave_arena_alone(struct rfi_spares *s, struct move *m)
{
    if (m->has_arena)
        s->arenas[m->to].state = ARENA_SPARE;
    m->has_arena = false;
}

/* Drained while its rings were still to move: they need not. */
static void need_not_move(struct rfi_coordinator *c, uint32_t ring, uint32_t worker, uint32_t queue)
{
    struct move *m = &c->spares->moves[ring];
    if (!(m->queues & bit(queue)))
        return;
    m->queues &= ~bit(queue);
    m->workers &= ~bit(worker);
    rfi_ring_move_cancel(&c->run.rings[ring]);
    rfi_ring_reclaim(&c->run.rings[ring], worker, queue);
    if (m->workers)
        return;
    leave_arena_alone(c->spares, m);
    set_stuck(c, ring, RFI_STUCK_NOT);
}

void rfi_spares_answered(struct rfi_coordinator *c, uint32_t w)
{
    if (!c->children[w].stuck)
        return;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (atomic_load_explicit(&c->run.ranks[i].stuck, memory_order_relaxed) == RFI_STUCK_NO_QUEUE)
            set_stuck(c, i, RFI_STUCK_NOT); /* another worker's, if there is one, says it again */
    for (uint32_t i = 0; i < c->run.config.workers; i++)
        c->children[i].stuck = false;
}

static void end_of_read(void *ctx, uint32_t tag, int32_t result)
{
    struct rfi_inflight_shared *table = ctx;
    (void)result;
    atomic_store_explicit(&table[tag].active, 0, memory_order_release);
}

/* Reaps, then drains, as long as it takes. */
static void step_retired(struct rfi_coordinator *c, uint32_t queue)
{
    struct retired *d = &c->spares->retired[queue];
    struct rfi_reader *reader = &c->readers[queue];
    if (d->pid && (waitpid(d->pid, NULL, WNOHANG) != 0))
        d->pid = 0; /* reaped, or no child of ours any more */
    if (d->pid || reader->ops->drain(reader, end_of_read, rfi_run_inflight(&c->run, queue, 0)) != 1)
        return;
    for (uint32_t e = 0; e < c->run.config.queue_depth; e++)
        atomic_store_explicit(&rfi_run_inflight(&c->run, queue, e)->active, 0, memory_order_release);
    d->is = false;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        need_not_move(c, i, d->worker, queue);
    for (uint32_t a = 0; a < c->run.config.arenas; a++)
        c->spares->arenas[a].queues &= ~bit(queue);
    c->spares->queues |= bit(queue);
    rfi_log(RFI_LOG_WARNING, "the reads of io_uring %u have ended: it is a spare again", queue);
    count(c);
}

static bool find_arena(struct rfi_coordinator *c, struct move *m)
{
    struct rfi_spares *s = c->spares;
    uint32_t best = UINT32_MAX;
    for (uint32_t a = 0; a < c->run.config.arenas && !m->has_arena; a++)
        if (s->arenas[a].state == ARENA_SPARE &&
            (best == UINT32_MAX || s->arenas[a].populated > s->arenas[best].populated))
            best = a;
    if (m->has_arena || best == UINT32_MAX)
        return m->has_arena;
    m->has_arena = true;
    m->to = best;
    s->arenas[best].state = ARENA_IN_USE;
    return true;
}

/* Its first `wanted` bytes. 1: all there; 0: a part, go on later; negative: no room. */
static int populate(struct rfi_coordinator *c, uint32_t ring, uint32_t arena, uint64_t wanted, struct rfi_error *err)
{
    struct arena *a = &c->spares->arenas[arena];
    const struct rfi_config_shared *f = &c->run.config;
    if (a->populated >= wanted)
        return 1;
    uint64_t at = rfi_run_arena_offset(f, arena), bytes = rfi_min(POPULATE_BYTES, wanted - a->populated);
    if (a->populated == 0)
        rfi_where_bind_arena(c, ring, arena);
    int rc = rfi_segment_populate(&c->run.segment, at + a->populated, bytes, err);
    if (rc < 0)
        return rc;
    a->populated += bytes;
    return a->populated >= wanted;
}

int rfi_spares_widen(struct rfi_coordinator *c, uint32_t ring, uint64_t bytes, struct rfi_error *err)
{
    const struct move *m = &c->spares->moves[ring];
    uint64_t there = c->spares->arenas[m->arena].populated;
    if (m->workers)
        return 0;
    int rc = there < bytes ? rfi_room_check(bytes - there, bytes - there + WIDEN_ROOM, err) : 0;
    if (rc == 0)
        rc = populate(c, ring, m->arena, bytes, err);
    if (rc > 0 && there < bytes)
        rfi_where_check_ring(c, ring, m->arena);
    return rc;
}

static void moved(struct rfi_coordinator *c, uint32_t ring, uint64_t until)
{
    struct rfi_spares *s = c->spares;
    struct move *m = &s->moves[ring];
    s->arenas[m->arena] = (struct arena){.state = ARENA_OLD,
                                         .ring = ring,
                                         .queues = m->queues,
                                         .until = until,
                                         .populated = s->arenas[m->arena].populated};
    s->arenas[m->to].ring = ring;
    rfi_log(RFI_LOG_WARNING, "rank %u goes on in arena %u: reads into arena %u do not end", c->run.rings[ring].rank,
            m->to, m->arena);
    *m = (struct move){.arena = m->to};
    rfi_where_check_ring(c, ring, m->arena);
    atomic_fetch_add_explicit(&c->run.coordinator->moved, 1, memory_order_relaxed);
    set_stuck(c, ring, RFI_STUCK_NOT);
    count(c);
}

static void step_move(struct rfi_coordinator *c, uint32_t ring)
{
    struct move *m = &c->spares->moves[ring];
    uint64_t until;
    if (!m->workers || rfi_now_ns() < m->retry_ns)
        return;
    if (!find_arena(c, m)) {
        set_stuck(c, ring, RFI_STUCK_NO_ARENA);
        return;
    }
    struct rfi_error err = {0};
    int rc = populate(c, ring, m->to, c->run.config.arena_stride, &err);
    if (rc < 0) {
        rfi_log(RFI_LOG_ERROR, "%s", err.text);
        leave_arena_alone(c->spares, m);
        m->retry_ns = rfi_now_ns() + RETRY_NS;
        set_stuck(c, ring, RFI_STUCK_NO_ROOM);
    } else if (rc > 0 && rfi_ring_move(&c->run.rings[ring], m->workers, m->queues, m->to, &until)) {
        moved(c, ring, until);
    }
}

static void step_old(struct rfi_coordinator *c, uint32_t arena)
{
    struct arena *a = &c->spares->arenas[arena];
    if (a->state != ARENA_OLD || a->queues || rfi_ring_freed(&c->run.rings[a->ring]) < a->until)
        return;
    a->state = ARENA_SPARE;
    count(c);
}

void rfi_spares_step(struct rfi_coordinator *c)
{
    for (uint32_t q = 0; q < c->run.config.queues; q++)
        if (c->spares->retired[q].is)
            step_retired(c, q);
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        step_move(c, i);
    for (uint32_t a = 0; a < c->run.config.arenas; a++)
        step_old(c, a);
}
