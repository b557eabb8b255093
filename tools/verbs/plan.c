/* `ringfeed plan`: what serve would do with the same options, before anything starts. The numbers come
 * from the functions that the server itself uses (rfi_serve_plan, rfi_placement_plan), so they cannot
 * differ from what is then done. */
#include "cli.h"

#include "base/bytes.h"
#include "coordinator/serve.h"
#include "order/mixing.h"
#include "order/order.h"
#include "plan/source.h"
#include "topology/topology.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

struct options {
    struct cli_dataset_args dataset;
    struct cli_order_args order;
    struct cli_list paths;
    uint32_t workers, queue_depth, spares, replication;
    uint64_t prefetch, prefetch_samples, ring_bytes, cache_bytes;
    int engine, direct;
    const char *topology, *disk;
    bool json;
};

struct plan {
    const struct options *o;
    rf_dataset_info dataset;
    struct rfi_topology topology;
    struct rfi_serve_plan serve;
    struct rfi_placement placement;
    struct rfi_mixing mixing;
    uint32_t *keepers; /* [ranks][replication] */
};

static int os_node(const struct plan *p, uint32_t node)
{
    return p->topology.nodes[node].os_node;
}

static void emit_dataset(struct cli_emit *e, const rf_dataset_info *d)
{
    cli_emit_object(e, "dataset");
    cli_emit_str(e, "format", d->format);
    cli_emit_u64(e, "files", d->files);
    cli_emit_u64(e, "samples", d->samples);
    cli_emit_bytes(e, "bytes", d->bytes);
    cli_emit_str(e, "fingerprint", d->fingerprint);
    cli_emit_close(e);
}

/* Room in /dev/shm now; unknown without one. */
static void emit_room(struct cli_emit *e)
{
    struct statvfs fs;
    if (statvfs("/dev/shm", &fs) == 0)
        cli_emit_bytes(e, "shm_free_bytes", (uint64_t)fs.f_bavail * fs.f_frsize);
    else
        cli_emit_null(e, "shm_free_bytes");
}

static void emit_memory(struct cli_emit *e, const struct rfi_serve_plan *s)
{
    cli_emit_object(e, "memory");
    cli_emit_bytes(e, "control_bytes", s->size.control_bytes);
    cli_emit_bytes(e, "dataset_table_bytes", s->dataset_bytes);
    cli_emit_bytes(e, "membership_table_bytes", s->membership_bytes);
    cli_emit_bytes(e, "data_bytes", s->size.data_bytes - s->size.spare_bytes);
    cli_emit_bytes(e, "spare_bytes", s->size.spare_bytes); /* used once a device hangs */
    cli_emit_bytes(e, "cache_bytes", s->config.cache_bytes);
    cli_emit_u64(e, "cache_samples", s->config.cache_samples);
    cli_emit_bytes(e, "arena_bytes", s->config.lap_bytes);
    cli_emit_bytes(e, "arena_bytes_most", s->config.arena_bytes); /* once prefetch has grown */
    cli_emit_bytes(e, "largest_batch_bytes", s->largest);
    cli_emit_bytes(e, "staging_bytes", s->staging_bytes);
    cli_emit_bytes(e, "total_bytes",
                   s->size.control_bytes + s->size.data_bytes - s->size.spare_bytes + s->staging_bytes);
    emit_room(e);
    cli_emit_close(e);
}

static void emit_reading(struct cli_emit *e, const struct rfi_serve_plan *s)
{
    cli_emit_object(e, "reading");
    cli_emit_u64(e, "prefetch", s->config.prefetch);
    cli_emit_u64(e, "prefetch_most", s->config.depth);
    cli_emit_u64(e, "queue_depth", s->config.queue_depth);
    cli_emit_u64(e, "align", s->config.align);
    cli_emit_bool(e, "direct_possible", s->direct_possible);
    cli_emit_bool(e, "direct", s->config.direct != 0);
    cli_emit_close(e);
}

/* Negative: there is nothing to say. */
static void emit_share(struct cli_emit *e, const char *key, double value)
{
    if (value < 0)
        cli_emit_null(e, key);
    else
        cli_emit_f64(e, key, value, 3);
}

/* Relative to a full shuffle, which is 1. */
static void emit_mixing(struct cli_emit *e, const struct plan *p)
{
    const struct rfi_mixing *m = &p->mixing;
    bool blocks = p->serve.config.shuffle == RF_SHUFFLE_BLOCK;
    cli_emit_object(e, "mixing");
    if (blocks) {
        cli_emit_u64(e, "block_samples", rfi_order_block_samples(p->serve.order));
        cli_emit_u64(e, "window_samples", rfi_order_window_samples(p->serve.order));
    }
    cli_emit_u64(e, "batches", m->batches);
    cli_emit_u64(e, "samples", m->samples);
    cli_emit_u64(e, "parts", m->parts);
    emit_share(e, "batch_make_up", m->by_part);
    emit_share(e, "class_make_up", m->by_class);
    emit_share(e, "mean_displacement", m->displacement);
    emit_share(e, "neighbour_distance", m->neighbours);
    cli_emit_close(e);
}

static void emit_nodes(struct cli_emit *e, const struct rfi_topology *t)
{
    cli_emit_array(e, "nodes");
    for (uint32_t n = 0; n < t->n_nodes; n++) {
        cli_emit_object(e, NULL);
        cli_emit_i64(e, "node", t->nodes[n].os_node);
        cli_emit_u64(e, "cpus", t->nodes[n].n_cpus);
        cli_emit_bytes(e, "memory_bytes", t->nodes[n].memory_bytes);
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

/* "0-3,8-11": the CPUs of a node that this process may use, in their order. */
static void cpus_of(const struct rfi_topology *t, uint32_t node, char *buf, size_t cap)
{
    int first = -1, last = -2;
    size_t n = 0;
    buf[0] = 0;
    for (int cpu = 0; cpu <= RFI_MAX_CPUS && n < cap; cpu++) {
        bool here = false;
        for (uint32_t c = 0; c < t->n_cpus && !here; c++)
            here = t->cpus[c].os_cpu == cpu && t->cpus[c].node == node;
        if (here && last != cpu - 1)
            first = cpu;
        if (here)
            last = cpu;
        else if (last == cpu - 1 && first == last)
            n += (size_t)snprintf(buf + n, cap - n, "%s%d", n ? "," : "", first);
        else if (last == cpu - 1)
            n += (size_t)snprintf(buf + n, cap - n, "%s%d-%d", n ? "," : "", first, last);
    }
}

/* As the firmware counts: 10 is the same node. Unknown where it is silent, or where the disk is. */
static void emit_distance(struct cli_emit *e, const struct plan *p, uint32_t node)
{
    const struct rfi_topology *t = &p->topology;
    uint32_t distance = t->data.known ? t->distance[node][t->data.node] : 0;
    if (t->data.known && node == t->data.node && distance == 0)
        distance = 10;
    if (distance)
        cli_emit_u64(e, "disk_distance", distance);
    else
        cli_emit_null(e, "disk_distance");
}

static void emit_place(struct cli_emit *e, const struct plan *p, uint32_t i)
{
    const struct rfi_topology *t = &p->topology;
    int gpu = p->placement.rank_gpu[i];
    char cpus[1024];
    cli_emit_i64(e, "node", os_node(p, p->placement.rank_node[i]));
    cli_emit_str(e, "gpu", gpu < 0 ? NULL : t->gpus[gpu].name);
    if (gpu >= 0 && t->gpus[gpu].node != RFI_NODE_UNKNOWN)
        cli_emit_i64(e, "gpu_node", os_node(p, t->gpus[gpu].node));
    else
        cli_emit_null(e, "gpu_node");
    cpus_of(t, p->placement.rank_node[i], cpus, sizeof cpus);
    cli_emit_str(e, "cpus", cpus);
    emit_distance(e, p, p->placement.rank_node[i]);
}

static void emit_ranks(struct cli_emit *e, const struct plan *p)
{
    const struct rfi_config_shared *c = &p->serve.config;
    cli_emit_array(e, "ranks");
    for (uint32_t i = 0; i < c->ranks; i++) {
        cli_emit_object(e, NULL);
        cli_emit_u64(e, "rank", c->first_rank + i);
        emit_place(e, p, i);
        cli_emit_u64(e, "samples", rfi_order_rank_samples(p->serve.order, c->first_rank + i));
        cli_emit_u64(e, "batches", rfi_order_len(p->serve.order, c->first_rank + i));
        if (c->replication > 1) {
            char text[64] = "";
            for (uint32_t k = 1; k < c->replication; k++)
                snprintf(text + strlen(text), sizeof text - strlen(text), "%s%u", k > 1 ? "," : "",
                         p->keepers[i * c->replication + k]);
            cli_emit_u64(e, "primary", p->keepers[i * c->replication]);
            cli_emit_str(e, "standbys", text);
        }
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

static void emit_workers(struct cli_emit *e, const struct plan *p)
{
    cli_emit_array(e, "workers");
    for (uint32_t w = 0; w < p->serve.config.workers; w++) {
        cli_emit_object(e, NULL);
        cli_emit_u64(e, "worker", w);
        cli_emit_i64(e, "node", os_node(p, p->placement.worker_node[w]));
        if (p->placement.worker_cpu[w] < 0)
            cli_emit_null(e, "cpu");
        else
            cli_emit_i64(e, "cpu", p->placement.worker_cpu[w]);
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

static void emit_disks(struct cli_emit *e, const struct plan *p)
{
    if (p->topology.n_disks == 0)
        return;
    cli_emit_array(e, "disks");
    for (uint32_t i = 0; i < p->topology.n_disks; i++) {
        uint32_t node = p->topology.disks[i].node;
        cli_emit_object(e, NULL);
        cli_emit_str(e, "disk", p->topology.disks[i].name);
        if (node == RFI_NODE_UNKNOWN)
            cli_emit_null(e, "node");
        else
            cli_emit_i64(e, "node", os_node(p, node));
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

static int emit(const struct plan *p)
{
    const struct rfi_config_shared *c = &p->serve.config;
    struct cli_emit e;
    cli_emit_begin(&e, p->o->json);
    emit_dataset(&e, &p->dataset);
    cli_emit_u64(&e, "world_size", c->world_size);
    cli_emit_u64(&e, "first_rank", c->first_rank);
    cli_emit_u64(&e, "batch", c->batch);
    emit_memory(&e, &p->serve);
    emit_reading(&e, &p->serve);
    emit_mixing(&e, p);
    cli_emit_bool(&e, "topology_known", !p->topology.flat);
    cli_emit_str(&e, "dataset_disk", p->topology.data.disk[0] ? p->topology.data.disk : NULL);
    emit_nodes(&e, &p->topology);
    emit_ranks(&e, p);
    emit_workers(&e, p);
    emit_disks(&e, p);
    return cli_emit_end(&e);
}

/* Batches; --prefetch-samples is rounded up to whole ones. */
static uint64_t prefetch_of(const struct options *o)
{
    return o->prefetch_samples ? rfi_div_up(o->prefetch_samples, o->order.o.batch) : o->prefetch;
}

/* Of another machine only the user knows on which disk the dataset will be. */
static int find_disk(struct plan *p, const struct rfi_dataset *d, struct rfi_error *err)
{
    struct rfi_topology *t = &p->topology;
    bool there = false;
    if (!p->o->disk && !p->o->topology)
        rfi_where_is_data(d, t);
    if (!p->o->disk)
        return 0;
    rfi_topology_set_data(t, p->o->disk);
    for (uint32_t i = 0; i < t->n_disks; i++)
        there |= strcmp(t->disks[i].name, p->o->disk) == 0;
    if (there)
        return 0;
    return rfi_fail(err, EINVAL, "plan: --disk %s: the machine has no disk of this name. See `disks` without it",
                    p->o->disk);
}

/* 0 or a negative errno with the text in err. */
static int decide(struct plan *p, rf_dataset *d, struct rfi_error *err)
{
    const struct options *o = p->o;
    struct rfi_serve_options serve = {.name = "plan",
                                      .dataset = rfi_dataset_of(d),
                                      .order = &o->order.o,
                                      .ranks = (uint32_t)o->order.ranks,
                                      .first_rank = (uint32_t)o->order.first_rank,
                                      .workers = o->workers,
                                      .epochs = o->order.epochs,
                                      .start_epoch = o->order.start_epoch,
                                      .prefetch = prefetch_of(o),
                                      .ring_bytes = o->ring_bytes,
                                      .cache_bytes = o->cache_bytes,
                                      .queue_depth = o->queue_depth,
                                      .spares = o->spares,
                                      .replication = o->replication,
                                      .engine = (rf_engine)o->engine,
                                      .direct = (rf_switch)o->direct};
    rf_dataset_get_info(d, &p->dataset);
    int rc = rfi_topology_load(o->topology, NULL, &p->topology, err);
    if (rc == 0)
        rc = find_disk(p, rfi_dataset_of(d), err);
    if (rc == 0)
        rc = rfi_serve_plan(&serve, &p->topology, &p->serve, err);
    if (rc == 0)
        rc = rfi_placement_plan(&p->topology, p->serve.config.ranks, p->serve.config.workers, &p->placement, err);
    if (rc == 0 && !(p->keepers = calloc((size_t)p->serve.config.ranks * o->replication, sizeof *p->keepers)))
        rc = rfi_fail(err, ENOMEM, "plan: no memory. Free some memory");
    if (rc == 0)
        rc = rfi_placement_keepers(&p->topology, &p->placement, p->serve.config.ranks, p->serve.config.workers,
                                   o->replication, p->keepers, err);
    if (rc == 0) {
        struct rfi_order_source source;
        rfi_order_source_of(rfi_dataset_of(d), &source);
        rc = rfi_mixing_measure(p->serve.order, &source, p->dataset.samples, serve.start_epoch, serve.first_rank,
                                p->serve.config.ranks, &p->mixing, err);
    }
    return rc;
}

static int run(const struct options *o, rf_dataset *d)
{
    struct rfi_error err = {0};
    struct plan *p = calloc(1, sizeof *p);
    if (!p)
        return cli_fail("plan: no memory. Free some memory");
    p->o = o;
    int rc = decide(p, d, &err);
    if (rc == 0)
        rc = emit(p);
    else
        rc = rc == -EINVAL ? cli_usage("%s", err.text) : cli_fail(err.text);
    rfi_serve_plan_fini(&p->serve);
    rfi_placement_fini(&p->placement);
    free(p->keepers);
    free(p);
    return rc;
}

static int open_and_run(struct options *o)
{
    int rc = CLI_OK;
    rf_dataset *d = cli_open_dataset(&o->dataset, &o->paths, &rc);
    if (d)
        rc = run(o, d);
    rf_dataset_close(d);
    return rc;
}

int verb_plan(int argc, char **argv)
{
    static const char *const engines[] = {"auto", "uring", "pread", "null", "mapped", NULL};
    static const char *const switches[] = {"auto", "on", "off", NULL};
    struct options o = {.spares = RFI_SPARES_CHOSEN, .replication = 1};
    const struct cli_option own[] = {
        {"workers", CLI_U32, &o.workers, .metavar = "N",
         .help = "worker processes, at most 64 (default: by cores and ranks)", .max = RFI_MAX_WORKERS},
        {"prefetch", CLI_U64, &o.prefetch, .metavar = "BATCHES",
         .help = "batches a ring, at least 2 (default 4, at most 64 MiB a rank; grows where it helps)", .max = 4096},
        {"prefetch-samples", CLI_U64, &o.prefetch_samples, .metavar = "N",
         .help = "the same in samples, rounded up to batches"},
        {"ring-bytes", CLI_BYTES, &o.ring_bytes, .metavar = "BYTES",
         .help = "arena of each rank (default: from --prefetch)"},
        {"cache-bytes", CLI_BYTES, &o.cache_bytes, .metavar = "BYTES",
         .help = "of the dataset kept in shared memory over the epochs, for all ranks (default 0)"},
        {"queue-depth", CLI_U32, &o.queue_depth, .metavar = "N",
         .help = "reads in flight a worker (default: at most 64)", .max = 4096},
        {"spares", CLI_U32, &o.spares, .metavar = "N",
         .help = "io_urings, and arenas for all ranks each, kept for a device that hangs (default 1)", .max = 63},
        {"replication", CLI_U32, &o.replication, .metavar = "K",
         .help = "workers that read for a rank: a primary, and standbys on other cores and nodes (default 1: any may)",
         .min = 1, .max = RFI_KEEPERS_MOST},
        {"engine", CLI_CHOICE, &o.engine, .choices = engines,
         .help = "how to read (default auto: mapped while the data is in memory, else uring, else pread)"},
        {"direct", CLI_CHOICE, &o.direct, .choices = switches,
         .help = "O_DIRECT (default auto: for data that memory does not hold)"},
        {"topology", CLI_STRING, &o.topology, .metavar = "FILE",
         .help = "plan for the machine in this lstopo XML file (default: this one)"},
        {"disk", CLI_STRING, &o.disk, .metavar = "NAME",
         .help = "the disk that holds the dataset, as lstopo names it (default: looked up, on this machine)"},
        {"json", CLI_FLAG, &o.json, .help = "one JSON object"},
        {0},
    };
    const struct cli_option *groups[] = {own, cli_serve_order_options(&o.order), cli_dataset_options(&o.dataset), NULL};
    int rc = cli_parse(cli_verb_find("plan"), groups, argc, argv, &o.paths);
    if (rc != 0)
        return rc < 0 ? CLI_USAGE : CLI_OK;
    if (o.prefetch && o.prefetch_samples)
        return cli_usage("plan: both --prefetch and --prefetch-samples. Give one of them");
    rc = cli_order_resolve(&o.order);
    return rc == CLI_OK ? open_and_run(&o) : rc;
}
