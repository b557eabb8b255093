/* The coordinator's calls for a trainer, or for anyone who may open the run: register, report health, read it. */
#include "attach/trainer.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "run/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int rf_register_worker(rf_trainer *t, const uint64_t *indices, size_t n)
{
    int rc = rfi_trainer_check(t);
    if (rc == 0 && n && !indices)
        rc = rfi_trainer_fail(t, EINVAL, "rank %" PRIu32 ": %zu indices at a null pointer", t->ring.rank, n);
    size_t at = 0;
    do {
        size_t some = rfi_min(n - at, RFI_WIRE_INDICES);
        if (rc == 0)
            rc = rfi_trainer_register(t, t->epoch, n ? indices + at : NULL, some);
        at += some;
    } while (rc == 0 && at < n);
    return rc;
}

int rf_report_health(rf_trainer *t, uint64_t samples, double seconds)
{
    int rc = rfi_trainer_check(t);
    double rate = (double)samples / seconds;
    uint64_t bits;
    if (rc < 0)
        return rc;
    if (!(seconds > 0) || !(rate < 1e300))
        return rfi_trainer_fail(t, EINVAL, "rank %" PRIu32 ": %" PRIu64 " samples in %g seconds is no throughput",
                                t->ring.rank, samples, seconds);
    memcpy(&bits, &rate, sizeof bits);
    atomic_store_explicit(&t->ring.tr->reported_rate, bits, memory_order_relaxed);
    atomic_store_explicit(&t->ring.tr->reported_ns, rfi_now_ns(), memory_order_release); /* after the rate */
    return 0;
}

static double number(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d >= 0 && d < 1e300 ? d : 0;
}

static double seconds_ago(uint64_t now, uint64_t then)
{
    return now > then ? (double)(now - then) * 1e-9 : 0;
}

static rf_status status_of(uint64_t word)
{
    return word <= RF_STATUS_FAILED ? (rf_status)word : RF_STATUS_UNKNOWN;
}

/* Oldest first. The coordinator may write meanwhile: what it has come to is left out. */
static void read_history(const struct rfi_history_shared *h, rf_health *ret)
{
    uint64_t now = rfi_now_ns(), end = atomic_load_explicit(&h->next, memory_order_acquire);
    uint64_t from = end > RFI_HISTORY_POINTS - 1 ? end - (RFI_HISTORY_POINTS - 1) : 0;
    rf_health_point points[RFI_HISTORY_POINTS];
    for (uint64_t i = from; i < end; i++)
        points[i - from] = (rf_health_point){
            .seconds_ago = seconds_ago(
                now, atomic_load_explicit(&h->points[i % RFI_HISTORY_POINTS].time_ns, memory_order_acquire)),
            .status = status_of(atomic_load_explicit(&h->points[i % RFI_HISTORY_POINTS].status, memory_order_acquire)),
            .samples_per_s =
                number(atomic_load_explicit(&h->points[i % RFI_HISTORY_POINTS].rate, memory_order_acquire))};
    uint64_t now_at = atomic_load_explicit(&h->next, memory_order_relaxed);
    uint64_t valid = now_at > RFI_HISTORY_POINTS - 1 ? now_at - (RFI_HISTORY_POINTS - 1) : 0;
    for (uint64_t i = rfi_max(from, valid); i < end; i++)
        ret->history[ret->n_history++] = points[i - from];
}

static int read_health(const struct rfi_run_view *r, rf_party party, uint32_t n, rf_health *ret, struct rfi_error *err)
{
    const struct rfi_config_shared *c = &r->config;
    uint32_t first = party == RF_PARTY_RANK ? c->first_rank : 0;
    uint32_t count = party == RF_PARTY_RANK ? c->ranks : c->workers, i = n - first;
    uint64_t now = rfi_now_ns(), beat;
    if (n < first || i >= count)
        return rfi_fail(err, ERANGE, "no %s %" PRIu32 " in run '%s': it has %" PRIu32 " to %" PRIu32,
                        party == RF_PARTY_RANK ? "rank" : "worker", n, r->segment.name, first, first + count - 1);
    *ret = (rf_health){.party = party, .number = n};
    if (party == RF_PARTY_RANK) {
        const struct rfi_trainer_shared *t = r->rings[i].tr;
        ret->status = status_of(atomic_load_explicit(&r->ranks[i].status, memory_order_relaxed));
        ret->samples_per_s = number(atomic_load_explicit(&r->ranks[i].rate_samples, memory_order_relaxed));
        beat = atomic_load_explicit(&t->heartbeat_ns, memory_order_relaxed);
        uint64_t reported = atomic_load_explicit(&t->reported_ns, memory_order_acquire);
        if (reported) {
            ret->reported_samples_per_s = number(atomic_load_explicit(&t->reported_rate, memory_order_relaxed));
            ret->reported_seconds_ago = seconds_ago(now, reported);
        }
        read_history(&r->history[c->workers + i], ret);
    } else {
        ret->status = status_of(atomic_load_explicit(&r->workers[i].status, memory_order_relaxed));
        ret->samples_per_s = number(atomic_load_explicit(&r->workers[i].rate_samples, memory_order_relaxed));
        beat = atomic_load_explicit(&r->workers[i].heartbeat_ns, memory_order_relaxed);
        read_history(&r->history[i], ret);
    }
    ret->heartbeat_seconds_ago = beat ? seconds_ago(now, beat) : -1;
    return 0;
}

int rf_read_health(const char *name, rf_party party, uint32_t number_of, rf_health *ret)
{
    struct rfi_error *err = rfi_thread_error();
    struct rfi_run_view r;
    if (!ret || (unsigned)party > RF_PARTY_WORKER)
        return rfi_fail(err, EINVAL, "wrong arguments: RF_PARTY_RANK or RF_PARTY_WORKER, and a place for the answer");
    int rc = rfi_run_attach(name, false, &r, err);
    if (rc < 0)
        return rc;
    rc = read_health(&r, party, number_of, ret, err);
    rfi_run_close(&r);
    return rc;
}
