/* The worker's loop; see worker.h. */
#include "worker/worker.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/futex.h"
#include "base/log.h"
#include "worker/job.h"

#include <unistd.h>

/* Waits are short so that rings are looked at while slow reads are out, and long when nothing is; always a
 * fraction of the heartbeat's limit, or an idle worker would look hung. */
enum { NICER = 5, READ_WAIT_NS = 1000000, IDLE_WAIT_NS = 50000000, STANDBY_WAIT_NS = 5000000, BEATS_A_LIMIT = 8 };

struct loop {
    struct rfi_jobs jobs;
    struct rfi_run_view *run;
    struct rfi_bell_shared *bell;
    uint64_t idle_ns; /* slept or waited, to be taken off the busy time */
    uint64_t started_ns;
    uint64_t idle_wait_ns;
};

static bool stopping(const struct loop *l)
{
    return atomic_load_explicit(&l->run->coordinator->stop, memory_order_acquire) != 0;
}

static void beat(struct loop *l)
{
    uint64_t now = rfi_now_ns();
    atomic_store_explicit(&l->jobs.record->heartbeat_ns, now, memory_order_relaxed);
    atomic_store_explicit(&l->jobs.record->busy_ns, now - l->started_ns - l->idle_ns, memory_order_relaxed);
}

static bool may_claim(const struct loop *l, uint32_t ring)
{
    /* Relaxed: who may changes when a ring has lost its last keeper, and nothing hangs on the instant. */
    return atomic_load_explicit(&l->run->ranks[ring].keepers, memory_order_relaxed) >> l->jobs.worker & 1;
}

/* Rings of our node before others; with replication, those whose primary we are before those where we stand by. */
static bool comes_first(const struct loop *l, uint32_t ring)
{
    const struct rfi_worker_setup *s = l->jobs.setup;
    return l->run->config.replication > 1 ? l->run->ranks[ring].keeper[0] == l->jobs.worker
                                          : s->ring_node[ring] == s->worker_node;
}

/* The ring to claim for: the emptiest first (its trainer will be the first to wait). Of those that are equal the one whose
 * trainer is furthest behind: trainers that take every batch at once would otherwise be served one after the other. Ties
 * go round so that workers spread. */
static uint32_t pick_ring(const struct loop *l)
{
    const struct rfi_config_shared *c = &l->run->config;
    uint32_t best = UINT32_MAX, best_cost = UINT32_MAX;
    uint64_t best_taken = UINT64_MAX;
    for (uint32_t k = 0; k < c->ranks; k++) {
        uint32_t i = (l->jobs.worker + k) % c->ranks;
        if (!may_claim(l, i) || !rfi_ring_claimable(&l->run->rings[i]))
            continue;
        uint32_t cost = rfi_ring_ready(&l->run->rings[i]) + (comes_first(l, i) ? 0 : c->depth + 1);
        uint64_t taken = atomic_load_explicit(&l->run->rings[i].tr->taken, memory_order_relaxed); /* only a look */
        if (cost < best_cost || (cost == best_cost && taken < best_taken)) {
            best_cost = cost;
            best_taken = taken;
            best = i;
        }
    }
    return best;
}

/* Claims one batch somewhere. A ring whose next batch has no room yet looks claimable: then the others. */
static bool claim_one(struct loop *l)
{
    uint32_t ranks = l->run->config.ranks, first = pick_ring(l);
    if (first == UINT32_MAX)
        return false;
    for (uint32_t k = 0; k < ranks; k++) {
        uint32_t ring = (first + k) % ranks;
        if (!may_claim(l, ring))
            continue;
        int rc = l->jobs.sweeps ? rfi_sweep_claim(&l->jobs, ring) : rfi_jobs_claim(&l->jobs, ring);
        if (rc > 0)
            return true;
        if (rc < 0) {
            static int said;
            rfi_log_once(&said, RFI_LOG_ERROR, "worker %u cannot claim for ring %u: errno %d: %s", l->jobs.worker, ring,
                         -rc, l->jobs.contents[ring].err.text);
        }
    }
    return false;
}

/* Claims while the queue is not full. What is claimed is handed to the kernel after this much, so that workers
 * share the work even when reads complete at once, and small batches still share a system call. */
enum { SUBMIT_BYTES = 128 << 10, SUBMIT_READS = 8 };

static bool feed(struct loop *l)
{
    bool any = false;
    uint32_t before = l->jobs.in_flight;
    l->jobs.queued_bytes = 0;
    rfi_jobs_issue(&l->jobs);
    while (l->jobs.active && !rfi_jobs_unissued(&l->jobs) && l->jobs.in_flight < l->jobs.depth &&
           l->jobs.used < l->jobs.n_jobs) {
        if (!claim_one(l))
            break;
        any = true;
        rfi_jobs_issue(&l->jobs);
        if (l->jobs.in_flight >= before + SUBMIT_READS || l->jobs.queued_bytes >= SUBMIT_BYTES)
            break;
    }
    l->jobs.reader->ops->submit(l->jobs.reader);
    if (l->jobs.in_flight > before)
        RFI_FAIL_POINT("submit-enter");
    return any;
}

/* P7: say that we sleep, look once more, sleep. Whoever gives work stores it, then looks at sleepers. */
static void sleep_on_bell(struct loop *l)
{
    uint32_t value = rfi_bell_prepare(l->bell);
    uint64_t from = rfi_now_ns();
    if (!stopping(l) && !claim_one(l))
        rfi_bell_wait(l->bell, value, l->idle_wait_ns);
    l->idle_ns += rfi_now_ns() - from;
}

/* What we claimed is done, and the parent wants no more of us for now. It changes who rests, then `tuned`. */
static void rest(struct loop *l)
{
    struct rfi_coordinator_shared *c = l->run->coordinator;
    uint32_t value = atomic_load_explicit(&c->tuned, memory_order_acquire);
    uint64_t from = rfi_now_ns();
    rfi_jobs_look(&l->jobs);
    if (!stopping(l) && !l->jobs.active)
        rfi_futex_wait(&c->tuned, value, l->idle_wait_ns);
    l->idle_ns += rfi_now_ns() - from;
}

int rfi_worker_main(const struct rfi_worker_setup *setup, uint32_t worker)
{
    struct loop l = {.run = setup->run, .started_ns = rfi_now_ns()};
    /* Where cores are scarce trainers come first: they are needed for a moment, and what waits for them costs more. */
    (void)!nice(NICER);
    if (rfi_jobs_init(&l.jobs, setup, worker) < 0) {
        rfi_log(RFI_LOG_ERROR, "worker %u: out of memory. Lower --batch or --queue-depth", worker);
        return 1;
    }
    l.bell = (struct rfi_bell_shared *)rfi_segment_region(&l.run->segment, RFI_R_BELLS) + setup->worker_node;
    /* A standby of a ring of another node sleeps on another bell than the ring's. */
    l.idle_wait_ns = l.run->config.replication > 1 && l.run->config.nodes > 1 ? STANDBY_WAIT_NS : IDLE_WAIT_NS;
    l.idle_wait_ns = rfi_min(l.idle_wait_ns, (uint64_t)l.run->config.heartbeat_ms * 1000000u / BEATS_A_LIMIT);
    atomic_store_explicit(&l.jobs.record->started_ns, l.started_ns, memory_order_relaxed);
    while (!stopping(&l)) {
        beat(&l);
        rfi_jobs_look(&l.jobs);
        bool any = feed(&l);
        int n = rfi_jobs_reap(&l.jobs, 0);
        if (any || n > 0)
            continue;
        if (l.jobs.in_flight) {
            uint64_t from = rfi_now_ns();
            n = rfi_jobs_reap(&l.jobs, READ_WAIT_NS);
            l.idle_ns += rfi_now_ns() - from;
        } else if (!l.jobs.active && !l.jobs.used) {
            rest(&l);
        } else if (!l.jobs.used) {
            sleep_on_bell(&l);
        }
        if (n < 0) {
            rfi_log(RFI_LOG_ERROR, "worker %u: its io_uring failed: errno %d. It is restarted", worker, -n);
            return 1;
        }
    }
    rfi_jobs_stop(&l.jobs);
    return l.jobs.in_flight ? 1 : 0;
}
