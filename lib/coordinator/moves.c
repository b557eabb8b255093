/* Moving batches between ranks, and the gates at the end of an epoch.
 *
 * In a gated run every generation is within one epoch and stops behind its last batch. What is moved is behind
 * what anybody has claimed: the rings concerned are held, the log gets its entries, then each ring gets a
 * generation that counts them. A crash in between leaves rings held and a log that is right for the next life:
 * nothing at or behind the cuts was claimed. The next epoch begins when nothing of this one can move any more. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "order/past.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t log_length(const struct rfi_coordinator *c)
{
    return atomic_load_explicit(&c->run.moves->n, memory_order_relaxed); /* only we write it */
}

static uint64_t len_in(const struct rfi_coordinator *c, uint32_t i, uint64_t epoch)
{
    return rfi_moves_len(c->order, epoch, c->run.config.first_rank + i, c->run.moves->entries, log_length(c));
}

bool rfi_rank_failed(const struct rfi_coordinator *c, uint32_t i)
{
    return atomic_load_explicit(&c->run.ranks[i].failed, memory_order_relaxed) != 0;
}

static struct rfi_generation newest_of(const struct rfi_coordinator *c, uint32_t i)
{
    struct rfi_generation g;
    rfi_ring_generation(&c->run.rings[i], UINT64_MAX >> 16, &g);
    return g;
}

static uint64_t released_of(const struct rfi_coordinator *c, uint32_t i)
{
    return atomic_load_explicit(&c->run.rings[i].tr->released, memory_order_acquire);
}

static bool is_free(const struct rfi_ring *r, uint64_t ticket)
{
    uint64_t word = atomic_load_explicit(&r->slots[ticket % r->depth].word, memory_order_acquire);
    return rfi_word_ticket(word) == ticket && rfi_word_state(word) == RFI_FREE;
}

/* A look, not a promise: no ticket before the stop is free to be claimed. */
static bool all_claimed(const struct rfi_coordinator *c, uint32_t i, uint64_t stop)
{
    const struct rfi_ring *r = &c->run.rings[i];
    uint64_t freed = rfi_ring_freed(r);
    if (freed + r->depth < stop)
        return false;
    for (uint64_t t = freed; t < stop; t++)
        if (is_free(r, t))
            return false;
    return true;
}

void rfi_ring_outlook(const struct rfi_coordinator *c, uint32_t i, struct rfi_outlook *ret)
{
    struct rfi_generation g = newest_of(c, i);
    const struct rfi_ring *r = &c->run.rings[i];
    uint64_t freed = rfi_ring_freed(r), first_free = g.stop_ticket;
    *ret = (struct rfi_outlook){.epoch = g.epoch, .over = g.stop_ticket == 0, .released = released_of(c, i)};
    if (ret->over)
        return;
    for (uint64_t t = rfi_min(freed + r->depth, g.stop_ticket); t > freed && is_free(r, t - 1); t--)
        first_free = t - 1;
    if (freed + r->depth < g.stop_ticket && first_free == g.stop_ticket)
        first_free = freed + r->depth;
    ret->len = len_in(c, i, g.epoch);
    ret->left = g.stop_ticket - rfi_min(g.stop_ticket, ret->released);
    ret->movable = g.stop_ticket - rfi_min(g.stop_ticket, first_free);
}

/* ---- the move itself ---- */

struct held {
    uint32_t ring;
    uint64_t cut;
    struct rfi_generation g;
};

static void let_go(struct rfi_coordinator *c, const struct held *held, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        rfi_ring_cancel(&c->run.rings[held[k].ring]);
}

static uint64_t batch_at(const struct held *h)
{
    return h->g.batch + (h->cut - h->g.first_ticket);
}

/* 1: held and fit for it; 0: not now. */
static int hold(struct rfi_coordinator *c, uint32_t i, uint64_t epoch, struct held *h)
{
    h->ring = i;
    h->g = newest_of(c, i);
    if (h->g.epoch != epoch || !h->g.stop_ticket)
        return 0;
    h->cut = rfi_ring_hold(&c->run.rings[i]);
    /* Behind the stop: a claim made on an older record is being given back. It will be over soon. */
    if (h->cut <= h->g.stop_ticket)
        return 1;
    rfi_ring_cancel(&c->run.rings[i]);
    return 0;
}

static void append_log(struct rfi_coordinator *c, const struct rfi_move *moves, uint32_t n)
{
    uint64_t at = log_length(c);
    memcpy(&c->run.moves->entries[at], moves, n * sizeof *moves);
    atomic_store_explicit(&c->run.moves->n, at + n, memory_order_release); /* the entries stand before it */
    atomic_fetch_add_explicit(&c->run.coordinator->rebalances, n, memory_order_relaxed);
    for (uint32_t k = 0; k < n; k++)
        rfi_log(RFI_LOG_INFO, "epoch %llu: %llu batches of rank %u, from batch %llu on, go to rank %u",
                (unsigned long long)moves[k].epoch, (unsigned long long)moves[k].count, moves[k].donor,
                (unsigned long long)moves[k].cut, moves[k].recipient);
}

static bool room_in_log(struct rfi_coordinator *c, uint32_t n)
{
    static int said;
    if (log_length(c) + n <= c->run.config.moves_cap)
        return true;
    rfi_log_once(&said, RFI_LOG_WARNING,
                 "the rebalance log is full (%u entries): nothing moves any more. Stop the run and start it with "
                 "--resume: finished epochs leave the log then",
                 c->run.config.moves_cap);
    return false;
}

static uint32_t local(const struct rfi_coordinator *c, uint32_t rank)
{
    return rank - c->run.config.first_rank;
}

/* Every ring that the moves name, once. */
static uint32_t rings_of(const struct rfi_coordinator *c, const struct rfi_move *moves, uint32_t n, uint32_t *rings)
{
    uint32_t n_rings = 0;
    for (uint32_t k = 0; k < 2 * n; k++) {
        uint32_t i = local(c, k % 2 ? moves[k / 2].recipient : moves[k / 2].donor), at = 0;
        while (at < n_rings && rings[at] != i)
            at++;
        if (at == n_rings)
            rings[n_rings++] = i;
    }
    return n_rings;
}

/* Whether a ring keeps at least what it has claimed. A failed rank keeps what it has released, and nobody reads
 * what was claimed beyond. */
static bool keeps_enough(const struct rfi_coordinator *c, const struct held *h, const struct rfi_move *moves,
                         uint32_t n)
{
    uint64_t least = batch_at(h);
    if (rfi_rank_failed(c, h->ring))
        return true;
    for (uint32_t k = 0; k < n; k++)
        if (local(c, moves[k].donor) == h->ring && moves[k].cut < least)
            return false;
    return true;
}

static void go_on(struct rfi_coordinator *c, const struct held *h)
{
    uint64_t len = len_in(c, h->ring, h->g.epoch), at = batch_at(h);
    struct rfi_generation g = h->g;
    g.batch = at;
    g.log_length = log_length(c);
    g.stop_ticket = h->cut + (len > at ? len - at : 0);
    rfi_ring_append(&c->run.rings[h->ring], h->cut, &g);
}

int rfi_move_batches(struct rfi_coordinator *c, const struct rfi_move *moves, uint32_t n)
{
    uint32_t *rings = malloc(2 * n * sizeof *rings), n_rings, n_held = 0;
    struct held *held = malloc(2 * n * sizeof *held);
    int rc = rings && held && room_in_log(c, n);
    n_rings = rc ? rings_of(c, moves, n, rings) : 0;
    for (; rc && n_held < n_rings; n_held++)
        if (!hold(c, rings[n_held], moves[0].epoch, &held[n_held]))
            break;
    bool all = rc && n_held == n_rings;
    for (uint32_t k = 0; all && k < n_held; k++)
        all = keeps_enough(c, &held[k], moves, n);
    if (all) {
        append_log(c, moves, n);
        for (uint32_t k = 0; k < n_held; k++) {
            RFI_FAIL_POINT("rebalance");
            go_on(c, &held[k]);
        }
    } else {
        let_go(c, held, n_held);
    }
    free(rings);
    free(held);
    return all;
}

/* ---- ranks that were given up ---- */

/* The last `count` of the failed rank's `len` batches in equal shares to the living. Entries are written from the
 * tail on. */
static uint32_t share_out(const struct rfi_coordinator *c, uint32_t from, uint64_t epoch, uint64_t len, uint64_t count,
                          struct rfi_move *moves)
{
    uint32_t living = 0, n = 0, seen = 0;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        living += !rfi_rank_failed(c, i);
    for (uint32_t i = 0; i < c->run.config.ranks && living; i++) {
        if (rfi_rank_failed(c, i))
            continue;
        uint64_t share = count / living + (seen++ < count % living);
        if (!share)
            continue;
        len -= share;
        moves[n++] = (struct rfi_move){.epoch = epoch,
                                       .donor = c->run.config.first_rank + from,
                                       .recipient = c->run.config.first_rank + i,
                                       .cut = len,
                                       .count = share};
    }
    return n;
}

/* What the failed rank has not released of the epoch that it stands in. 1: done. */
static int redistribute(struct rfi_coordinator *c, uint32_t i)
{
    struct rfi_generation g;
    uint64_t released = released_of(c, i), epoch, batch, len;
    rfi_ring_generation(&c->run.rings[i], released, &g);
    rfi_run_content(&c->run.ranks[i].lens, &g, rfi_max(released, g.first_ticket), &epoch, &batch);
    len = len_in(c, i, epoch);
    if (newest_of(c, i).stop_ticket == 0 || batch >= len)
        return 1;
    struct rfi_move *moves = malloc(c->run.config.ranks * sizeof *moves);
    if (!moves)
        return 0;
    uint32_t n = share_out(c, i, epoch, len, len - batch, moves);
    int rc = n == 0 || rfi_move_batches(c, moves, n);
    free(moves);
    return rc;
}

void rfi_rank_died(struct rfi_coordinator *c, uint32_t i)
{
    uint32_t living = 0;
    uint64_t epoch = newest_of(c, i).epoch;
    if (!c->o->redistribute || rfi_rank_failed(c, i))
        return;
    for (uint32_t k = 0; k < c->run.config.ranks; k++) {
        living += k != i && !rfi_rank_failed(c, k);
        if (!rfi_rank_failed(c, k) && newest_of(c, k).epoch != epoch) {
            rfi_log(RFI_LOG_WARNING,
                    "the trainer of rank %u died in epoch %llu, and rank %u is in epoch %llu, so its batches cannot go "
                    "there: waiting for a new trainer",
                    c->run.config.first_rank + i, (unsigned long long)epoch, c->run.config.first_rank + k,
                    (unsigned long long)newest_of(c, k).epoch);
            return;
        }
    }
    if (!living) {
        rfi_log(RFI_LOG_WARNING, "the trainer of rank %u died and no other rank is left: waiting for a new one",
                c->run.config.first_rank + i);
        return;
    }
    atomic_store_explicit(&c->run.ranks[i].failed, 1, memory_order_release);
    c->leases[i].to_redistribute = true;
    rfi_log(RFI_LOG_WARNING, "the trainer of rank %u died: its batches go to the %u other ranks",
            c->run.config.first_rank + i, living);
}

/* ---- gates ---- */

/* Whether `epoch` is closed on this server: nothing of it can move any more. Where ranks may be given up, only
 * when everything of it was released: until then a death leaves something to deal. */
static bool closed(const struct rfi_coordinator *c, uint64_t epoch)
{
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        struct rfi_generation g = newest_of(c, i);
        if (rfi_rank_failed(c, i)) {
            if (c->leases[i].to_redistribute)
                return false;
            continue;
        }
        if (g.epoch > epoch || !g.stop_ticket)
            continue;
        if (g.epoch < epoch || !all_claimed(c, i, g.stop_ticket))
            return false;
        if (c->o->redistribute && released_of(c, i) < g.stop_ticket)
            return false;
    }
    return true;
}

/* All of the failed ranks' next epoch goes to the living, once. */
static bool deal_for_failed(struct rfi_coordinator *c, uint64_t epoch)
{
    struct rfi_move *moves = NULL;
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        uint64_t len = rfi_rank_failed(c, i) ? len_in(c, i, epoch) : 0;
        if (!len)
            continue;
        moves = moves ? moves : malloc(c->run.config.ranks * sizeof *moves);
        uint32_t n = moves ? share_out(c, i, epoch, len, len, moves) : 0;
        if (!n || !room_in_log(c, n)) {
            c->failed = rfi_fail(c->err, ENOSPC, "the batches of failed rank %u cannot be dealt: %s",
                                 c->run.config.first_rank + i,
                                 n ? "the rebalance log is full. Start again with --resume" : "out of memory");
            break;
        }
        append_log(c, moves, n);
    }
    free(moves);
    return !c->failed;
}

static void open_gate(struct rfi_coordinator *c, uint32_t i, const struct rfi_generation *was)
{
    struct rfi_ring *r = &c->run.rings[i];
    struct rfi_generation g = *was;
    uint64_t epoch = was->epoch + 1, cut;
    bool end = c->o->epochs && epoch >= c->o->start_epoch + c->o->epochs;
    if (!end && !deal_for_failed(c, epoch))
        return;
    cut = rfi_ring_hold(r);
    if (cut != was->stop_ticket) { /* a claim made on an older record is being given back */
        rfi_ring_cancel(r);
        return;
    }
    g.epoch = epoch;
    g.batch = 0;
    g.log_length = log_length(c);
    g.stop_ticket = end ? 0 : cut + len_in(c, i, epoch);
    g.end_ticket = end ? cut : UINT64_MAX;
    rfi_ring_append(r, cut, &g);
}

void rfi_gates_step(struct rfi_coordinator *c)
{
    if (!c->run.config.gated)
        return;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (c->leases[i].to_redistribute && redistribute(c, i))
            c->leases[i].to_redistribute = false;
    for (uint32_t i = 0; i < c->run.config.ranks && !c->failed; i++) {
        struct rfi_generation g = newest_of(c, i);
        if (!rfi_rank_failed(c, i) && g.stop_ticket && all_claimed(c, i, g.stop_ticket) && closed(c, g.epoch))
            open_gate(c, i, &g);
    }
}
