/* Taking and giving back batches. `next` on a ready batch makes no syscall and copies nothing: two loads,
 * a few pointers, the statistics in our own page. */
#include "attach/trainer.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "run/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* Waits are cut, so that the parent's end is seen in time even if nobody wakes us. */
enum { SLICE_NS = 20000000 };

static void add(_Atomic uint64_t *word, uint64_t n)
{
    /* Only this process writes the word: no read-modify-write is needed. */
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n, memory_order_relaxed);
}

static void look_up_generation(struct rf_trainer *t)
{
    uint64_t n = atomic_load_explicit(&t->ring.sh->cuts, memory_order_acquire);
    struct rfi_generation g;
    if (n == t->cuts)
        return;
    rfi_ring_generation_settled(&t->ring, UINT64_MAX >> 16, &g);
    t->cuts = n;
    t->end_ticket = g.end_ticket;
}

int rfi_trainer_over(struct rf_trainer *t)
{
    long long pid = (long long)t->run.segment.owner_pid;
    const char *name = t->run.segment.name;
    switch (atomic_load_explicit(&t->run.coordinator->state, memory_order_acquire)) {
    case RFI_RUN_STOPPING:
        return rfi_trainer_fail(t, EPIPE, "run '%s' was stopped: its server (process %lld) was told to end", name, pid);
    case RFI_RUN_FAILED:
        return rfi_trainer_fail(t, EPIPE, "run '%s' (process %lld) failed: %.*s", name, pid,
                                (int)sizeof t->run.coordinator->failure - 1, t->run.coordinator->failure);
    case RFI_RUN_DONE:
        return rfi_trainer_fail(t, EPIPE, "run '%s' is over: every rank has had its last batch", name);
    default:
        return rfi_trainer_fail(
            t, EPIPE,
            "the server of run '%s' (process %lld) died. Start it again; batches already taken stay "
            "valid until released",
            name, pid);
    }
}

static bool run_is_over(const struct rf_trainer *t)
{
    uint32_t state = atomic_load_explicit(&t->run.coordinator->state, memory_order_relaxed);
    return state > RFI_RUN_READY || rfi_run_orphaned(&t->run);
}

/* The rank's end may come with the run's: in a gated run the last rank to finish ends it for all. */
static bool at_end(struct rf_trainer *t)
{
    look_up_generation(t);
    return t->next >= t->end_ticket;
}

/* The ring stops at the end of its epoch until the other ranks of this server are through theirs. */
static bool at_gate(const struct rf_trainer *t)
{
    struct rfi_generation g;
    if (!t->run.config.gated)
        return false;
    rfi_ring_generation(&t->ring, UINT64_MAX >> 16, &g);
    return g.stop_ticket && t->next >= g.stop_ticket;
}

/* Batches given back by all ranks here: while they come on, a wait at the gate is no fault of anybody. */
static uint64_t progress(const struct rf_trainer *t)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->run.config.ranks; i++)
        sum += atomic_load_explicit(&t->run.rings[i].tr->released, memory_order_relaxed);
    return sum;
}

/* The rank of this server that is furthest behind. */
static int timed_out_at_gate(struct rf_trainer *t, int timeout_ms)
{
    uint32_t who = t->ring.rank;
    uint64_t least = UINT64_MAX;
    int pid = 0;
    for (uint32_t i = 0; i < t->run.config.ranks; i++) {
        struct rfi_generation g;
        rfi_ring_generation(&t->run.rings[i], UINT64_MAX >> 16, &g);
        uint64_t released = atomic_load_explicit(&t->run.rings[i].tr->released, memory_order_relaxed);
        if (i == t->local || !g.stop_ticket || released >= g.stop_ticket || g.epoch >= least)
            continue;
        least = g.epoch;
        who = t->run.rings[i].rank;
        pid = atomic_load_explicit(&t->run.ranks[i].pid, memory_order_relaxed);
    }
    return rfi_trainer_fail(
        t, ETIMEDOUT,
        "rank %u is at the end of its epoch, and for %d ms no rank has given a batch back: it waits "
        "for rank %u (process %d; 0: nobody is attached). The next epoch begins when all are through",
        t->ring.rank, timeout_ms, who, pid);
}

/* The oldest read for the ticket that is waited for, whichever io_uring has it. */
static void find_read(const struct rf_trainer *t, struct rfi_file *ret_file, uint64_t *ret_offset)
{
    const struct rfi_config_shared *c = &t->run.config;
    uint64_t oldest = UINT64_MAX;
    *ret_file = (struct rfi_file){.path = "no file yet"};
    *ret_offset = 0;
    for (uint64_t i = 0; i < (uint64_t)c->queues * c->queue_depth; i++) {
        struct rfi_inflight_shared *e = &t->run.inflight[i];
        uint32_t file = *(volatile uint32_t *)&e->file; /* one look: what is checked is what is used */
        if (!atomic_load_explicit(&e->active, memory_order_acquire) || e->ring != t->local || e->ticket != t->next ||
            e->submitted_ns >= oldest || file >= rfi_dataset_n_files(t->dataset))
            continue;
        oldest = e->submitted_ns;
        *ret_offset = e->offset;
        rfi_dataset_file(t->dataset, file, ret_file);
    }
}

/* The worker that has claimed the ticket that is waited for; -1: none has. */
static int claimant(const struct rf_trainer *t)
{
    uint64_t word = atomic_load_explicit(&t->ring.slots[t->next % t->ring.depth].word, memory_order_acquire);
    unsigned w = rfi_word_worker(word);
    return rfi_word_ticket(word) == t->next && rfi_word_state(word) == RFI_CLAIMED && w < t->run.config.workers ? (int)w
                                                                                                                : -1;
}

/* Who is being waited for, in words. */
static int timed_out(struct rf_trainer *t, int timeout_ms)
{
    int w = claimant(t);
    uint32_t rank = t->ring.rank;
    const char *name = t->run.segment.name;
    struct rfi_file file;
    uint64_t offset;
    if (w < 0)
        return rfi_trainer_fail(t, ETIMEDOUT,
                                "no batch for rank %u within %d ms: no worker has claimed ticket %" PRIu64
                                " yet (%u workers live). Look at `ringfeed stat %s`",
                                rank, timeout_ms, t->next,
                                atomic_load_explicit(&t->run.coordinator->live_workers, memory_order_relaxed), name);
    find_read(t, &file, &offset);
    int pid = (int)atomic_load_explicit(&t->run.workers[w].pid, memory_order_relaxed);
    if (pid == 0)
        return rfi_trainer_fail(t, ETIMEDOUT,
                                "no batch for rank %u within %d ms: worker %d died reading ticket %" PRIu64
                                ", and its read of %s at offset %" PRIu64
                                " has not ended. Is the device slow or hung? Look at `ringfeed stat %s`",
                                rank, timeout_ms, w, t->next, file.path, offset, name);
    return rfi_trainer_fail(t, ETIMEDOUT,
                            "no batch for rank %u within %d ms: worker %d (process %d) is reading ticket %" PRIu64
                            ", %s at offset %" PRIu64
                            ". Is the device slow or hung? Look at `ringfeed stat %s`, or raise the time-out",
                            rank, timeout_ms, w, pid, t->next, file.path, offset, name);
}

/* A device hangs and nothing is left to go on with: waiting is of no use. What others read may still come. */
static bool is_stuck(const struct rf_trainer *t)
{
    if (!atomic_load_explicit(&t->run.ranks[t->local].stuck, memory_order_acquire))
        return false;
    int w = claimant(t);
    return w >= 0 && atomic_load_explicit(&t->run.workers[w].state, memory_order_acquire) == RFI_WORKER_DRAINING;
}

static int stuck(struct rf_trainer *t)
{
    struct rfi_file file;
    uint64_t offset;
    enum rfi_stuck why = (enum rfi_stuck)atomic_load_explicit(&t->run.ranks[t->local].stuck, memory_order_relaxed);
    find_read(t, &file, &offset);
    return rfi_trainer_fail(
        t, ENODEV,
        "rank %u cannot go on: the read of %s at offset %" PRIu64 " for ticket %" PRIu64
        " does not end, and %s. Call again when the device answers, or start run '%s' with more --spares",
        t->ring.rank, file.path, offset, t->next,
        why == RFI_STUCK_NO_QUEUE   ? "no spare io_uring is left"
        : why == RFI_STUCK_NO_ARENA ? "no spare arena is left"
                                    : "/dev/shm has no room for a spare arena",
        t->run.segment.name);
}

static int failed_batch(struct rf_trainer *t, const struct rfi_slot_shared *slot)
{
    struct rfi_file file = {.path = "?"};
    int error = slot->error > 0 && slot->error < 4096 ? slot->error : EIO;
    if (slot->error_file < rfi_dataset_n_files(t->dataset))
        rfi_dataset_file(t->dataset, slot->error_file, &file);
    const char *why = error == ENODATA  ? "the file ends before the index says so"
                      : error == EILSEQ ? "its bytes do not match their checksum in the index"
                      : error == ESTALE ? "the file is shorter than when it was indexed"
                                        : strerror(error);
    return rfi_trainer_fail(t, EIO,
                            "cannot read batch %" PRIu64 " of epoch %" PRIu64 " for rank %u: sample %" PRIu64
                            ", %s at offset %" PRIu64 ": %s. Repair the file or index the dataset again",
                            slot->batch, slot->epoch, t->ring.rank, slot->error_sample, file.path, slot->error_offset,
                            why);
}

/* A held batch blocks the way for good: the ring has no slot, or no room for the next batch, until the
 * caller itself gives something back. */
static bool only_we_can_help(const struct rf_trainer *t)
{
    if (t->next == t->released)
        return false;
    if (t->next - t->released >= rfi_ring_ahead(&t->ring))
        return true;
    return rfi_ring_blocked_by(&t->ring, t->next, t->released);
}

static int deadlock(struct rf_trainer *t)
{
    char held[160] = "";
    size_t n = 0;
    for (uint64_t k = t->released; k < t->next && n < sizeof held - 32; k++)
        if (!t->given_back[k % t->ring.depth])
            n += (size_t)snprintf(held + n, sizeof held - n, "%s%" PRIu64, n ? ", " : "", k);
    return rfi_trainer_fail(
        t, EDEADLK,
        "rank %u holds the batches with tickets %s and the next one has no room until one is released. "
        "Release them in order, or start the run with more --prefetch or --ring-bytes",
        t->ring.rank, held);
}

/* Waits for ticket t->next: READY, ERROR or END, or an error. */
static int wait_ready(struct rf_trainer *t, int timeout_ms, enum rfi_take *ret)
{
    uint64_t now = rfi_now_ns(), until = now + (uint64_t)timeout_ms * 1000000u, seen = 0;
    rfi_bell_ring(t->ring.bell); /* we are about to wait: nobody may sleep */
    for (;; now = rfi_now_ns()) {
        *ret = rfi_ring_look(&t->ring, t->next);
        if (run_is_over(t)) {
            *ret = RFI_TAKE_END;
            return at_end(t) ? 0 : rfi_trainer_over(t);
        }
        if (*ret != RFI_TAKE_NOT_YET)
            return 0;
        if (rfi_trainer_check(t) < 0)
            return t->err.code;
        if ((t->interrupt && *t->interrupt) || (t->on_wait && t->on_wait(t->on_wait_ctx)))
            return rfi_trainer_fail(t, EINTR, "interrupted while waiting for a batch of rank %u", t->ring.rank);
        if (only_we_can_help(t))
            return deadlock(t);
        if (at_gate(t) && progress(t) != seen) {
            seen = progress(t);
            until = now + (uint64_t)timeout_ms * 1000000u;
        }
        if (is_stuck(t))
            return stuck(t);
        if (now >= until)
            return at_gate(t) ? timed_out_at_gate(t, timeout_ms) : timed_out(t, timeout_ms);
        rfi_ring_wait(&t->ring, t->next, rfi_min(until - now, SLICE_NS));
    }
}

static void count_wait(struct rf_trainer *t, bool hit, uint64_t ns, uint32_t samples)
{
    struct rfi_trainer_shared *tr = t->ring.tr;
    add(hit ? &tr->hits : &tr->misses, samples);
    add(&tr->wait_ns, ns);
    if (ns > atomic_load_explicit(&tr->wait_max_ns, memory_order_relaxed))
        atomic_store_explicit(&tr->wait_max_ns, ns, memory_order_relaxed);
    add(&tr->wait_histogram[rfi_wait_bucket(ns)], 1);
}

/* Fills the caller's struct from the slot; nothing of it is believed beyond the mapping. */
static int describe(struct rf_trainer *t, const struct rfi_slot_shared *slot, rf_batch *b)
{
    const struct rfi_config_shared *c = &t->run.config;
    struct rfi_arrays a;
    if (slot->n_samples > c->batch || slot->footprint > c->arena_bytes ||
        slot->data_offset > c->arena_bytes - slot->footprint || slot->arena >= c->arenas)
        return rfi_trainer_fail(t, EPROTO, "the descriptor of ticket %" PRIu64 " of rank %u is damaged. Stop run '%s'",
                                t->next, t->ring.rank, t->run.segment.name);
    /* References lead out of the arena, so that an address inside a mapping of the arena alone is of no use. */
    uint64_t to_end = slot->footprint;
    unsigned char *arena = rfi_run_arena(&t->run, (uint32_t)slot->arena);
    if (slot->resident)
        to_end = c->cache_first + c->cache_bytes - rfi_run_arena_offset(c, (uint32_t)slot->arena) - slot->data_offset;
    else
        arena = slot->arena == t->local ? t->arena : rfi_trainer_arena(t, (uint32_t)slot->arena);
    if (!arena)
        return t->err.code;
    rfi_run_arrays(&t->run, t->local, (uint32_t)(t->next % c->depth), &a);
    *b = (rf_batch){.ticket = t->next,
                    .epoch = slot->epoch,
                    .batch = slot->batch,
                    .n_samples = slot->n_samples,
                    .n_fields = c->n_fields,
                    .fixed_bytes = c->fixed_bytes,
                    .data = arena + slot->data_offset,
                    .data_bytes = to_end,
                    .resident = slot->resident != 0,
                    .offsets = a.offsets,
                    .lengths = a.lengths,
                    .ids = a.ids,
                    .labels = a.labels,
                    .flags = a.flags,
                    .field_offsets = a.field_offsets,
                    .field_lengths = a.field_lengths,
                    .last = slot->last != 0,
                    .skipped = slot->skipped};
    return 0;
}

/* The ticket is ours now. */
static void take(struct rf_trainer *t, uint64_t epoch)
{
    t->given_back[t->next % t->ring.depth] = false;
    t->next++;
    t->epoch = epoch;
    atomic_store_explicit(&t->ring.tr->taken, t->next, memory_order_relaxed);
}

/* Releases take effect in order: up to the first ticket that is still held. */
static void release_in_order(struct rf_trainer *t)
{
    uint64_t from = t->released;
    while (t->released < t->next && t->given_back[t->released % t->ring.depth])
        t->released++;
    if (t->released != from)
        rfi_ring_release(&t->ring, t->released);
}

static void give_back(struct rf_trainer *t, uint64_t ticket)
{
    t->given_back[ticket % t->ring.depth] = true;
    release_in_order(t);
}

static int default_timeout(const struct rf_trainer *t, int timeout_ms)
{
    return timeout_ms < 0 ? (int)t->run.config.timeout_ms : timeout_ms;
}

int rf_next(rf_trainer *t, int timeout_ms, rf_batch *ret)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    if (!ret)
        return rfi_trainer_fail(t, EINVAL, "rf_next: a null pointer. Pass a place for the batch");
    struct rfi_trainer_shared *tr = t->ring.tr;
    if (at_end(t))
        return RF_END;
    if (run_is_over(t))
        return at_end(t) ? RF_END : rfi_trainer_over(t);
    if (!atomic_load_explicit(&tr->started_ns, memory_order_relaxed))
        atomic_store_explicit(&tr->started_ns, rfi_now_ns(), memory_order_relaxed);
    enum rfi_take state = rfi_ring_look(&t->ring, t->next);
    bool hit = state != RFI_TAKE_NOT_YET;
    uint64_t waited = 0;
    if (!hit) {
        uint64_t from = rfi_now_ns();
        rc = wait_ready(t, default_timeout(t, timeout_ms), &state);
        waited = rfi_now_ns() - from;
        if (rc < 0)
            return rc;
    }
    if (state == RFI_TAKE_END)
        return RF_END;
    const struct rfi_slot_shared *slot = &t->ring.slots[t->next % t->ring.depth];
    uint64_t ticket = t->next;
    if (state == RFI_TAKE_ERROR) {
        rc = failed_batch(t, slot);
        add(&tr->errors, 1);
        take(t, slot->epoch);
        give_back(t, ticket);
        return rc;
    }
    rc = describe(t, slot, ret);
    if (rc < 0)
        return rc;
    atomic_store_explicit(&tr->heartbeat_ns, rfi_now_ns(), memory_order_relaxed);
    count_wait(t, hit, waited, slot->n_samples);
    take(t, slot->epoch);
    RFI_FAIL_POINT("take");
    return RF_OK;
}

int rf_release(rf_trainer *t, const rf_batch *b)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    if (!b)
        return rfi_trainer_fail(t, EINVAL, "rf_release: a null pointer. Pass the batch that rf_next gave");
    struct rfi_trainer_shared *tr = t->ring.tr;
    uint64_t k = b->ticket;
    if (k < t->released || k >= t->next || t->given_back[k % t->ring.depth])
        return rfi_trainer_fail(t, EINVAL,
                                "ticket %" PRIu64 " of rank %u is not held: released before, or not taken by this "
                                "handle",
                                k, t->ring.rank);
    const struct rfi_slot_shared *slot = &t->ring.slots[k % t->ring.depth];
    add(&tr->batches, 1);
    add(&tr->samples, slot->n_samples);
    add(&tr->bytes, slot->payload_bytes);
    RFI_FAIL_POINT("release-before");
    give_back(t, k);
    RFI_FAIL_POINT("release-after");
    return 0;
}

uint64_t rf_len(const rf_trainer *t)
{
    return t ? t->lens.len : 0;
}

int rf_is_empty(const rf_trainer *t)
{
    uint64_t batches = t ? t->lens.len : 0;
    for (uint64_t i = 0; t && i < rfi_min(t->lens.n, RFI_UNFINISHED_MAX); i++)
        batches |= t->lens.unfinished[i];
    return batches == 0;
}

int rf_prefetch(rf_trainer *t, uint32_t batches)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    uint64_t want = t->next + rfi_min(batches, rfi_ring_ahead(&t->ring));
    atomic_store_explicit(&t->ring.tr->want, want, memory_order_relaxed);
    rfi_bell_ring(t->ring.bell);
    return (int)rfi_ring_ready(&t->ring);
}

/* From `cut` on the ring has the new content; what lies between is dropped unseen. */
static void skip_to(struct rf_trainer *t, uint64_t cut)
{
    for (; t->next < cut; t->next++)
        t->given_back[t->next % t->ring.depth] = true;
    atomic_store_explicit(&t->ring.tr->taken, t->next, memory_order_relaxed);
    release_in_order(t);
}

static int seek(struct rf_trainer *t, uint32_t op, uint64_t epoch, uint64_t batch)
{
    uint64_t cut;
    if (run_is_over(t))
        return rfi_trainer_over(t);
    int rc = rfi_trainer_exchange(t, op, epoch, batch, &cut);
    if (rc < 0)
        return rc;
    if (cut < t->released || cut > t->next + 2 * (uint64_t)t->ring.depth) {
        t->broken = true;
        return rfi_trainer_fail(
            t, EPROTO, "the server of run '%s' answered with ticket %" PRIu64 ", which cannot be. Attach again",
            t->run.segment.name, cut);
    }
    t->epoch = epoch;
    skip_to(t, cut);
    return 0;
}

/* Whether the next ticket already is `batch` of `epoch`. */
static bool stands_at(struct rf_trainer *t, uint64_t epoch, uint64_t batch)
{
    struct rfi_generation g;
    uint64_t at_epoch, at_batch;
    if (rf_is_empty(t))
        return true;
    rfi_ring_generation_settled(&t->ring, t->next, &g);
    if (t->next >= g.end_ticket)
        return false;
    rfi_run_content(&t->lens, &g, t->next, &at_epoch, &at_batch);
    return at_epoch == epoch && at_batch == batch;
}

int rfi_trainer_seek(struct rf_trainer *t, uint32_t op, uint64_t epoch, uint64_t batch)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0 || stands_at(t, epoch, batch))
        return rc;
    return seek(t, op, epoch, batch);
}

int rf_reset(rf_trainer *t)
{
    return rfi_trainer_seek(t, RFI_OP_SEEK, t ? t->epoch : 0, 0);
}

int rf_set_epoch(rf_trainer *t, uint64_t epoch)
{
    return rfi_trainer_seek(t, RFI_OP_SEEK, epoch, 0);
}
