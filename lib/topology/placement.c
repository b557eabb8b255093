/* Where ranks and workers go: a pure function of the picture of the machine.
 *   Ranks: to the node of their GPU while there are enough GPUs, else in equal blocks over the nodes; fewer ranks than
 *   nodes, over those nearest to the dataset's disk. A node without memory for us: to the nearest that has some.
 *   Workers: dealt one by one to the node with the most ranks per worker (so far) that still has a free
 *   CPU; when those nodes are full, to the others, nearest to the disk first. On a node: one hyperthread of each core
 *   first.
 * So the ring decides and the disk comes after it: a read is DMA into the ring's memory whoever asks for it, its
 * interrupt comes to the CPU that asked, and a copy is cheapest beside the memory that it writes. */
#include "topology/topology.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

static uint32_t distance_to_data(const struct rfi_topology *t, uint32_t node)
{
    if (!t->data.known)
        return 0;
    if (node == t->data.node)
        return 1;
    return t->distance[node][t->data.node] ? t->distance[node][t->data.node] : UINT32_MAX;
}

/* Nodes with memory and a CPU for us; those with a CPU when there are none; all when nobody can run anywhere. */
static uint32_t usable_nodes(const struct rfi_topology *t, bool with_memory, uint32_t nodes[RFI_MAX_NODES])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_nodes; i++)
        if (t->nodes[i].n_cpus > 0 && !(with_memory && t->nodes[i].no_memory))
            nodes[n++] = i;
    if (n == 0 && with_memory)
        return usable_nodes(t, false, nodes);
    for (uint32_t i = 0; n == 0 && i < t->n_nodes; i++)
        nodes[i] = i;
    return n ? n : t->n_nodes;
}

/* Leaves the `keep` nodes that are nearest to the data, in their order. */
static uint32_t nearest_to_data(const struct rfi_topology *t, uint32_t *nodes, uint32_t n, uint32_t keep)
{
    while (n > keep) {
        uint32_t farthest = 0;
        for (uint32_t i = 1; i < n; i++)
            if (distance_to_data(t, nodes[i]) >= distance_to_data(t, nodes[farthest]))
                farthest = i;
        n--;
        for (uint32_t i = farthest; i < n; i++)
            nodes[i] = nodes[i + 1];
    }
    return n;
}

static void place_ranks(const struct rfi_topology *t, uint32_t ranks, struct rfi_placement *p)
{
    uint32_t nodes[RFI_MAX_NODES], n = usable_nodes(t, true, nodes);
    if (t->data.known && ranks > 0)
        n = nearest_to_data(t, nodes, n, ranks);
    for (uint32_t r = 0; r < ranks; r++) {
        int gpu = ranks <= t->n_visible ? (int)t->visible[r] : ranks <= t->n_gpus ? (int)r : -1;
        p->rank_gpu[r] = gpu;
        p->rank_node[r] = nodes[(uint64_t)r * n / ranks];
        if (gpu >= 0 && t->gpus[gpu].node != RFI_NODE_UNKNOWN)
            p->rank_node[r] = t->gpus[gpu].node;
        p->rank_node[r] = rfi_topology_home(t, p->rank_node[r]);
    }
}

/* What is known of a node while workers are dealt. */
struct share {
    uint32_t ranks, workers, cpus, to_data;
};

/* Whether `a` deserves the next worker more than `b`: ranks per worker; without ranks, by the way to the data; then
 * free CPUs. */
static bool before(const struct share *a, const struct share *b)
{
    uint64_t x = (uint64_t)a->ranks * (b->workers + 1), y = (uint64_t)b->ranks * (a->workers + 1);
    if (x != y)
        return x > y;
    if (a->ranks == 0 && a->to_data != b->to_data)
        return a->to_data < b->to_data;
    return (int64_t)a->cpus - a->workers > (int64_t)b->cpus - b->workers;
}

static uint32_t next_node(const struct share *shares, const uint32_t *nodes, uint32_t n, bool crowded)
{
    uint32_t best = RFI_NODE_UNKNOWN;
    for (uint32_t i = 0; i < n; i++) {
        const struct share *s = &shares[nodes[i]];
        if (!crowded && s->workers >= s->cpus)
            continue;
        if (best == RFI_NODE_UNKNOWN || before(s, &shares[best]))
            best = nodes[i];
    }
    return best;
}

/* The k-th CPU of a node in the order cores first, hyperthreads after. */
static int pick_cpu(const struct rfi_topology *t, uint32_t node, uint32_t k)
{
    for (uint32_t thread = 0, seen = 0; seen < t->nodes[node].n_cpus; thread++) {
        uint32_t of_core = 0, core = UINT32_MAX;
        for (uint32_t c = 0; c < t->n_cpus; c++) {
            if (t->cpus[c].node != node)
                continue;
            of_core = t->cpus[c].core == core ? of_core + 1 : 0;
            core = t->cpus[c].core;
            if (of_core == thread && seen++ == k)
                return t->cpus[c].os_cpu;
        }
    }
    return -1;
}

static void place_workers(const struct rfi_topology *t, uint32_t ranks, uint32_t workers, struct rfi_placement *p)
{
    struct share shares[RFI_MAX_NODES] = {0};
    uint32_t nodes[RFI_MAX_NODES], n = usable_nodes(t, false, nodes);
    bool crowded = workers > t->n_cpus;
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        shares[i].cpus = t->nodes[i].n_cpus;
        shares[i].to_data = distance_to_data(t, i);
    }
    for (uint32_t r = 0; r < ranks; r++)
        shares[p->rank_node[r]].ranks++;
    for (uint32_t w = 0; w < workers; w++) {
        uint32_t node = next_node(shares, nodes, n, crowded);
        p->worker_node[w] = node;
        p->worker_cpu[w] = crowded ? -1 : pick_cpu(t, node, shares[node].workers);
        shares[node].workers++;
    }
}

int rfi_placement_plan(const struct rfi_topology *t, uint32_t ranks, uint32_t workers, struct rfi_placement *ret,
                       struct rfi_error *err)
{
    *ret = (struct rfi_placement){0};
    if (t->n_nodes == 0)
        return rfi_fail(err, EINVAL, "placement: the machine has no NUMA node. Check /sys/devices/system/node");
    ret->rank_node = calloc((size_t)ranks + 1, sizeof *ret->rank_node);
    ret->rank_gpu = calloc((size_t)ranks + 1, sizeof *ret->rank_gpu);
    ret->worker_node = calloc((size_t)workers + 1, sizeof *ret->worker_node);
    ret->worker_cpu = calloc((size_t)workers + 1, sizeof *ret->worker_cpu);
    if (!ret->rank_node || !ret->rank_gpu || !ret->worker_node || !ret->worker_cpu) {
        rfi_placement_fini(ret);
        return rfi_fail(err, ENOMEM, "placement: no memory for %u ranks and %u workers. Use fewer", ranks, workers);
    }
    place_ranks(t, ranks, ret);
    place_workers(t, ranks, workers, ret);
    return 0;
}

void rfi_placement_fini(struct rfi_placement *p)
{
    free(p->rank_node);
    free(p->rank_gpu);
    free(p->worker_node);
    free(p->worker_cpu);
    *p = (struct rfi_placement){0};
}

static uint32_t count_cores(const struct rfi_topology *t)
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < t->n_cpus; c++)
        n += c == 0 || t->cpus[c].core != t->cpus[c - 1].core;
    return n;
}

uint32_t rfi_placement_workers(const struct rfi_topology *t, uint32_t ranks)
{
    /* One io_uring worker keeps several disks busy, but copies out of the page cache want cores. Half of them stay with
     * the trainers; on a machine of two, whoever has work takes both. */
    uint32_t cores = count_cores(t), half = (uint32_t)rfi_max(rfi_min(cores, 2), cores / 2);
    return (uint32_t)rfi_min(rfi_min(rfi_max(ranks, 2), half), RFI_WORKERS_CHOSEN_MAX);
}
