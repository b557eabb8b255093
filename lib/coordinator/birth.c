/* Making a run, in the order that lib/README.md gives ("Birth"), and taking it down. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "order/past.h"
#include "plan/cache.h"
#include "reader/choose.h"
#include "run/cache.h"
#include "segment/pages.h"
#include "segment/room.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The cache takes its memory as it fills; whether there is room for it is asked now. */
static int before_touch(void *ctx, unsigned char *control, unsigned char *data, struct rfi_error *err)
{
    struct rfi_coordinator *c = ctx;
    const struct rfi_run_size *size = &c->plan.size;
    uint64_t bytes = size->control_bytes + size->data_bytes - size->spare_bytes;
    (void)control;
    int rc = size->cache_bytes ? rfi_room_check(bytes, bytes, err) : 0;
    if (rc == 0)
        rfi_where_bind(c, data);
    return rc;
}

/* The bell of a ring: its node's, or, where no worker lives, one that a worker sleeps on. */
static uint32_t bell_node(const struct rfi_coordinator *c, uint32_t rank)
{
    uint32_t node = c->placement.rank_node[rank];
    if (c->plan.config.replication > 1) /* only its keepers come when it rings */
        return c->placement.worker_node[c->keepers[(size_t)rank * c->plan.config.replication]];
    for (uint32_t w = 0; w < c->plan.config.workers; w++)
        if (c->placement.worker_node[w] == node)
            return node;
    return c->placement.worker_node[0];
}

static int make_segment(struct rfi_coordinator *c)
{
    struct rfi_segment s;
    size_t bytes;
    const struct rfi_config_shared *f = &c->plan.config;
    const struct rfi_pieces there = {f->arena_first, f->arena_stride, rfi_run_arena_at_first(f), f->ranks};
    int rc = rfi_segment_create_sparse(
        c->o->name, c->plan.size.regions, RFI_N_REGIONS, c->plan.size.data_bytes - RFI_HEADER_BYTES, &there,
        c->plan.size.spare_bytes + c->plan.size.cache_bytes, rfi_run_signature(), before_touch, c, &s, c->err);
    if (rc < 0)
        return rc;
    /* The copy comes first: opening the rings reads their nodes. */
    struct rfi_ring_shared *rings = rfi_segment_region(&s, RFI_R_RINGS);
    for (uint32_t i = 0; i < c->plan.config.ranks; i++)
        rings[i].node = bell_node(c, i);
    rc = rfi_run_open(&s, true, &c->plan.config, &c->run, c->err);
    if (rc < 0) {
        rfi_segment_destroy(&s);
        return rc;
    }
    const void *core = rfi_dataset_core(c->o->dataset, &bytes);
    memcpy((void *)(uintptr_t)c->run.dataset, core, bytes);
    return rfi_dataset_from_image(c->run.dataset, bytes, &c->dataset, c->err);
}

uint64_t rfi_end_ticket(const struct rfi_coordinator *c, uint32_t rank, uint64_t first_ticket, uint64_t epoch,
                        uint64_t batch)
{
    const struct rfi_epoch_lens *lens = &c->run.ranks[rank].lens;
    uint64_t end;
    if (c->o->epochs == 0) /* for ever, but of nothing */
        return lens->len || rfi_run_batches(lens, epoch, batch, lens->first + lens->n) ? UINT64_MAX : first_ticket;
    end = rfi_run_batches(lens, epoch, batch, c->o->start_epoch + c->o->epochs);
    return rfi_add_over(end, first_ticket, &end) ? UINT64_MAX : end;
}

/* Lengths of the epochs that are not like the others: dealt anew, or (where nothing moves any more) moved in. */
static void set_lens(struct rfi_coordinator *c, uint32_t i)
{
    const struct rfi_stage_state *now = rfi_state_last(&c->plan.birth);
    struct rfi_epoch_lens *lens = &c->run.ranks[i].lens;
    uint32_t rank = c->plan.config.first_rank + i;
    uint64_t first, n, end;
    rfi_order_unfinished(c->order, &first, &n);
    end = first + n;
    if (!c->plan.config.gated)
        for (uint64_t m = 0; m < now->n_moves; m++) {
            first = n ? rfi_min(first, now->moves[m].epoch) : now->moves[m].epoch;
            end = n ? rfi_max(end, now->moves[m].epoch + 1) : now->moves[m].epoch + 1;
            n = end - first;
        }
    *lens = (struct rfi_epoch_lens){
        .len = rfi_order_len(c->order, rank), .first = n ? first : 0, .n = rfi_min(n, RFI_UNFINISHED_MAX)};
    for (uint64_t e = 0; e < lens->n; e++)
        lens->unfinished[e] = c->plan.config.gated ? rfi_order_len_in(c->order, first + e, rank)
                                                   : rfi_moves_len(c->order, first + e, rank, now->moves, now->n_moves);
}

static uint64_t samples_in(const struct rfi_coordinator *c, uint64_t epoch, uint32_t rank)
{
    return c->o->order->tail == RF_TAIL_UNEVEN ? rfi_order_rank_samples_in(c->order, epoch, rank)
                                               : rfi_order_len_in(c->order, epoch, rank) * c->plan.config.batch;
}

/* What progress counts up to. Plain epochs are alike. */
static uint64_t total_samples(const struct rfi_coordinator *c, uint32_t rank, const struct rfi_position *at)
{
    uint64_t first, n, end = c->o->start_epoch + c->o->epochs, total = 0, plain;
    if (c->o->epochs == 0 || at->epoch >= end)
        return 0;
    rfi_order_unfinished(c->order, &first, &n);
    plain = end - at->epoch;
    for (uint64_t e = rfi_max(first, at->epoch); n && e < first + n && e < end; e++, plain--)
        total += samples_in(c, e, rank);
    total += plain * samples_in(c, UINT64_MAX, rank);
    return total - rfi_min(total, at->batch * c->plan.config.batch);
}

/* Where the rank's ring begins. A gated ring begins at ticket 1: a stop of 0 means none. */
static struct rfi_generation first_generation(const struct rfi_coordinator *c, uint32_t i)
{
    const struct rfi_stage_state *now = rfi_state_last(&c->plan.birth);
    uint32_t rank = c->plan.config.first_rank + i;
    const struct rfi_position *at = &now->at[rank];
    struct rfi_generation g = {.epoch = at->epoch,
                               .batch = at->batch,
                               .end_ticket = UINT64_MAX,
                               .log_length = now->n_moves,
                               .arena = rfi_arena_word(i, 0)};
    if (c->plan.config.gated && c->o->epochs && at->epoch >= c->o->start_epoch + c->o->epochs) {
        g.first_ticket = g.end_ticket = 1; /* resumed behind its last epoch */
    } else if (c->plan.config.gated) {
        g.first_ticket = 1;
        g.stop_ticket = 1 + rfi_moves_len(c->order, at->epoch, rank, now->moves, now->n_moves) - at->batch;
    } else {
        g.end_ticket = rfi_end_ticket(c, i, 0, at->epoch, at->batch);
    }
    return g;
}

/* Who reads for whom. */
static int place_keepers(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->plan.config;
    uint32_t k = f->replication;
    c->keepers = calloc((size_t)f->ranks * k, sizeof *c->keepers);
    if (!c->keepers)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    return rfi_placement_keepers(&c->topology, &c->placement, f->ranks, f->workers, k, c->keepers, c->err);
}

static void store_keepers(struct rfi_coordinator *c)
{
    uint32_t k = c->plan.config.replication;
    for (uint32_t i = 0; i < c->plan.config.ranks; i++) {
        uint64_t may = k > 1 ? 0 : UINT64_MAX;
        for (uint32_t n = 0; n < k; n++) {
            c->run.ranks[i].keeper[n] = (uint8_t)c->keepers[(size_t)i * k + n];
            may |= UINT64_C(1) << c->keepers[(size_t)i * k + n];
        }
        atomic_store_explicit(&c->run.ranks[i].keepers, may, memory_order_relaxed);
    }
}

static int make_rings(struct rfi_coordinator *c)
{
    const struct rfi_stage_state *now = rfi_state_last(&c->plan.birth);
    c->order = c->plan.order;
    if (c->plan.membership_bytes)
        rfi_order_move_table(c->plan.order, c->run.membership);
    memcpy(rfi_segment_region(&c->run.segment, RFI_R_ORIGIN), c->plan.origin, c->plan.origin_bytes);
    if (now->n_moves)
        memcpy(c->run.moves->entries, now->moves, now->n_moves * sizeof *now->moves);
    atomic_store_explicit(&c->run.moves->n, now->n_moves, memory_order_release); /* the entries stand before it */
    rfi_order_set_moves(c->plan.order, c->run.moves->entries, now->n_moves);
    for (uint32_t i = 0; i < c->plan.config.ranks; i++) {
        uint32_t rank = c->plan.config.first_rank + i;
        set_lens(c, i);
        struct rfi_generation g = first_generation(c, i);
        rfi_ring_init(&c->run.rings[i], &g);
        c->run.rings[i].sh->node = bell_node(c, i);
        c->run.ranks[i].epoch_samples = samples_in(c, UINT64_MAX, rank);
        c->run.ranks[i].total_samples = total_samples(c, rank, &now->at[rank]);
        c->run.ranks[i].node = c->topology.nodes[c->placement.rank_node[i]].os_node;
    }
    store_keepers(c);
    rfi_where_check(c);
    return 0;
}

/* Where the cache has what, for variable sizes. */
static int make_cache(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->plan.config;
    struct rfi_resident_region region;
    struct rfi_resident_map map;
    if (!rfi_resident_region(&c->run, &region) || !region.places)
        return 0;
    struct rfi_resident_size size = {.n = f->cache_samples, .unit = f->cache_unit};
    int rc = rfi_resident_map_init(&map, c->dataset, &size, region.places, c->err);
    if (rc == 0)
        rc = rfi_resident_map_fill(&map, c->dataset, region.places, c->err);
    rfi_resident_map_fini(&map);
    return rc;
}

static void close_readers(struct rfi_coordinator *c)
{
    for (uint32_t q = 0; c->readers && q < c->plan.config.queues; q++) {
        if (c->readers[q].ops)
            c->readers[q].ops->close(&c->readers[q]);
        c->readers[q].ops = NULL;
    }
}

static bool copies(const struct rfi_coordinator *c)
{
    return c->o->engine == RF_ENGINE_AUTO || c->o->engine == RF_ENGINE_MAPPED;
}

/* All alike. Where the queue may be chosen, a limit may be met after the first io_uring (RLIMIT_MEMLOCK counts them
 * all): then none has one. Leaves what the queue is in *queue. */
static int open_readers(struct rfi_coordinator *c, rf_engine *queue)
{
    bool chosen = *queue == RF_ENGINE_AUTO;
    uint32_t depth = c->run.config.queue_depth;
    for (uint32_t q = 0; q < c->run.config.queues; q++) {
        int rc = copies(c) ? rfi_reader_open_mapped(&c->readers[q], *queue, depth, c->err)
                           : rfi_reader_open(&c->readers[q], *queue, depth, c->err);
        if (rc < 0 && q > 0 && chosen) {
            rfi_log(RFI_LOG_WARNING, "%s; reading with pread instead", c->err->text);
            close_readers(c);
            *queue = RF_ENGINE_PREAD;
            return open_readers(c, queue);
        }
        if (rc < 0)
            return rc;
        if (*queue == RF_ENGINE_AUTO)
            *queue = rfi_reader_overlaps(&c->readers[0]) ? RF_ENGINE_URING : RF_ENGINE_PREAD;
    }
    return 0;
}

/* Where reads go past the page cache, the queues are told where they will land: in the arenas, or, of whole blocks, in
 * their own staging, which is in huge pages then (lib/README.md, "Sweeps"). A failure is said once and lived with: an ordinary user may lock little memory. */
static void prepare_queues(struct rfi_coordinator *c)
{
    const struct rfi_config_shared *f = &c->run.config;
    struct rfi_pieces p = {f->arena_first, f->arena_stride, rfi_run_arena_at_first(f), f->ranks};
    if (f->sweeps)
        p = (struct rfi_pieces){.bytes = (uint64_t)f->queue_depth * f->staging_bytes, .n = 1};
    uint32_t reading = atomic_load_explicit(&c->run.coordinator->reading, memory_order_relaxed);
    for (uint32_t q = 0; reading & RFI_READ_DIRECT && q < f->queues; q++) {
        struct rfi_reader *r = &c->readers[q];
        if (f->sweeps) /* where it fails the kernel does it for the reads, in small pages */
            (void)!rfi_pages_populate(-1, c->staging[q], 0, p.bytes);
        const struct rfi_landing l = {(f->sweeps ? c->staging[q] : c->run.segment.data) + p.first, p.stride, p.bytes,
                                      p.n};
        int rc = r->ops->prepare ? r->ops->prepare(r, &l, q && !f->sweeps ? &c->readers[0] : NULL) : 0;
        if (rc == 0)
            continue;
        rfi_log(RFI_LOG_INFO,
                "O_DIRECT reads pin their memory one by one: it cannot be registered with %s: %s. They cost a little "
                "more CPU time; raise the limit on locked memory (ulimit -l) to %" PRIu64 " KiB",
                q ? "every io_uring" : "io_uring", strerror(-rc), p.bytes * p.n * f->queues / 1024);
        return;
    }
}

/* Made before the first fork, so that parent and every worker have the same pages and addresses. */
static int make_queues(struct rfi_coordinator *c)
{
    struct rfi_config_shared *f = &c->run.config;
    rf_engine queue = copies(c) ? RF_ENGINE_AUTO : c->o->engine;
    c->readers = calloc(f->queues, sizeof *c->readers);
    c->staging = calloc(f->queues, sizeof *c->staging);
    if (!c->readers || !c->staging)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    int rc = open_readers(c, &queue);
    if (rc < 0)
        return rc;
    bool hedged = f->hedge_ms && rfi_reader_overlaps(&c->readers[0]);
    if (f->hedge_ms && !hedged)
        rfi_log(RFI_LOG_WARNING, "--hedge-ms does nothing here: the engine %s reads one after the other",
                c->readers[0].ops->name);
    for (uint32_t q = 0; (c->plan.may_be_direct || hedged || f->sweeps) && q < f->queues; q++) {
        uint64_t bytes = (uint64_t)f->queue_depth * f->staging_bytes;
        void *p = rfi_pages_map(-1, bytes, PROT_READ | PROT_WRITE);
        if (!p)
            return rfi_fail(c->err, errno, "cannot map %llu bytes of staging: %s. Lower --queue-depth or --workers",
                            (unsigned long long)bytes, strerror(errno));
        c->staging[q] = p;
        if (q < f->workers)
            rfi_where_bind_staging(c, q, p, bytes);
    }
    struct rfi_config_shared *shared = rfi_segment_region(&c->run.segment, RFI_R_CONFIG);
    f->engine = shared->engine = queue;
    rc = rfi_engine_open(c);
    if (rc == 0)
        prepare_queues(c);
    return rc;
}

/* Whoever names copies of the data and a number of them means what is said. */
static int check_copies(const struct rfi_coordinator *c)
{
    if (c->o->n_mirrors == 0 || c->o->replication <= c->o->n_mirrors + 1)
        return 0;
    return rfi_fail(
        c->err, EINVAL,
        "--replication %u asks for as many copies of the data, and with %u --mirror there are %u. Name more "
        "mirrors, or ask for less",
        c->o->replication, c->o->n_mirrors, c->o->n_mirrors + 1);
}

int rfi_birth(struct rfi_coordinator *c)
{
    int rc = rfi_topology_load(NULL, NULL, &c->topology, c->err);
    if (rc == 0) {
        rfi_where_is_data(c->o->dataset, &c->topology);
        rc = check_copies(c);
    }
    if (rc == 0)
        rc = rfi_mirrors_check(c->o->dataset, c->o->mirrors, c->o->n_mirrors, c->err);
    if (rc == 0)
        rc = rfi_serve_plan(c->o, &c->topology, &c->plan, c->err);
    if (rc == 0)
        rc = rfi_placement_plan(&c->topology, c->plan.config.ranks, c->plan.config.workers, &c->placement, c->err);
    if (rc == 0)
        rc = place_keepers(c);
    if (rc == 0)
        rc = rfi_room_check(
            0, c->plan.staging_bytes + c->plan.size.control_bytes + c->plan.size.data_bytes - c->plan.size.spare_bytes,
            c->err);
    if (rc == 0)
        rc = make_segment(c);
    if (rc == 0)
        rc = make_rings(c);
    if (rc == 0)
        rc = make_cache(c);
    if (rc == 0)
        rc = rfi_faults_load(&c->run, rfi_state_last(&c->plan.birth)->faults, rfi_state_last(&c->plan.birth)->n_faults);
    if (rc == 0)
        rc = make_queues(c);
    if (rc == 0)
        rc = rfi_run_own(&c->run, c->err);
    if (rc < 0)
        return rc;
    if (rfi_dataset_has_checksums(c->o->dataset) && !rfi_crc32c_available())
        rfi_log(
            RFI_LOG_WARNING,
            "the index has checksums and this ringfeed was built without CRC32C: they are not compared. Build it with "
            "ISA-L (meson -Dchecksum=enabled)");
    c->owns = true;
    c->run.coordinator->pid = getpid();
    c->setup = (struct rfi_worker_setup){.run = &c->run,
                                         .dataset = c->dataset,
                                         .order = c->order,
                                         .readers = c->readers,
                                         .staging = c->staging,
                                         .ring_node = c->placement.rank_node,
                                         .mirrors = c->o->mirrors};
    return 0;
}

void rfi_death(struct rfi_coordinator *c)
{
    rfi_engine_close(c);
    close_readers(c);
    for (uint32_t q = 0; c->staging && q < c->plan.config.queues; q++)
        if (c->staging[q])
            munmap(c->staging[q], (uint64_t)c->plan.config.queue_depth * c->plan.config.staging_bytes);
    if (c->owns)
        rfi_run_disown(&c->run);
    if (c->view)
        rfi_view_destroy(c->view);
    rfi_serve_plan_fini(&c->plan);
    if (c->dataset)
        rfi_dataset_close(c->dataset);
    free(c->run.rings);
    if (c->run.segment.control)
        rfi_segment_destroy(&c->run.segment);
    rfi_placement_fini(&c->placement);
    free(c->keepers);
    free(c->readers);
    free(c->staging);
}
