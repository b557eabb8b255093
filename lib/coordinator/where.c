/* Where things are: the disks under the dataset, and the nodes that the rings' memory is wanted on and really got. The
 * kernel promises nothing: a full node gives pages of another one without a word. So a sample of the pages is asked for
 * their place once they are there; it is written into the rank's record and costs nothing afterwards. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/log.h"
#include "segment/pages.h"
#include "segment/room.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PAGE = 4096, PAGES_ASKED = 64, FILES_LOOKED_AT = 64, DISKS_MOST = 16 };

void rfi_where_is_data(const struct rfi_dataset *d, struct rfi_topology *t)
{
    uint32_t files = rfi_dataset_n_files(d), looks = (uint32_t)rfi_min(files, FILES_LOOKED_AT), node = RFI_NODE_UNKNOWN;
    dev_t last = 0;
    for (uint32_t i = 0; i < looks; i++) {
        char path[PATH_MAX], disks[DISKS_MOST][32];
        struct stat st;
        if (rfi_dataset_path(d, (uint32_t)((uint64_t)i * files / looks), path, sizeof path) < 0 || stat(path, &st) < 0)
            continue;
        if (node != RFI_NODE_UNKNOWN && st.st_dev == last)
            continue;
        last = st.st_dev;
        uint32_t n = rfi_topology_disks_of(st.st_dev, disks, DISKS_MOST);
        for (uint32_t k = 0; k < n; k++)
            if (!rfi_topology_set_data(t, disks[k]) || (node != RFI_NODE_UNKNOWN && node != t->data.node))
                n = 0;
            else
                node = t->data.node;
        if (n == 0) {
            t->data.known = false;
            return;
        }
    }
}

static bool wanted(const struct rfi_coordinator *c)
{
    return c->o->numa != RF_OFF && rfi_topology_homes(&c->topology) > 1;
}

/* The rank's GPU is on a node that has no memory for us, and there is one that has. */
static bool is_away(const struct rfi_coordinator *c, uint32_t ring)
{
    const struct rfi_topology *t = &c->topology;
    int gpu = c->placement.rank_gpu[ring];
    uint32_t node = gpu < 0 ? RFI_NODE_UNKNOWN : t->gpus[gpu].node;
    return node != RFI_NODE_UNKNOWN && rfi_topology_home(t, node) != node;
}

static void say_who_is_away(const struct rfi_coordinator *c)
{
    const struct rfi_topology *t = &c->topology;
    uint32_t first = UINT32_MAX, others = 0;
    char more[48] = "";
    for (uint32_t i = 0; i < c->plan.config.ranks; i++) {
        if (!is_away(c, i))
            continue;
        others += first != UINT32_MAX;
        first = first == UINT32_MAX ? i : first;
    }
    if (first == UINT32_MAX)
        return;
    if (others)
        snprintf(more, sizeof more, " (%u more ranks are in such a place)", others);
    int node = t->nodes[t->gpus[c->placement.rank_gpu[first]].node].os_node;
    rfi_log(
        RFI_LOG_WARNING,
        "NUMA: the GPU of rank %u is on node %d, where there is no memory for this process: its ring is on node %d, "
        "the nearest that has some%s. If node %d has memory, allow it (cpuset.mems of this container)",
        c->plan.config.first_rank + first, node, t->nodes[c->placement.rank_node[first]].os_node, more, node);
}

void rfi_where_bind(struct rfi_coordinator *c, unsigned char *data)
{
    const struct rfi_config_shared *f = &c->plan.config;
    struct rfi_error why = {0}, first = {0};
    int failed = 0;
    if (c->o->numa != RF_OFF)
        say_who_is_away(c);
    if (!wanted(c))
        return;
    for (uint32_t i = 0; i < f->ranks; i++)
        if (rfi_topology_bind_memory(&c->topology, data + rfi_run_arena_offset(f, i), f->arena_stride,
                                     c->placement.rank_node[i], &why) < 0 &&
            failed++ == 0)
            first = why;
    if (f->cache_samples &&
        rfi_topology_interleave_memory(&c->topology, data + f->cache_first, f->cache_bytes, &why) < 0 && failed++ == 0)
        first = why;
    c->bound = failed == 0;
    if (failed)
        rfi_log(RFI_LOG_WARNING, "memory is not bound to NUMA nodes: %s", first.text);
}

void rfi_where_bind_arena(struct rfi_coordinator *c, uint32_t ring, uint32_t arena)
{
    const struct rfi_config_shared *f = &c->plan.config;
    struct rfi_error why = {0};
    if (wanted(c) && rfi_topology_bind_memory(&c->topology, c->run.segment.data + rfi_run_arena_offset(f, arena),
                                              f->arena_stride, c->placement.rank_node[ring], &why) < 0)
        rfi_log(RFI_LOG_WARNING, "a spare arena is not bound to its NUMA node: %s", why.text);
}

/* Beside its worker. A failure like that of the arenas is not said again. */
void rfi_where_bind_staging(struct rfi_coordinator *c, uint32_t worker, void *staging, uint64_t bytes)
{
    static int said;
    struct rfi_error why = {0};
    uint32_t node = rfi_topology_home(&c->topology, c->placement.worker_node[worker]);
    if (wanted(c) && rfi_topology_bind_memory(&c->topology, staging, bytes, node, &why) < 0 && c->bound)
        rfi_log_once(&said, RFI_LOG_WARNING, "staging is not bound to NUMA nodes: %s", why.text);
}

/* Evenly over the arena, first and last page included. Returns what the kernel said. */
static int ask(void *arena, uint64_t bytes, int *ret_nodes, uint32_t *ret_n)
{
    void *pages[PAGES_ASKED];
    uint64_t there = rfi_max(bytes / PAGE, 1);
    uint32_t n = (uint32_t)rfi_min(there, PAGES_ASKED);
    for (uint32_t i = 0; i < n; i++)
        pages[i] = (unsigned char *)arena + (n > 1 ? i * (there - 1) / (n - 1) : 0) * PAGE;
    *ret_n = n;
    return rfi_topology_nodes_of_pages(pages, n, ret_nodes);
}

/* Kernel's number of the node with most of the pages; -1: none is known. */
static int most(const int *nodes, uint32_t n)
{
    int best = -1;
    uint32_t best_count = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t count = 0;
        for (uint32_t k = 0; k < n; k++)
            count += nodes[k] == nodes[i];
        if (nodes[i] >= 0 && count > best_count) {
            best = nodes[i];
            best_count = count;
        }
    }
    return best;
}

/* Looks at one arena. Returns how many pages are elsewhere, *ret_most where most of them are; -errno: not told. */
static int look(struct rfi_coordinator *c, uint32_t ring, uint32_t arena, int *ret_most)
{
    const struct rfi_config_shared *f = &c->run.config;
    struct rfi_rank_shared *rank = &c->run.ranks[ring];
    int nodes[PAGES_ASKED];
    uint32_t n, checked = 0, right = 0;
    int rc = ask(c->run.segment.data + rfi_run_arena_offset(f, arena), rfi_run_arena_at_first(f), nodes, &n);
    if (rc < 0)
        return rc;
    *ret_most = most(nodes, n);
    if (c->o->numa == RF_OFF && *ret_most >= 0) /* nobody wished anything: it is where it came to be */
        rank->node = *ret_most;
    for (uint32_t i = 0; i < n; i++) {
        checked += nodes[i] >= 0;
        right += nodes[i] >= 0 && nodes[i] == rank->node;
    }
    atomic_store_explicit(&rank->pages_checked, checked, memory_order_relaxed);
    atomic_store_explicit(&rank->pages_on_node, right, memory_order_relaxed);
    return (int)(checked - right);
}

/* At birth, when nobody else has the arena: a node full of page cache gives way, which it does not for a mere wish. */
static int look_and_move(struct rfi_coordinator *c, uint32_t ring, int *ret_most)
{
    const struct rfi_config_shared *f = &c->run.config;
    struct rfi_error why;
    int rc = look(c, ring, ring, ret_most);
    if (rc <= 0 || !c->bound || rfi_room_check(0, RFI_MOVE_ROOM_BYTES, &why) < 0)
        return rc;
    rfi_topology_move_memory(&c->topology, c->run.segment.data + rfi_run_arena_offset(f, ring),
                             rfi_run_arena_at_first(f), c->placement.rank_node[ring]);
    /* What could not be moved is not lost, but may not be mapped any more. */
    (void)rfi_segment_populate(&c->run.segment, rfi_run_arena_offset(f, ring), rfi_run_arena_at_first(f), &why);
    return look(c, ring, ring, ret_most);
}

static void say_elsewhere(const struct rfi_coordinator *c, uint32_t ring, int elsewhere, int where, uint32_t others)
{
    const struct rfi_rank_shared *rank = &c->run.ranks[ring];
    char more[48] = "";
    if (others)
        snprintf(more, sizeof more, ", and so it is with %u more rings", others);
    rfi_log(RFI_LOG_WARNING,
            "NUMA: of %u pages of rank %u's ring %d are not on node %d, most are on node %d%s. Node %d is full: free "
            "memory there (numactl -H shows it), or lower --prefetch or --ring-bytes",
            atomic_load_explicit(&rank->pages_checked, memory_order_relaxed), c->run.rings[ring].rank, elsewhere,
            rank->node, where, more, rank->node);
}

static void hold(struct rfi_coordinator *c, struct rfi_pages_held *held, uint32_t ring, uint32_t arena)
{
    uint64_t at = (uintptr_t)c->run.segment.data + rfi_run_arena_offset(&c->run.config, arena);
    held[ring] = (struct rfi_pages_held){.from = at, .to = at + c->run.config.arena_stride};
}

static void store_held(struct rfi_coordinator *c, struct rfi_pages_held *held)
{
    if (!rfi_pages_held(held, c->run.config.ranks))
        return;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        if (held[i].from) {
            atomic_store_explicit(&c->run.ranks[i].arena_held, held[i].bytes, memory_order_relaxed);
            atomic_store_explicit(&c->run.ranks[i].arena_huge, held[i].huge_bytes, memory_order_relaxed);
        }
}

void rfi_where_check(struct rfi_coordinator *c)
{
    uint32_t ranks = c->run.config.ranks, wrong = 0, worst = 0;
    struct rfi_pages_held *held = calloc(ranks, sizeof *held);
    int elsewhere = 0, where = -1, rc = 0;
    for (uint32_t i = 0; i < ranks && rc >= 0; i++) {
        int now = -1;
        rc = look_and_move(c, i, &now);
        wrong += rc > 0;
        if (rc > elsewhere) {
            worst = i;
            elsewhere = rc;
            where = now;
        }
    }
    for (uint32_t i = 0; held && i < ranks; i++)
        hold(c, held, i, i);
    if (held)
        store_held(c, held);
    free(held);
    if (rc < 0 && wanted(c))
        rfi_log(
            RFI_LOG_INFO,
            "NUMA: the kernel does not say on which nodes the rings are (move_pages: %s), so `stat` cannot. Allow it "
            "in the container's seccomp profile",
            strerror(-rc));
    else if (wrong && c->bound)
        say_elsewhere(c, worst, elsewhere, where, wrong - 1);
}

/* A ring that has moved to another arena. */
void rfi_where_check_ring(struct rfi_coordinator *c, uint32_t ring, uint32_t arena)
{
    struct rfi_pages_held *held = calloc(c->run.config.ranks, sizeof *held);
    int where = -1, elsewhere = look(c, ring, arena, &where);
    if (elsewhere > 0 && c->bound)
        say_elsewhere(c, ring, elsewhere, where, 0);
    if (held) {
        hold(c, held, ring, arena);
        store_held(c, held);
    }
    free(held);
}
