/* See repair.h. */
#include "worker/repair.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "run/faults.h"
#include "worker/policy.h"
#include "worker/publish.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct rfi_suspect *suspect(const struct rfi_jobs *j, struct rfi_job *job, uint32_t slot)
{
    struct rfi_repair *r = &job->repair;
    if (!r->suspects) {
        r->cap = (uint32_t)j->run->config.batch;
        r->suspects = calloc(r->cap ? r->cap : 1, sizeof *r->suspects);
        if (!r->suspects) {
            rfi_job_fail(job, ENOMEM, 0, 0);
            return NULL;
        }
    }
    r->any = true;
    return &r->suspects[slot];
}

/* The lowest failing place of a sample is the one that is told, whichever read came back first. */
static bool accuse(const struct rfi_jobs *j, struct rfi_job *job, uint32_t slot, enum rfi_suspicion state, int error,
                   uint64_t offset)
{
    struct rfi_suspect *s = suspect(j, job, slot);
    if (!s)
        return false;
    if (s->state == RFI_SOUND || offset < s->offset) {
        s->offset = offset;
        s->error = error;
    }
    s->state = (uint32_t)rfi_max(s->state, state);
    return true;
}

/* Once a copy of a file and kind of trouble: an ailing disk must not fill the log. */
static void report(struct rfi_jobs *j, uint32_t file, uint32_t copy, uint64_t id, uint64_t offset, int error)
{
    const struct rfi_dataset *d = j->setup->dataset;
    uint64_t copies = 1 + (uint64_t)j->run->config.mirrors;
    uint8_t bit = error == EILSEQ ? 1 : 2;
    char path[4096] = "?";
    if (!j->reported && !(j->reported = calloc(rfi_dataset_n_files(d) * copies, 1)))
        return;
    uint8_t *said = &j->reported[file * copies + copy];
    if (*said & bit)
        return;
    *said |= bit;
    if (copy == 0)
        rfi_dataset_path(d, file, path, sizeof path);
    else
        rfi_dataset_path_below(d, file, j->setup->mirrors[copy - 1], path, sizeof path);
    if (error == EILSEQ)
        rfi_log(RFI_LOG_WARNING, "%s: wrong bytes at offset %llu: sample %llu does not match its checksum", path,
                (unsigned long long)offset, (unsigned long long)id);
    else
        rfi_log(RFI_LOG_WARNING, "%s: cannot read at offset %llu: %s", path, (unsigned long long)offset,
                error == ENODATA || error == ESTALE ? "the file ends there" : strerror(error));
}

static bool tolerant(const struct rfi_jobs *j)
{
    return j->run->config.mirrors || j->run->config.on_error != RF_ON_ERROR_RAISE;
}

/* What we lack says nothing about the data: no copy would help, and no decision may rest on it. */
static bool our_own(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS || error == EFAULT ||
           error == EBADF || error == EINVAL || error == ECANCELED;
}

/* Accuses every sample that the failed range [from, to) of a file touches. */
static void accuse_range(struct rfi_jobs *j, struct rfi_job *job, uint32_t run, uint32_t file, uint64_t from,
                         uint64_t to, int error, uint64_t offset)
{
    struct rfi_arrays a;
    uint32_t last = 0, n = 0;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    uint32_t end = run + 1 < job->plan.n_runs ? job->plan.runs[run + 1].first : job->n_samples;
    for (uint32_t i = job->plan.runs[run].first; i < end; i++) {
        struct rfi_extent e;
        if (rfi_dataset_extent(j->setup->dataset, a.ids[i], &e) < 0 || e.file != file || e.bytes == 0 ||
            e.offset >= to || e.offset + e.bytes <= from)
            continue;
        if (!accuse(j, job, i, RFI_SHARED, error, rfi_max(e.offset, offset)))
            return;
        n++;
        last = i;
    }
    if (n == 1)
        accuse(j, job, last, RFI_SPOILT, error, job->repair.suspects[last].offset);
}

bool rfi_repair_failed_read(struct rfi_jobs *j, struct rfi_job *job, uint32_t run, uint32_t file, uint64_t from,
                            uint64_t to, int error, uint64_t offset)
{
    struct rfi_repair *r = &job->repair;
    if (job->error)
        return false;
    if (our_own(error)) {
        rfi_job_fail(job, error, file, offset);
        return false;
    }
    if (r->reading) {
        r->error = r->error ? r->error : error;
        report(j, file, r->copy, r->id, offset, error);
        return true;
    }
    if (!tolerant(j)) {
        rfi_job_fail(job, error, file, offset);
        return false;
    }
    report(j, file, 0, 0, offset, error);
    accuse_range(j, job, run, file, from, to, error, offset);
    return !job->error;
}

/* Whether the bytes in the place of `slot` are sample `id`'s, as far as the index can tell. */
static bool matches(struct rfi_jobs *j, const struct rfi_job *job, uint32_t slot, uint64_t id, uint64_t bytes)
{
    uint32_t crc;
    return !j->run->config.verify || !rfi_dataset_checksum(j->setup->dataset, id, &crc) ||
           rfi_crc32c(0, rfi_job_region(j, job) + job->plan.offsets[slot], bytes) == crc;
}

static void wrong_bytes(struct rfi_jobs *j, uint32_t copy, uint64_t id)
{
    struct rfi_extent e = {0};
    rfi_dataset_extent(j->setup->dataset, id, &e);
    report(j, e.file, copy, id, e.offset, EILSEQ);
    /* Relaxed: a statistic. */
    atomic_fetch_add_explicit(&rfi_faults_part(j->run, 1 + j->queue)->wrong_copies, 1, memory_order_relaxed);
}

static bool take_decisions(struct rfi_jobs *j, struct rfi_job *job)
{
    const struct rfi_slot_shared *slot = &j->run->rings[job->ring].slots[job->claim.slot];
    struct rfi_fault few[16], *found = few;
    uint32_t rank = j->contents[job->ring].rank;
    uint64_t n = rfi_faults_find(j->run, slot->epoch, rank, slot->batch, few, 16);
    if (n > 16) {
        found = malloc(n * sizeof *found);
        if (!found) {
            rfi_job_fail(job, ENOMEM, 0, 0);
            return false;
        }
        n = rfi_min(n, rfi_faults_find(j->run, slot->epoch, rank, slot->batch, found, n));
    }
    for (uint64_t i = 0; i < n && !job->error; i++) {
        if (found[i].slot >= job->n_samples)
            continue;
        struct rfi_suspect *s = suspect(j, job, (uint32_t)found[i].slot);
        if (!s || s->state == RFI_DECIDED) /* of two entries the first counts */
            continue;
        *s = (struct rfi_suspect){.state = RFI_DECIDED, .error = (int32_t)found[i].error, .offset = found[i].offset};
        rfi_policy_note(job, &found[i]);
    }
    if (found != few)
        free(found);
    return !job->error;
}

/* The log first: what it has decided needs no look. Then every byte that came is compared. */
static void begin(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_arrays a;
    struct rfi_repair *r = &job->repair;
    r->begun = true;
    if ((j->decided && !take_decisions(j, job)) || !j->run->config.verify)
        return;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    for (uint32_t i = 0; i < job->n_samples && !job->error; i++) {
        struct rfi_extent e;
        if ((r->any && r->suspects[i].state != RFI_SOUND) || matches(j, job, i, a.ids[i], job->plan.lengths[i]))
            continue;
        if (!job->mixed) /* else nobody knows whose bytes they are */
            wrong_bytes(j, 0, a.ids[i]);
        if (rfi_dataset_extent(j->setup->dataset, a.ids[i], &e) == 0)
            accuse(j, job, i, job->mixed ? RFI_SHARED : RFI_SPOILT, EILSEQ, e.offset);
    }
}

/* The copy for the next attempt at repair.id. A sample's own first read was of copy 0: that one comes last,
 * and only when the read was shared; for a substitute it comes first. */
static bool next_copy(const struct rfi_jobs *j, struct rfi_job *job, bool own)
{
    struct rfi_repair *r = &job->repair;
    uint32_t mirrors = j->run->config.mirrors, k = r->attempt++;
    if (!own) {
        r->copy = k;
        return k <= mirrors;
    }
    r->copy = k < mirrors ? k + 1 : 0;
    return k < mirrors || (k == mirrors && r->suspects[r->slot].state == RFI_SHARED);
}

/* Sets up the read of repair.id into the place of repair.slot. */
static void begin_read(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_repair *r = &job->repair;
    struct rfi_extent e = {0};
    /* A decision that a checkpoint brought may be of another dataset, or made up. */
    bool good = r->id < rfi_dataset_samples(j->setup->dataset) &&
                rfi_dataset_extent(j->setup->dataset, r->id, &e) == 0 && e.bytes <= job->plan.lengths[r->slot];
    r->error = good ? 0 : EBADMSG;
    r->run =
        (struct rfi_run){.file = e.file, .offset = e.offset, .bytes = e.bytes, .place = job->plan.offsets[r->slot]};
    r->reading = true;
    r->issuing = !r->error && e.bytes > 0;
    job->issued = 0;
}

static bool own_turn(const struct rfi_jobs *j, const struct rfi_job *job)
{
    return job->repair.suspects[job->repair.slot].state != RFI_DECIDED && job->repair.id == rfi_policy_own(j, job);
}

/* The next attempt at the slot whose turn it is. False: the slot is settled, or the job has failed. */
static bool attempt(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_repair *r = &job->repair;
    for (;;) {
        if (next_copy(j, job, own_turn(j, job))) {
            begin_read(j, job);
            return true;
        }
        if (r->suspects[r->slot].state == RFI_DECIDED) { /* the substitute is gone too, and no other may come */
            rfi_policy_raise(j, job);
            return false;
        }
        if (rfi_policy_lost(j, job) != RFI_POLICY_TRY)
            return false;
        r->attempt = 0;
    }
}

static const struct rfi_fault *decision_of(const struct rfi_repair *r, uint32_t slot)
{
    for (uint32_t i = 0; i < r->n_decisions; i++)
        if (r->decisions[i].slot == slot)
            return &r->decisions[i];
    return NULL;
}

/* Begins with the slot's suspect; false: nothing is to be read for it. */
static bool begin_slot(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_repair *r = &job->repair;
    const struct rfi_fault *decided = decision_of(r, r->slot);
    r->attempt = 0;
    r->looked = r->tried = 0;
    if (decided && decided->substitute == RFI_FAULT_SKIPPED)
        return false;
    r->id = decided ? decided->substitute : rfi_policy_own(j, job);
    return attempt(j, job);
}

/* A read is over: whether it gave the sample. */
static bool judge(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_repair *r = &job->repair;
    r->reading = false;
    if (r->error)
        return false;
    if (!matches(j, job, r->slot, r->id, r->run.bytes)) {
        wrong_bytes(j, r->copy, r->id);
        return false;
    }
    bool own = own_turn(j, job);
    if (own && r->copy > 0)
        atomic_fetch_add_explicit(&rfi_faults_part(j->run, 1 + j->queue)->repaired, 1, memory_order_relaxed);
    if (!own && r->suspects[r->slot].state != RFI_DECIDED && !rfi_policy_decide(j, job, r->id))
        return true; /* the job has failed: nothing else is tried */
    job->plan.lengths[r->slot] = r->run.bytes;
    return true;
}

/* Leaves out what was skipped: fixed-size samples move up, so that the tensor stays dense; others stay where
 * they are. */
static void settle(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_arrays a;
    struct rfi_repair *r = &job->repair;
    uint64_t fixed = j->run->config.fixed_bytes;
    unsigned char *region = rfi_job_region(j, job);
    uint32_t *from = malloc((job->n_samples ? job->n_samples : 1) * sizeof *from);
    if (!from) {
        rfi_job_fail(job, ENOMEM, 0, 0);
        return;
    }
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    uint32_t n = (uint32_t)rfi_faults_apply(a.ids, a.flags, job->n_samples, r->decisions, r->n_decisions, from);
    for (uint32_t i = 0; i < n; i++) {
        job->plan.lengths[i] = job->plan.lengths[from[i]];
        if (fixed && from[i] != i)
            memmove(region + i * fixed, region + from[i] * fixed, fixed);
        if (!fixed)
            job->plan.offsets[i] = job->plan.offsets[from[i]];
    }
    job->skipped = job->n_samples - n;
    job->n_samples = n;
    free(from);
    rfi_publish_settle(j, job);
}

bool rfi_repair_go(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_repair *r = &job->repair;
    if (!r->begun)
        begin(j, job);
    if (r->reading) {
        if (!judge(j, job) && attempt(j, job))
            return true;
        r->slot++;
    }
    for (; r->any && r->slot < job->n_samples && !job->error; r->slot++)
        if (r->suspects[r->slot].state != RFI_SOUND && begin_slot(j, job))
            return true;
    if (!job->error && j->cache.on)
        rfi_resident_keep(j, job);
    if (!job->error && r->n_decisions)
        settle(j, job);
    return false;
}
