/* When and how much to move (--strategy adaptive). Throughput of a rank: batches released a second while it had
 * work, smoothed. Imbalance = 1 - slowest / median: a coefficient of variation cannot see one half-speed rank
 * among eight. Where a trainer reports its own throughput (rf_report_health), that counts. Moves are made while it stays above the threshold (off again below half of it), at least 250 ms
 * apart, and only when the predicted end of the epoch comes clearly nearer. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_NS = 100000000, APART_NS = 250000000, WINDOW_NS = 1000000000, WINDOW_BATCHES = 4, STAYS = 3 };

/* A plan must bring the end nearer by this share, or it is not worth a cut; and a rank gives only when it is late
 * by more than a part of what the latest is, or noise would move single batches about. */
static const double least_gain = 0.05, least_part = 0.25;

static void take_measure(struct rfi_measured *m, uint64_t batches, uint64_t ns)
{
    double rate = (double)batches / ((double)ns * 1e-9);
    m->rate = m->rate > 0 ? 0.5 * m->rate + 0.5 * rate : rate;
}

/* The work ran out before the window was full: until the trainer's last call. */
static void close_window(const struct rfi_coordinator *c, uint32_t i, uint64_t batches)
{
    struct rfi_measured *m = &c->measured[i];
    uint64_t last = atomic_load_explicit(&c->run.rings[i].tr->heartbeat_ns, memory_order_relaxed); /* statistics */
    if (m->since_ns && batches >= WINDOW_BATCHES && last > m->since_ns)
        take_measure(m, batches, last - m->since_ns);
    m->since_ns = 0;
}

static void measure(struct rfi_coordinator *c, uint32_t i, const struct rfi_outlook *o, uint64_t now)
{
    struct rfi_measured *m = &c->measured[i];
    bool busy = !o->over && o->left > 0 && c->leases[i].sock >= 0;
    double reported = c->leases[i].sock >= 0 ? rfi_reported_rate(c, i, now) : 0;
    uint64_t batches = o->released - rfi_min(o->released, m->released);
    if (!busy || m->epoch != o->epoch)
        close_window(c, i, batches);
    if (reported > 0) /* what the trainer could do counts more than what it was given */
        m->rate = reported / (double)c->run.config.batch;
    if (!m->since_ns) {
        m->since_ns = busy ? now : 0;
        m->released = o->released;
        m->epoch = o->epoch;
        return;
    }
    uint64_t ns = now - m->since_ns;
    if (reported > 0)
        return;
    if (ns < APART_NS || (batches < WINDOW_BATCHES && ns < WINDOW_NS))
        return;
    if (batches == 0) { /* slower than one batch in this time, whatever it is */
        m->rate = m->rate > 0 ? fmin(m->rate, 1e9 / (double)ns) : 0;
        return;
    }
    take_measure(m, batches, ns);
    m->since_ns = now;
    m->released = o->released;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* 1 - slowest / median of n values, 0 for none. */
static double imbalance(double *values, uint32_t n)
{
    if (n < 2)
        return 0;
    qsort(values, n, sizeof *values, compare);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return median > 0 ? 1 - values[0] / median : 0;
}

/* Share of the ideal: what each rank would have left if all ended together. Returns the gain: how much nearer
 * the end comes, as a share of the time until the latest end; *ret_late is the same in seconds. */
static double ideal(const struct rfi_coordinator *c, const struct rfi_outlook *o, double *want, double *ret_late)
{
    double left = 0, rate = 0, latest = 0;
    uint32_t ranks = c->run.config.ranks;
    for (uint32_t i = 0; i < ranks; i++) {
        if (c->measured[i].rate <= 0)
            continue;
        left += (double)o[i].left;
        rate += c->measured[i].rate;
        latest = fmax(latest, (double)o[i].left / c->measured[i].rate);
    }
    if (rate <= 0 || latest <= 0)
        return 0;
    for (uint32_t i = 0; i < ranks; i++)
        want[i] = c->measured[i].rate * left / rate;
    *ret_late = latest - left / rate;
    return *ret_late / latest;
}

/* Entries that bring the ranks to what they should have: the largest surplus to the largest want, whole batches
 * that nobody has claimed. */
static uint32_t plan(struct rfi_coordinator *c, struct rfi_outlook *o, const double *want, double late,
                     struct rfi_move *moves, uint32_t most)
{
    uint32_t n = 0, ranks = c->run.config.ranks;
    while (n < most) {
        uint32_t donor = ranks, recipient = ranks;
        double surplus = 0, lack = 0;
        for (uint32_t i = 0; i < ranks; i++) {
            double more = (double)o[i].left - want[i];
            if (c->measured[i].rate <= 0 || o[i].over)
                continue;
            if (more > surplus && o[i].movable > 0 && more / c->measured[i].rate > least_part * late) {
                surplus = more;
                donor = i;
            }
            if (-more > lack) {
                lack = -more;
                recipient = i;
            }
        }
        if (donor == ranks || recipient == ranks)
            break;
        uint64_t count = (uint64_t)fmin(fmin(surplus, lack), (double)o[donor].movable);
        if (count == 0)
            break;
        uint32_t first = c->run.config.first_rank;
        moves[n++] = (struct rfi_move){.epoch = o[donor].epoch,
                                       .donor = first + donor,
                                       .recipient = first + recipient,
                                       .cut = o[donor].len - count,
                                       .count = count};
        o[donor].left -= count;
        o[donor].movable -= count;
        o[donor].len -= count;
        o[recipient].left += count;
        o[recipient].len += count;
        o[recipient].movable = 0; /* what has just come does not go on */
    }
    return n;
}

static void say(struct rfi_coordinator *c, enum rfi_balance_reason reason, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    atomic_store_explicit(&c->run.coordinator->imbalance, bits, memory_order_relaxed);
    atomic_store_explicit(&c->run.coordinator->balance_reason, reason, memory_order_relaxed);
}

static uint32_t first_living(const struct rfi_coordinator *c)
{
    uint32_t i = 0;
    while (i + 1 < c->run.config.ranks && rfi_rank_failed(c, i))
        i++;
    return i;
}

/* All ranks in one epoch with work left: what can be balanced. */
static enum rfi_balance_reason comparable(const struct rfi_coordinator *c, const struct rfi_outlook *o)
{
    uint32_t known = 0, first = first_living(c);
    for (uint32_t i = first; i < c->run.config.ranks; i++) {
        if (rfi_rank_failed(c, i))
            continue;
        if (o[i].over || o[i].epoch != o[first].epoch)
            return RFI_BALANCE_BETWEEN_EPOCHS;
        known += c->measured[i].rate > 0;
    }
    return known < 2 ? RFI_BALANCE_MEASURING : RFI_BALANCE_EVEN;
}

/* 1 - slowest / median throughput of the ranks that have one. `values` is scratch. */
static double rate_imbalance(const struct rfi_coordinator *c, double *values)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (c->measured[i].rate > 0)
            values[n++] = c->measured[i].rate;
    return imbalance(values, n);
}

/* After moves the rates may be even again and the work is not: a rank that has recovered gets some back. The same
 * measure over the predicted ends. */
static double end_imbalance(const struct rfi_coordinator *c, const struct rfi_outlook *o)
{
    double first = INFINITY, last = 0;
    if (c->moved_epoch != o[first_living(c)].epoch + 1)
        return 0;
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        if (c->measured[i].rate <= 0)
            continue;
        double end = (double)o[i].left / c->measured[i].rate;
        first = fmin(first, end);
        last = fmax(last, end);
    }
    return last > 0 ? 1 - first / last : 0;
}

/* Whether to move now, by the rates and by where the ranks would end. */
static enum rfi_balance_reason judge(struct rfi_coordinator *c, const struct rfi_outlook *o, double *scratch,
                                     uint64_t now, double *ret_value)
{
    enum rfi_balance_reason reason = comparable(c, o);
    double threshold = c->o->rebalance_threshold;
    *ret_value = 0;
    if (reason != RFI_BALANCE_EVEN)
        return reason;
    *ret_value = rate_imbalance(c, scratch);
    double most = fmax(*ret_value, end_imbalance(c, o));
    c->above = most > threshold ? c->above + 1 : most < threshold / 2 ? 0 : c->above;
    if (c->above == 0)
        return RFI_BALANCE_EVEN;
    if (c->above < STAYS)
        return RFI_BALANCE_NOT_LONG_ENOUGH;
    if (now - c->moved_ns < APART_NS)
        return RFI_BALANCE_TOO_SOON;
    return RFI_BALANCE_MOVED;
}

static enum rfi_balance_reason try_move(struct rfi_coordinator *c, struct rfi_outlook *o, uint64_t now)
{
    uint32_t ranks = c->run.config.ranks, n;
    double late = 0;
    double *want = calloc(ranks, sizeof *want);
    struct rfi_move *moves = calloc(2 * (size_t)ranks, sizeof *moves);
    enum rfi_balance_reason reason = RFI_BALANCE_NO_GAIN;
    if (want && moves && ideal(c, o, want, &late) > least_gain) {
        n = plan(c, o, want, late, moves, 2 * ranks);
        reason = n == 0 ? RFI_BALANCE_NOTHING_MOVABLE : RFI_BALANCE_TOO_SOON;
        if (n && rfi_move_batches(c, moves, n)) {
            reason = RFI_BALANCE_MOVED;
            c->moved_ns = now;
            c->moved_epoch = moves[0].epoch + 1;
            c->above = 0;
        }
    }
    free(want);
    free(moves);
    return reason;
}

enum rfi_balance_reason rfi_balance_now(struct rfi_coordinator *c)
{
    uint32_t ranks = c->run.config.ranks;
    uint64_t now = rfi_now_ns();
    double value;
    if (!c->measured || c->o->order->strategy != RF_ADAPTIVE || !c->o->rebalance)
        return RFI_BALANCE_OFF;
    struct rfi_outlook *o = calloc(ranks, sizeof *o);
    double *scratch = calloc(ranks, sizeof *scratch);
    if (!o || !scratch) {
        free(o);
        free(scratch);
        return RFI_BALANCE_MEASURING;
    }
    for (uint32_t i = 0; i < ranks; i++) {
        rfi_ring_outlook(c, i, &o[i]);
        if (rfi_rank_failed(c, i))
            c->measured[i].rate = 0;
        else
            measure(c, i, &o[i], now);
    }
    enum rfi_balance_reason reason = judge(c, o, scratch, now, &value);
    if (reason == RFI_BALANCE_MOVED)
        reason = try_move(c, o, now);
    say(c, reason, value);
    free(o);
    free(scratch);
    return reason;
}

void rfi_balance_step(struct rfi_coordinator *c)
{
    uint64_t now = rfi_now_ns();
    if (!c->run.config.gated || now - c->looked_ns < LOOK_NS)
        return;
    c->looked_ns = now;
    if (!c->measured)
        c->measured = calloc(c->run.config.ranks, sizeof *c->measured);
    rfi_balance_now(c);
}
