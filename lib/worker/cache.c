/* See cache.h. */
#include "worker/cache.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int rfi_resident_open(struct rfi_resident *c, struct rfi_run_view *run, const struct rfi_dataset *d,
                      struct rfi_error *err)
{
    const struct rfi_config_shared *f = &run->config;
    struct rfi_resident_size size = {.n = f->cache_samples, .unit = f->cache_unit};
    *c = (struct rfi_resident){0};
    if (!rfi_resident_region(run, &c->region))
        return 0;
    c->on = true;
    c->refers =
        f->fixed_bytes == 0 && f->on_error == RF_ON_ERROR_RAISE && !f->mirrors && !f->verify && !f->faults_loaded;
    c->base = run->segment.data + f->cache_first;
    return rfi_resident_map_init(&c->map, d, &size, c->region.places, err);
}

/* Place of the k-th kept sample; false for one that would not lie in the cache (a damaged table). */
static bool place_of(const struct rfi_jobs *j, uint64_t k, uint64_t bytes, uint64_t *ret)
{
    uint64_t room = j->run->config.cache_bytes;
    *ret = rfi_resident_place(&j->cache.map, k);
    return *ret <= room && bytes <= room - *ret;
}

static uint32_t count_empty(const struct rfi_batch_plan *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_samples; i++)
        n += p->lengths[i] == 0;
    return n;
}

/* Everything is there, and samples of varying size are no tensor: the batch says where, and nothing is copied. */
static void refer(struct rfi_jobs *j, struct rfi_job *job)
{
    const uint64_t *ids = j->contents[job->ring].ids;
    const unsigned char *region = rfi_job_region(j, job); /* arenas lie before the cache */
    for (uint32_t i = 0; i < job->n_samples; i++)
        if (job->kept[i])
            job->plan.offsets[i] = (uint64_t)(j->cache.base - region) +
                                   rfi_resident_place(&j->cache.map, rfi_resident_find(&j->cache.map, ids[i]));
    job->resident = true;
    atomic_fetch_add_explicit(&j->record->cached, job->n_samples, memory_order_relaxed);
}

int rfi_resident_look(struct rfi_jobs *j, struct rfi_job *job)
{
    struct rfi_resident *c = &j->cache;
    const uint64_t *ids = j->contents[job->ring].ids;
    uint32_t n = 0;
    job->copies_left = 0;
    if (!job->kept && !(job->kept = malloc(j->run->config.batch)))
        return -ENOMEM;
    for (uint32_t i = 0; i < job->n_samples; i++) {
        uint64_t place, k = rfi_resident_find(&c->map, ids[i]);
        job->kept[i] = k != RFI_RESIDENT_NONE && rfi_resident_is_kept(&c->region, k) && job->plan.lengths[i] > 0 &&
                       place_of(j, k, job->plan.lengths[i], &place);
        n += job->kept[i];
    }
    if (n == 0)
        return 0;
    if (c->refers && n + count_empty(&job->plan) == job->n_samples)
        refer(j, job);
    else
        job->copies_left = n;
    rfi_plan_omit(&job->plan, j->run->config.align, rfi_dataset_fixed_bytes(j->setup->dataset) != 0, job->kept);
    return 0;
}

/* Large batches take long: others must see that we live. */
static void beat(struct rfi_jobs *j, uint64_t bytes)
{
    j->queued_bytes += bytes;
    j->unbeaten_bytes += bytes;
    if (j->unbeaten_bytes < RFI_PIECE_BYTES)
        return;
    j->unbeaten_bytes = 0;
    atomic_store_explicit(&j->record->heartbeat_ns, rfi_now_ns(), memory_order_relaxed);
}

void rfi_resident_copy(struct rfi_jobs *j, struct rfi_job *job)
{
    unsigned char *region = rfi_job_region(j, job);
    struct rfi_arrays a;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    for (uint32_t i = 0; i < job->n_samples; i++) {
        uint64_t place;
        if (!job->kept[i] || !place_of(j, rfi_resident_find(&j->cache.map, a.ids[i]), job->plan.lengths[i], &place))
            continue;
        memcpy(region + job->plan.offsets[i], j->cache.base + place, job->plan.lengths[i]);
        beat(j, job->plan.lengths[i]);
    }
    atomic_fetch_add_explicit(&j->record->cached, job->copies_left, memory_order_relaxed);
    job->copies_left = 0;
}

/* The memory of [from, from + bytes). Where /dev/shm has none left the cache stays as it is. */
static bool has_memory(struct rfi_jobs *j, uint64_t from, uint64_t bytes)
{
    const struct rfi_resident_region *r = &j->cache.region;
    struct rfi_error err = {0};
    for (uint64_t chunk = from / RFI_RESIDENT_CHUNK; chunk * RFI_RESIDENT_CHUNK < from + bytes; chunk++) {
        if (atomic_load_explicit(&r->chunks[chunk], memory_order_relaxed))
            continue;
        if (rfi_segment_populate(&j->run->segment, j->run->config.cache_first + chunk * RFI_RESIDENT_CHUNK,
                                 RFI_RESIDENT_CHUNK, &err) < 0) {
            if (!atomic_exchange_explicit(&r->head->full, 1, memory_order_relaxed))
                rfi_log(RFI_LOG_WARNING, "the resident cache stays as it is: %s", err.text);
            return false;
        }
        atomic_store_explicit(&r->chunks[chunk], 1, memory_order_relaxed); /* pages that exist need no order */
    }
    return true;
}

static bool keep(struct rfi_jobs *j, uint64_t k, const unsigned char *from, uint64_t bytes)
{
    struct rfi_resident_region *r = &j->cache.region;
    uint64_t place;
    if (!place_of(j, k, bytes, &place))
        return true;
    if (!has_memory(j, place, bytes))
        return false;
    memcpy(j->cache.base + place, from, bytes);
    if (rfi_resident_set_kept(r, k)) {
        atomic_fetch_add_explicit(&r->head->samples, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->head->bytes, bytes, memory_order_relaxed);
    }
    beat(j, bytes);
    return true;
}

void rfi_resident_keep(struct rfi_jobs *j, struct rfi_job *job)
{
    const unsigned char *region = rfi_job_region(j, job);
    const struct rfi_repair *r = &job->repair;
    struct rfi_arrays a;
    if (atomic_load_explicit(&j->cache.region.head->full, memory_order_relaxed))
        return;
    rfi_run_arrays(j->run, job->ring, job->claim.slot, &a);
    for (uint32_t i = 0; i < job->n_samples; i++) {
        uint64_t k = job->kept[i] ? RFI_RESIDENT_NONE : rfi_resident_find(&j->cache.map, a.ids[i]);
        if (k == RFI_RESIDENT_NONE || job->plan.lengths[i] == 0 || rfi_resident_is_kept(&j->cache.region, k) ||
            (r->any && r->suspects[i].state != RFI_SOUND))
            continue;
        if (!keep(j, k, region + job->plan.offsets[i], job->plan.lengths[i]))
            return;
    }
}
