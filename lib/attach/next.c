/* Taking and giving back batches. `next` on a ready batch makes no syscall and copies nothing: two loads,
 * a few pointers, the statistics in our own page. */
#include "attach/trainer.h"

#include "base/bytes.h"
#include "base/clock.h"
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
    rfi_ring_generation(&t->ring, UINT64_MAX >> 16, &g);
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
        return rfi_trainer_fail(
            t, EPIPE,
            "run '%s' failed: no worker is left, each died too often in a row. Look at the messages of "
            "its server (process %lld)",
            name, pid);
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

/* Who is being waited for, in words. */
static int timed_out(struct rf_trainer *t, int timeout_ms)
{
    const struct rfi_config_shared *c = &t->run.config;
    uint64_t word = atomic_load_explicit(&t->ring.slots[t->next % c->depth].word, memory_order_acquire);
    unsigned w = rfi_word_worker(word);
    uint32_t rank = t->ring.rank;
    if (rfi_word_ticket(word) != t->next || rfi_word_state(word) != RFI_CLAIMED || w >= c->workers)
        return rfi_trainer_fail(t, ETIMEDOUT,
                                "no batch for rank %u within %d ms: no worker has claimed ticket %" PRIu64
                                " yet (%u workers live). Look at `ringfeed stat %s`",
                                rank, timeout_ms, t->next,
                                atomic_load_explicit(&t->run.coordinator->live_workers, memory_order_relaxed),
                                t->run.segment.name);
    struct rfi_file file = {.path = "no file yet"};
    uint64_t offset = 0, oldest = UINT64_MAX;
    uint32_t queue = t->run.workers[w].queue < c->queues ? t->run.workers[w].queue : 0;
    for (uint32_t i = 0; i < c->queue_depth; i++) {
        struct rfi_inflight_shared *e = rfi_run_inflight(&t->run, queue, i);
        if (!atomic_load_explicit(&e->active, memory_order_acquire) || e->ring != t->local || e->ticket != t->next ||
            e->submitted_ns >= oldest || e->file >= rfi_dataset_n_files(t->dataset))
            continue;
        oldest = e->submitted_ns;
        offset = e->offset;
        rfi_dataset_file(t->dataset, e->file, &file);
    }
    return rfi_trainer_fail(t, ETIMEDOUT,
                            "no batch for rank %u within %d ms: worker %u (process %d) is reading ticket %" PRIu64
                            ", %s at offset %" PRIu64 ". Is the device slow or hung? Raise the time-out",
                            rank, timeout_ms, w,
                            (int)atomic_load_explicit(&t->run.workers[w].pid, memory_order_relaxed), t->next, file.path,
                            offset);
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
    if (t->next - t->released >= t->ring.depth)
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
    uint64_t now = rfi_now_ns(), until = now + (uint64_t)timeout_ms * 1000000u;
    rfi_bell_ring(t->ring.bell); /* we are about to wait: nobody may sleep */
    for (;; now = rfi_now_ns()) {
        *ret = rfi_ring_look(&t->ring, t->next);
        if (run_is_over(t))
            return rfi_trainer_over(t);
        if (*ret != RFI_TAKE_NOT_YET)
            return 0;
        if (only_we_can_help(t))
            return deadlock(t);
        if (t->interrupt && *t->interrupt)
            return rfi_trainer_fail(t, EINTR, "interrupted while waiting for a batch of rank %u", t->ring.rank);
        if (now >= until)
            return timed_out(t, timeout_ms);
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
        slot->data_offset > c->arena_bytes - slot->footprint)
        return rfi_trainer_fail(t, EPROTO, "the descriptor of ticket %" PRIu64 " of rank %u is damaged. Stop run '%s'",
                                t->next, t->ring.rank, t->run.segment.name);
    rfi_run_arrays(&t->run, t->local, (uint32_t)(t->next % c->depth), &a);
    *b = (rf_batch){.ticket = t->next,
                    .epoch = slot->epoch,
                    .batch = slot->batch,
                    .n_samples = slot->n_samples,
                    .n_fields = c->n_fields,
                    .fixed_bytes = c->fixed_bytes,
                    .data = t->arena + slot->data_offset,
                    .data_bytes = slot->footprint,
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
    struct rfi_trainer_shared *tr = t->ring.tr;
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    look_up_generation(t);
    if (t->next >= t->end_ticket)
        return RF_END;
    if (run_is_over(t))
        return rfi_trainer_over(t);
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
    return RF_OK;
}

int rf_release(rf_trainer *t, const rf_batch *b)
{
    struct rfi_trainer_shared *tr = t->ring.tr;
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
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
    give_back(t, k);
    return 0;
}

uint64_t rf_len(const rf_trainer *t)
{
    return t->len;
}

int rf_is_empty(const rf_trainer *t)
{
    return t->len == 0;
}

int rf_prefetch(rf_trainer *t, uint32_t batches)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    uint64_t want = t->next + rfi_min(batches, t->ring.depth);
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

static int seek(struct rf_trainer *t, uint64_t epoch)
{
    uint64_t cut;
    if (run_is_over(t))
        return rfi_trainer_over(t);
    int rc = rfi_trainer_exchange(t, RFI_OP_SEEK, epoch, &cut);
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

/* Whether the next ticket already is batch 0 of `epoch`. */
static bool stands_at(struct rf_trainer *t, uint64_t epoch)
{
    struct rfi_generation g;
    uint64_t at_epoch, at_batch;
    if (t->len == 0)
        return true;
    rfi_ring_generation(&t->ring, t->next, &g);
    if (t->next >= g.end_ticket)
        return false;
    rfi_run_content(&g, t->next, t->len, &at_epoch, &at_batch);
    return at_epoch == epoch && at_batch == 0;
}

int rf_reset(rf_trainer *t)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0 || stands_at(t, t->epoch))
        return rc;
    return seek(t, t->epoch);
}

int rf_set_epoch(rf_trainer *t, uint64_t epoch)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0 || stands_at(t, epoch))
        return rc;
    return seek(t, epoch);
}
