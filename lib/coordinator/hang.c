/* Workers that live and do nothing. Death is told by a pidfd; here are the two ways to hang:
 *   - silent: no beat for the limit (stopped, an endless loop, stuck in a system call, never past its start);
 *   - waiting: it beats, but a read does not end for the limit, while a read of the same place by us does (probe.c).
 * Both are fenced: SIGKILL, and from there on as any death. When our own read does not end either, the device
 * is slow and nothing is won by a kill: the limit doubles until the next completion.
 *
 * A worker that was merely not scheduled must not die for it: the count starts anew when this loop itself did not
 * run on time, and a worker that waits for a CPU (schedstat) is not silent. A limit that is too short for a
 * machine cannot keep killing either: it doubles for each fence in a row without a published batch. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOUBLINGS_MOST = 10, ONE_READ_LIMITS = 4, BEATS_TO_REAP = 3 };

struct watched {
    uint64_t beat, since_ns; /* last beat seen, and our first look that saw it */
    bool half; /* half of the limit has passed: what follows was read then */
    uint64_t run_ns, wait_ns, half_ns; /* CPU time and time in the run queue, and when that was */
    uint32_t fences; /* in a row without a published batch */
    uint64_t batches; /* published at the last fence */
    uint32_t slow; /* probes in a row that did not end */
    uint64_t slow_at; /* last completion then */
    uint64_t look_ns; /* next look at the in-flight table */
    uint64_t probed_ns; /* a probe is under way since; 0: none */
    uint64_t answered_beat; /* beats seen since the probe was answered: the last one, and how many */
    uint32_t answered_beats;
    struct rfi_inflight_shared read; /* what the probe is about */
    uint32_t entry;
    bool said;
};

struct rfi_hang {
    uint64_t stepped_ns;
    struct rfi_prober *prober;
    struct watched workers[];
};

static uint64_t base_ns(const struct rfi_coordinator *c)
{
    return (uint64_t)c->run.config.heartbeat_ms * 1000000u;
}

uint64_t rfi_hang_limit_ns(const struct rfi_coordinator *c, uint32_t w)
{
    const struct watched *d = &c->hang->workers[w];
    return base_ns(c) << rfi_min(d->fences + d->slow, DOUBLINGS_MOST);
}

int rfi_hang_open(struct rfi_coordinator *c)
{
    c->hang = calloc(1, sizeof *c->hang + c->run.config.workers * sizeof c->hang->workers[0]);
    if (!c->hang)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    if (rfi_reader_overlaps(&c->readers[0]))
        c->hang->prober = rfi_prober_open(c->run.config.workers, c->run.config.align);
    return 0;
}

void rfi_hang_abandon(struct rfi_coordinator *c)
{
    if (c->hang)
        rfi_prober_close(c->hang->prober);
}

void rfi_hang_close(struct rfi_coordinator *c)
{
    rfi_hang_abandon(c);
    free(c->hang);
    c->hang = NULL;
}

void rfi_hang_started(struct rfi_coordinator *c, uint32_t w)
{
    struct watched *d = &c->hang->workers[w];
    d->beat = 0;
    d->since_ns = rfi_now_ns();
    d->half = false;
    d->probed_ns = 0;
    d->look_ns = 0;
}

/* Time on a CPU and time waiting for one, of the worker's only thread. False: this kernel does not say. */
static bool cpu_time(pid_t pid, uint64_t *ret_run, uint64_t *ret_wait)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool ok = fscanf(f, "%" SCNu64 " %" SCNu64, ret_run, ret_wait) == 2;
    fclose(f);
    return ok;
}

/* On a CPU, or waiting for one. */
static bool runnable(pid_t pid)
{
    char path[40], text[512], *end;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    end = strrchr(text, ')');
    return end && end[1] == ' ' && end[2] == 'R';
}

/* Whether it had no chance to beat: hardly any time on a CPU in the second half of the limit, and in the run queue now,
 * or for most of that time (which the kernel counts only once it has run again). An endless loop on a crowded
 * machine has run for an eighth of the limit sooner or later. */
static bool starved(struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    const struct watched *d = &c->hang->workers[w];
    uint64_t run, wait;
    if (!d->half_ns || !cpu_time(c->children[w].pid, &run, &wait) || run - d->run_ns >= rfi_hang_limit_ns(c, w) / 8)
        return false;
    return runnable(c->children[w].pid) || wait - d->wait_ns > (now - d->half_ns) / 2;
}

static void look_at_cpu(struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    struct watched *d = &c->hang->workers[w];
    d->half = true;
    d->half_ns = cpu_time(c->children[w].pid, &d->run_ns, &d->wait_ns) ? now : 0;
}

static void fence(struct rfi_coordinator *c, uint32_t w, const char *why)
{
    struct watched *d = &c->hang->workers[w];
    uint64_t batches = atomic_load_explicit(&c->run.workers[w].batches, memory_order_relaxed);
    d->fences = batches == d->batches ? d->fences + 1 : 1;
    d->batches = batches;
    rfi_child_fence(c, w, why);
}

/* No beat. True: it was fenced. */
static bool silent(struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    struct watched *d = &c->hang->workers[w];
    uint64_t beat = atomic_load_explicit(&c->run.workers[w].heartbeat_ns, memory_order_relaxed);
    uint64_t limit = rfi_hang_limit_ns(c, w);
    char why[160];
    if (beat != d->beat) {
        d->beat = beat;
        d->since_ns = now;
        d->half = false;
        return false;
    }
    if (!d->half && now - d->since_ns >= limit / 2)
        look_at_cpu(c, w, now);
    if (now - d->since_ns < limit || !d->half || now - d->half_ns < limit / 4 || starved(c, w, now))
        return false;
    snprintf(why, sizeof why,
             "no beat for %" PRIu64
             " ms (stopped, in an endless loop, or stuck in a system call), the limit is %" PRIu64 " ms",
             (now - d->since_ns) / 1000000u, limit / 1000000u);
    fence(c, w, why);
    return true;
}

/* The oldest read in flight. */
static bool oldest_read(struct rfi_coordinator *c, uint32_t w, struct watched *d)
{
    bool found = false;
    for (uint32_t i = 0; i < c->run.config.queue_depth; i++) {
        struct rfi_inflight_shared *e = rfi_run_inflight(&c->run, c->run.workers[w].queue, i);
        if (!atomic_load_explicit(&e->active, memory_order_acquire) ||
            (found && e->submitted_ns >= d->read.submitted_ns))
            continue;
        d->read.ticket = e->ticket;
        d->read.offset = e->offset;
        d->read.file = e->file;
        d->read.submitted_ns = e->submitted_ns;
        d->entry = i;
        found = true;
    }
    return found;
}

/* Whether the read that the probe is about is still the one in its entry. */
static bool still_out(struct rfi_coordinator *c, uint32_t w, const struct watched *d)
{
    struct rfi_inflight_shared *e = rfi_run_inflight(&c->run, c->run.workers[w].queue, d->entry);
    return atomic_load_explicit(&e->active, memory_order_acquire) && e->submitted_ns == d->read.submitted_ns;
}

static void probe(struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    struct watched *d = &c->hang->workers[w];
    struct rfi_file file;
    rfi_prober_reset(c->hang->prober, w);
    if (rfi_prober_state(c->hang->prober, w) != RFI_PROBE_IDLE || /* an earlier one never came back */
        d->read.file >= rfi_dataset_n_files(c->dataset))
        return;
    rfi_dataset_file(c->dataset, d->read.file, &file);
    rfi_prober_start(c->hang->prober, w, file.path, d->read.offset);
    d->answered_beat = 0;
    d->answered_beats = 0;
    if (rfi_prober_state(c->hang->prober, w) == RFI_PROBE_UNDER_WAY)
        d->probed_ns = now;
}

/* Its read may have ended and the worker not have been scheduled since: it has had the time to look only when it has
 * been round its loop again, since our own read ended. */
static bool has_looked(struct rfi_coordinator *c, uint32_t w)
{
    struct watched *d = &c->hang->workers[w];
    uint64_t beat = atomic_load_explicit(&c->run.workers[w].heartbeat_ns, memory_order_relaxed);
    if (beat != d->answered_beat)
        d->answered_beats++;
    d->answered_beat = beat;
    return d->answered_beats > BEATS_TO_REAP; /* the first one was before */
}

static void judge(struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    struct watched *d = &c->hang->workers[w];
    uint64_t limit = rfi_hang_limit_ns(c, w), age = now - d->read.submitted_ns;
    struct rfi_file file;
    char why[640];
    enum rfi_probe_state state = rfi_prober_state(c->hang->prober, w);
    if (state == RFI_PROBE_UNDER_WAY && now - d->probed_ns < limit && still_out(c, w, d))
        return;
    if (state == RFI_PROBE_ANSWERED && still_out(c, w, d) && !has_looked(c, w))
        return;
    d->probed_ns = 0;
    if (!still_out(c, w, d) || state == RFI_PROBE_IMPOSSIBLE)
        return;
    rfi_dataset_file(c->dataset, d->read.file, &file);
    if (state == RFI_PROBE_ANSWERED) {
        snprintf(why, sizeof why,
                 "its read of %.400s at offset %" PRIu64 " does not end for %" PRIu64
                 " ms, while another of the same place does",
                 file.path, d->read.offset, age / 1000000u);
        fence(c, w, why);
        return;
    }
    d->slow++;
    d->slow_at = atomic_load_explicit(&c->run.workers[w].completed_ns, memory_order_relaxed);
    if (!d->said)
        rfi_log(RFI_LOG_WARNING,
                "%s at offset %" PRIu64 " does not answer worker %u for %" PRIu64
                " ms, and another read of the same place does not end either: the device is slow or hangs. The worker "
                "is let wait",
                file.path, d->read.offset, w, age / 1000000u);
    d->said = true;
}

/* It beats; do its reads end? A single read that is late while others end is given longer. */
static void waiting(struct rfi_coordinator *c, uint32_t w, uint64_t now)
{
    struct watched *d = &c->hang->workers[w];
    uint64_t completed = atomic_load_explicit(&c->run.workers[w].completed_ns, memory_order_relaxed);
    if (d->slow && completed != d->slow_at)
        d->slow = 0;
    uint64_t limit = rfi_hang_limit_ns(c, w);
    if (d->probed_ns) {
        judge(c, w, now);
        return;
    }
    if (now < d->look_ns)
        return;
    d->look_ns = now + base_ns(c) / 8;
    if (!oldest_read(c, w, d) || now < d->read.submitted_ns)
        return;
    uint64_t age = now - d->read.submitted_ns;
    bool others_end = completed > d->read.submitted_ns && now < completed + limit;
    if (age > (others_end ? ONE_READ_LIMITS * limit : limit))
        probe(c, w, now);
}

void rfi_hang_step(struct rfi_coordinator *c)
{
    struct rfi_hang *h = c->hang;
    uint64_t now = rfi_now_ns();
    bool late = now - h->stepped_ns > base_ns(c) / 2; /* we were not scheduled: perhaps nobody was */
    h->stepped_ns = now;
    if (h->prober)
        rfi_prober_step(h->prober);
    for (uint32_t w = 0; w < c->run.config.workers; w++) {
        struct watched *d = &h->workers[w];
        if (c->children[w].state != RFI_WORKER_RUNNING || c->children[w].fenced_ns)
            continue;
        if (d->fences && atomic_load_explicit(&c->run.workers[w].batches, memory_order_relaxed) != d->batches)
            d->fences = 0;
        if (late) {
            d->since_ns = now;
            d->half = false;
        }
        if (!silent(c, w, now) && h->prober)
            waiting(c, w, now);
    }
}
