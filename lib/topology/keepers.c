/* Which workers read for which rank under --replication K: a primary and standbys that a fault of one core or one node
 * does not take together. */
#include "topology/topology.h"

#include <errno.h>
#include <stdlib.h>

static uint32_t n_cores(const struct rfi_topology *t)
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < t->n_cpus; c++) {
        bool seen = false;
        for (uint32_t b = 0; b < c && !seen; b++)
            seen = t->cpus[b].core == t->cpus[c].core;
        n += !seen;
    }
    return n;
}

/* A worker that is not pinned has no core of its own: UINT32_MAX. */
static uint32_t core_of(const struct rfi_topology *t, int os_cpu)
{
    for (uint32_t c = 0; c < t->n_cpus; c++)
        if (t->cpus[c].os_cpu == os_cpu)
            return t->cpus[c].core;
    return UINT32_MAX;
}

struct choice {
    const struct rfi_topology *t;
    const struct rfi_placement *p;
    uint32_t workers;
    uint32_t *load; /* [workers]: rings kept; a primary's weighs more */
};

/* What speaks against worker w as the next keeper of a ring; the least wins. For the primary: another node than the
 * ring's. For a standby: a node, then a core that one before it has. Then what it already has to do. */
static uint64_t against(const struct choice *c, uint32_t node, const uint32_t *chosen, uint32_t n, uint32_t w)
{
    bool same_node = false, same_core = false;
    uint32_t core = core_of(c->t, c->p->worker_cpu[w]);
    for (uint32_t i = 0; i < n; i++) {
        if (chosen[i] == w)
            return UINT64_MAX;
        same_node |= c->p->worker_node[chosen[i]] == c->p->worker_node[w];
        same_core |= core != UINT32_MAX && core_of(c->t, c->p->worker_cpu[chosen[i]]) == core;
    }
    if (n == 0)
        same_node = c->p->worker_node[w] != node;
    return (uint64_t)same_core << 41 | (uint64_t)same_node << 40 | c->load[w];
}

static uint32_t choose(const struct choice *c, uint32_t node, const uint32_t *chosen, uint32_t n)
{
    uint32_t best = 0;
    uint64_t least = UINT64_MAX;
    for (uint32_t w = 0; w < c->workers; w++) {
        uint64_t cost = against(c, node, chosen, n, w);
        if (cost < least) {
            least = cost;
            best = w;
        }
    }
    return best;
}

int rfi_placement_keepers(const struct rfi_topology *t, const struct rfi_placement *p, uint32_t ranks, uint32_t workers,
                          uint32_t k, uint32_t *ret, struct rfi_error *err)
{
    struct choice c = {.t = t, .p = p, .workers = workers};
    uint32_t cores = n_cores(t);
    if (k > workers)
        return rfi_fail(err, EINVAL,
                        "replication %u needs %u workers, there are %u. Use more --workers or less --replication", k, k,
                        workers);
    if (k > RFI_KEEPERS_MOST || (k > 1 && k > cores))
        return rfi_fail(err, EINVAL,
                        "replication %u needs %u cores, one a copy; there are %u here, and %d copies are the most. Use "
                        "less --replication",
                        k, k, cores, RFI_KEEPERS_MOST);
    c.load = calloc((size_t)workers + 1, sizeof *c.load);
    if (!c.load)
        return rfi_fail(err, ENOMEM, "placement: no memory for %u workers. Use fewer", workers);
    for (uint32_t i = 0; i < k; i++) /* primaries of all first, so that they are spread among themselves */
        for (uint32_t r = 0; r < ranks; r++) {
            uint32_t w = choose(&c, p->rank_node[r], ret + (size_t)r * k, i);
            ret[(size_t)r * k + i] = w;
            c.load[w] += i == 0 ? ranks : 1;
        }
    free(c.load);
    return 0;
}
