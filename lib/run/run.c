/* Sizes and handles of a run's regions; see run.h. */
#include "run/run.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "reader/choose.h"
#include "run/cache.h"
#include "run/faults.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(((struct rfi_coordinator_shared *)0)->owner), "owner mutex");

static uint64_t descriptor_bytes(const struct rfi_config_shared *c)
{
    uint64_t words = 3 + (c->has_labels ? 1 : 0) + (c->n_fields > 1 ? 2 * (uint64_t)c->n_fields : 0);
    return rfi_align_up(c->batch * (8 * words + 1), 64);
}

int rfi_run_size(struct rfi_config_shared *c, uint64_t dataset_bytes, uint64_t membership_bytes, uint64_t origin_bytes,
                 struct rfi_run_size *ret, struct rfi_error *err)
{
    struct rfi_region_shared regions[RFI_N_REGIONS];
    uint64_t data;
    if (c->workers + (uint64_t)c->spares > RFI_MAX_WORKERS)
        return rfi_fail(err, EINVAL, "%u workers and %u spares are more than 64 io_urings. Lower --workers or --spares",
                        c->workers, c->spares);
    if (c->batch > UINT32_MAX || c->depth > 4096 || c->ranks > 4096 || c->workers > RFI_MAX_WORKERS ||
        c->moves_cap > 1 << 20)
        return rfi_fail(err, EINVAL,
                        "absurd numbers: batch %" PRIu64 " (at most 4294967295), prefetch %u (4096), ranks %u (4096), "
                        "workers %u (64). Lower them",
                        c->batch, c->depth, c->ranks, c->workers);
    c->generations_cap = 4;
    while (c->generations_cap < c->depth + 2)
        c->generations_cap *= 2;
    c->recorder_entries = RFI_RECORDER_ENTRIES;
    c->descriptor_stride = descriptor_bytes(c);
    uint64_t slots = (uint64_t)c->ranks * c->depth;
    if (c->descriptor_stride > UINT32_MAX)
        return rfi_fail(err, EINVAL, "a batch of %" PRIu64 " samples is too large to describe. Lower --batch",
                        c->batch);
    *ret = (struct rfi_run_size){
        .regions = {
            [RFI_R_CONFIG] = {sizeof(struct rfi_config_shared), 1},
            [RFI_R_COORDINATOR] = {sizeof(struct rfi_coordinator_shared), 1},
            [RFI_R_WORKERS] = {sizeof(struct rfi_worker_shared), c->workers},
            [RFI_R_RANKS] = {sizeof(struct rfi_rank_shared), c->ranks},
            [RFI_R_INFLIGHT] = {sizeof(struct rfi_inflight_shared), (uint64_t)c->queues * c->queue_depth},
            [RFI_R_RECORDER] = {sizeof(struct rfi_recorder_shared) + sizeof(struct rfi_recorded) * RFI_RECORDER_ENTRIES,
                                1},
            [RFI_R_RINGS] = {sizeof(struct rfi_ring_shared), c->ranks},
            [RFI_R_SLOTS] = {sizeof(struct rfi_slot_shared), slots},
            [RFI_R_GENERATIONS] = {sizeof(struct rfi_generation), (uint64_t)c->ranks * c->generations_cap},
            [RFI_R_DESCRIPTORS] = {(uint32_t)c->descriptor_stride, slots},
            [RFI_R_TRAINERS] = {RFI_TRAINER_BYTES, c->ranks},
            [RFI_R_BELLS] = {RFI_BELL_BYTES, 1},
            [RFI_R_DATASET] = {1, dataset_bytes},
            [RFI_R_MEMBERSHIP] = {1, membership_bytes},
            [RFI_R_ORIGIN] = {1, origin_bytes},
            [RFI_R_MOVES] = {1, sizeof(struct rfi_moves_shared) + c->moves_cap * sizeof(struct rfi_move)},
            [RFI_R_FAULTS] = {1, rfi_faults_bytes(c)},
            [RFI_R_HISTORY] = {sizeof(struct rfi_history_shared), (uint64_t)c->workers + c->ranks},
            [RFI_R_CACHE] = {1, rfi_resident_region_bytes(c)},
        }};
    int rc = rfi_segment_layout(ret->regions, RFI_N_REGIONS, regions, &ret->control_bytes, err);
    if (rc < 0)
        return rc;
    uint64_t grain = c->arena_bytes >= 2 << 20 ? 2 << 20 : 4096;
    grain = rfi_max(grain, c->align);
    c->arena_first = grain; /* the payload's header page lies before it */
    c->arena_stride = rfi_align_up(c->arena_bytes, grain);
    c->arenas = c->ranks * (1 + c->spares);
    if (rfi_mul_over(c->arena_stride, c->arenas, &data) || rfi_add_over(data, c->arena_first, &data) ||
        data > UINT64_MAX / 4)
        return rfi_fail(err, EOVERFLOW, "the arenas would be larger than any memory. Lower --ring-bytes or --ranks");
    c->cache_first = rfi_align_up(data, RFI_RESIDENT_CHUNK);
    ret->data_bytes = c->cache_samples ? c->cache_first + c->cache_bytes : data;
    ret->cache_bytes = ret->data_bytes - data;
    ret->spare_bytes = c->arena_stride * c->arenas - rfi_run_arena_at_first(c) * c->ranks;
    return 0;
}

uint64_t rfi_run_signature(void)
{
    const uint64_t sizes[] = {sizeof(struct rfi_config_shared),
                              sizeof(struct rfi_coordinator_shared),
                              sizeof(struct rfi_worker_shared),
                              sizeof(struct rfi_rank_shared),
                              sizeof(struct rfi_inflight_shared),
                              sizeof(struct rfi_ring_shared),
                              sizeof(struct rfi_slot_shared),
                              sizeof(struct rfi_generation),
                              sizeof(struct rfi_trainer_shared),
                              sizeof(struct rfi_bell_shared),
                              sizeof(struct rfi_recorded),
                              sizeof(struct rfi_moves_shared),
                              sizeof(struct rfi_fault),
                              sizeof(struct rfi_fault_part),
                              sizeof(struct rfi_history_shared),
                              sizeof(struct rfi_resident_shared),
                              RFI_N_REGIONS};
    uint64_t h = 14695981039346656037u; /* FNV-1a over the words */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        h = (h ^ sizes[i]) * 1099511628211u;
    return h;
}

static void *region(const struct rfi_run_view *r, enum rfi_region_id id)
{
    return rfi_segment_region(&r->segment, id);
}

/* The regions of an attached segment must have exactly the sizes that its config implies. */
static int check_config(struct rfi_run_view *r, struct rfi_error *err)
{
    struct rfi_config_shared c = r->config;
    struct rfi_run_size size;
    bool ok = r->segment.n_regions == RFI_N_REGIONS && c.ranks && c.depth && c.arena_bytes <= UINT64_MAX / 4 &&
              c.align >= 512 && !(c.align & (c.align - 1)) && c.arena_bytes && c.arena_bytes % c.align == 0 &&
              c.lap_bytes && c.lap_bytes <= c.arena_bytes && c.lap_bytes % c.align == 0 &&
              c.nodes <= RFI_BELL_BYTES / sizeof(struct rfi_bell_shared) && c.nodes && c.queues &&
              c.spares <= RFI_MAX_WORKERS && c.queues == c.workers + c.spares && c.queue_depth &&
              (uint64_t)c.first_rank + c.ranks <= c.world_size && c.queue_depth <= 4096 && c.n_fields < 65536 &&
              c.batch && c.fixed_bytes <= UINT64_MAX / 4 && c.faults_loaded <= RFI_FAULTS_LOADED_MAX &&
              c.cache_samples <= UINT64_MAX / 64 && c.cache_bytes <= UINT64_MAX / 8 &&
              c.cache_bytes % RFI_RESIDENT_CHUNK == 0;
    ok = ok && rfi_run_size(&c, r->segment.regions[RFI_R_DATASET].bytes, r->segment.regions[RFI_R_MEMBERSHIP].bytes,
                            r->segment.regions[RFI_R_ORIGIN].bytes, &size, err) == 0;
    for (uint32_t i = 0; ok && i < RFI_N_REGIONS; i++)
        ok = r->segment.regions[i].element_bytes == size.regions[i].element_bytes &&
             r->segment.regions[i].count == size.regions[i].count;
    ok = ok && c.generations_cap == r->config.generations_cap && c.descriptor_stride == r->config.descriptor_stride &&
         c.arena_stride == r->config.arena_stride && c.arena_first == r->config.arena_first &&
         c.arenas == r->config.arenas && c.cache_first == r->config.cache_first &&
         size.data_bytes <= r->segment.data_bytes;
    if (!ok)
        return rfi_fail(
            err, EPROTO,
            "the segment '%s' is damaged: its configuration does not fit its regions. Stop its server and remove "
            "it with `ringfeed gc`",
            r->segment.name);
    r->config.fingerprint[sizeof r->config.fingerprint - 1] = 0;
    return 0;
}

static int open_rings(struct rfi_run_view *r, struct rfi_error *err)
{
    const struct rfi_config_shared *c = &r->config;
    r->rings = calloc(c->ranks, sizeof *r->rings);
    if (!r->rings)
        return rfi_fail(err, ENOMEM, "out of memory");
    for (uint32_t i = 0; i < c->ranks; i++) {
        struct rfi_ring *g = &r->rings[i];
        g->sh = (struct rfi_ring_shared *)region(r, RFI_R_RINGS) + i;
        g->slots = (struct rfi_slot_shared *)region(r, RFI_R_SLOTS) + (uint64_t)i * c->depth;
        g->generations = (struct rfi_generation *)region(r, RFI_R_GENERATIONS) + (uint64_t)i * c->generations_cap;
        g->tr =
            (struct rfi_trainer_shared *)((unsigned char *)region(r, RFI_R_TRAINERS) + (uint64_t)i * RFI_TRAINER_BYTES);
        uint32_t node = g->sh->node < c->nodes ? g->sh->node : 0;
        g->bell = (struct rfi_bell_shared *)region(r, RFI_R_BELLS) + node;
        g->rank = c->first_rank + i;
        g->depth = c->depth;
        g->generations_cap = c->generations_cap;
        g->arena_bytes = c->arena_bytes;
        g->lap_bytes = c->lap_bytes;
        g->ahead = c->prefetch;
        g->align = c->align;
    }
    return 0;
}

static int open_view(struct rfi_segment *s, bool owner, const struct rfi_config_shared *config,
                     struct rfi_run_view *ret, struct rfi_error *err)
{
    *ret = (struct rfi_run_view){.segment = *s};
    struct rfi_config_shared *shared = NULL;
    if (s->n_regions > RFI_R_CONFIG && s->regions[RFI_R_CONFIG].bytes == sizeof *shared)
        shared = rfi_segment_region(s, RFI_R_CONFIG);
    if (!shared)
        return rfi_fail(err, EPROTO, "the segment '%s' is damaged: no configuration. Remove it with `ringfeed gc`",
                        s->name);
    if (owner)
        *shared = *config;
    ret->config = *shared;
    int rc = check_config(ret, err);
    if (rc < 0)
        return rc;
    ret->coordinator = region(ret, RFI_R_COORDINATOR);
    ret->workers = region(ret, RFI_R_WORKERS);
    ret->ranks = region(ret, RFI_R_RANKS);
    ret->inflight = region(ret, RFI_R_INFLIGHT);
    ret->recorder = region(ret, RFI_R_RECORDER);
    ret->recorded = (struct rfi_recorded *)(ret->recorder + 1);
    ret->descriptors = region(ret, RFI_R_DESCRIPTORS);
    ret->dataset = region(ret, RFI_R_DATASET);
    ret->dataset_bytes = s->regions[RFI_R_DATASET].bytes;
    ret->membership = region(ret, RFI_R_MEMBERSHIP);
    ret->moves = region(ret, RFI_R_MOVES);
    ret->faults = region(ret, RFI_R_FAULTS);
    ret->history = region(ret, RFI_R_HISTORY);
    return open_rings(ret, err);
}

int rfi_run_open(struct rfi_segment *s, bool owner, const struct rfi_config_shared *config, struct rfi_run_view *ret,
                 struct rfi_error *err)
{
    int rc = open_view(s, owner, config, ret, err);
    if (rc < 0) /* the segment is still the caller's alone, or it would be closed twice */
        *ret = (struct rfi_run_view){.segment = {.lock_fd = -1, .control_fd = -1, .data_fd = -1}};
    return rc;
}

void rfi_run_close(struct rfi_run_view *r)
{
    free(r->rings);
    r->rings = NULL;
    rfi_segment_detach(&r->segment);
}

int rfi_run_attach(const char *name, bool map_data, struct rfi_run_view *ret, struct rfi_error *err)
{
    struct rfi_segment s;
    int rc = rfi_segment_attach(name, rfi_run_signature(), map_data, &s, err);
    if (rc < 0)
        return rc;
    rc = rfi_run_open(&s, false, NULL, ret, err);
    if (rc < 0)
        rfi_segment_detach(&s);
    return rc;
}

/* glibc keeps the futex word of a mutex first; the kernel sets FUTEX_OWNER_DIED in it when the owner's
 * thread ends. Checked by a test, so that another libc would be noticed. */
bool rfi_run_orphaned(const struct rfi_run_view *r)
{
    uint32_t word = atomic_load_explicit((_Atomic uint32_t *)(void *)r->coordinator->owner, memory_order_acquire);
    return (word & FUTEX_OWNER_DIED) || (word & FUTEX_TID_MASK) == 0;
}

int rfi_run_own(struct rfi_run_view *r, struct rfi_error *err)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t *m = (pthread_mutex_t *)(void *)r->coordinator->owner;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    int rc = pthread_mutex_init(m, &attr);
    if (rc == 0)
        rc = pthread_mutex_lock(m);
    pthread_mutexattr_destroy(&attr);
    return rc ? rfi_fail(err, rc, "cannot make the owner mutex: %s", strerror(rc)) : 0;
}

void rfi_run_disown(struct rfi_run_view *r)
{
    pthread_mutex_unlock((pthread_mutex_t *)(void *)r->coordinator->owner);
}

void rfi_run_record(struct rfi_run_view *r, uint64_t now_ns, uint32_t ring, uint32_t worker, uint64_t ticket,
                    uint64_t data_offset)
{
    /* Relaxed: a torn line is a torn line; nothing is decided by it. */
    uint64_t i = atomic_fetch_add_explicit(&r->recorder->next, 1, memory_order_relaxed) % r->config.recorder_entries;
    struct rfi_recorded *e = &r->recorded[i];
    atomic_store_explicit(&e->time_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&e->ticket, ticket, memory_order_relaxed);
    atomic_store_explicit(&e->ring, ring, memory_order_relaxed);
    atomic_store_explicit(&e->worker, worker, memory_order_relaxed);
    atomic_store_explicit(&e->data_offset, data_offset, memory_order_relaxed);
}

void rfi_run_engine_name(const struct rfi_config_shared *c, uint32_t reading, char ret[RFI_ENGINE_NAME])
{
    bool copies = reading & RFI_READ_COPIES, direct = reading & RFI_READ_DIRECT;
    const char *name = c->engine == RF_ENGINE_NULL ? "null" : c->engine == RF_ENGINE_PREAD ? "pread" : "uring";
    if (copies && c->engine == RF_ENGINE_URING)
        name = "mapped";
    if (copies && c->engine == RF_ENGINE_PREAD)
        name = "mapped+pread";
    snprintf(ret, RFI_ENGINE_NAME, "%s%s", name, direct && strlen(name) <= 6 ? "+direct" : "");
}
