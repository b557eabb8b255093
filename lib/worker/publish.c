/* See publish.h. */
#include "worker/publish.h"

#include "base/clock.h"
#include "topology/topology.h"

#include <errno.h>
#include <string.h>

/* Returns the bytes of the sample's fields joined. */
static uint64_t describe_fields(struct rfi_jobs *j, const struct rfi_arrays *a, uint64_t id, uint32_t i)
{
    uint64_t bytes = 0;
    struct rfi_span spans[RFI_MAX_FIELDS_PER_SAMPLE];
    uint32_t n_fields = j->run->config.n_fields;
    uint64_t *offsets = a->field_offsets + (uint64_t)i * n_fields, *lengths = a->field_lengths + (uint64_t)i * n_fields;
    int n = rfi_dataset_spans(j->setup->dataset, id, spans);
    for (uint32_t f = 0; f < n_fields; f++) {
        offsets[f] = UINT64_MAX;
        lengths[f] = 0;
    }
    for (int s = 0; s < n; s++) {
        if (spans[s].field >= n_fields)
            continue;
        offsets[spans[s].field] = a->offsets[i] + spans[s].offset;
        lengths[spans[s].field] = spans[s].bytes;
        bytes += spans[s].bytes;
    }
    return bytes;
}

static void describe_labels(struct rfi_jobs *j, const struct rfi_arrays *a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!rfi_dataset_label(j->setup->dataset, a->ids[i], &a->labels[i]))
            a->labels[i] = INT64_MIN;
}

static uint64_t sum_of(const struct rfi_jobs *j, const uint64_t *lengths, uint32_t n)
{
    uint64_t sum = 0;
    if (j->run->config.fixed_bytes)
        return n * j->run->config.fixed_bytes;
    for (uint32_t i = 0; i < n; i++)
        sum += lengths[i];
    return sum;
}

static void settle(struct rfi_jobs *j, struct rfi_job *job, struct rfi_slot_shared *slot, const struct rfi_arrays *a)
{
    uint32_t n = job->n_samples;
    job->payload_bytes = 0;
    if (!job->error) {
        memcpy(a->offsets, job->plan.offsets, n * sizeof *a->offsets);
        memcpy(a->lengths, job->plan.lengths, n * sizeof *a->lengths);
        for (uint32_t i = 0; a->field_offsets && i < n; i++)
            job->payload_bytes += describe_fields(j, a, a->ids[i], i);
        if (!a->field_offsets)
            job->payload_bytes = sum_of(j, a->lengths, n);
    }
    if (a->labels)
        describe_labels(j, a, n);
    slot->n_samples = n;
    slot->skipped = job->skipped;
    slot->payload_bytes = job->payload_bytes;
}

void rfi_publish_settle(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_arrays a;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    settle(j, job, &j->run->rings[job->ring].slots[job->claim.slot], &a);
}

void rfi_publish_describe(struct rfi_jobs *j, struct rfi_job *job, uint64_t epoch, uint64_t batch,
                          const struct rfi_content *content)
{
    struct rfi_slot_shared *slot = &j->run->rings[job->ring].slots[job->claim.slot];
    struct rfi_arrays a;
    uint32_t n = job->n_samples;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    memcpy(a.ids, content->ids, n * sizeof *a.ids);
    memcpy(a.flags, content->flags, n);
    settle(j, job, slot, &a);
    /* Where it lies is there since the claim; who publishes comes with the publication. */
    slot->epoch = epoch;
    slot->batch = batch;
    slot->last = job->last;
    slot->resident = job->resident;
    slot->claimed_ns = job->claimed_ns;
    slot->remote = j->run->config.nodes > 1 && rfi_topology_current_node() != j->run->ranks[job->ring].node;
    slot->error = 0;
}

/* The first sample of the batch that lies at or across the failed place. */
static uint64_t failed_sample(struct rfi_jobs *j, const struct rfi_job *job)
{
    struct rfi_arrays a;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    for (uint32_t i = 0; i < job->n_samples; i++) {
        struct rfi_extent e;
        if (rfi_dataset_extent(j->setup->dataset, a.ids[i], &e) == 0 && e.file == job->error_file &&
            e.offset + e.bytes > job->error_offset && e.bytes)
            return a.ids[i];
    }
    return job->n_samples ? a.ids[0] : 0;
}

static void add(_Atomic uint64_t *word, uint64_t n)
{
    atomic_fetch_add_explicit(word, n, memory_order_relaxed); /* statistics: nothing is ordered by them */
}

void rfi_publish_job(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_ring *r = &j->run->rings[job->ring];
    struct rfi_slot_shared *slot = &r->slots[job->claim.slot];
    uint64_t now = rfi_now_ns();
    slot->published_ns = now;
    if (job->error) {
        slot->error = job->error;
        slot->error_file = job->error_file;
        slot->error_offset = job->error_offset;
        slot->error_sample = job->error_sample_known ? job->error_sample : failed_sample(j, job);
        add(&j->record->errors, 1);
        rfi_ring_publish_error(r, j->worker, &job->claim, 0);
        return;
    }
    add(&j->record->batches, 1);
    add(&j->record->samples, job->n_samples);
    add(&j->record->bytes, job->payload_bytes);
    add(&j->record->load_ns, now - job->claimed_ns);
    rfi_ring_publish(r, j->worker, &job->claim);
}
