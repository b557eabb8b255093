/* Placement on made-up machines, against what a person would say of them. */
#include "topology/topology.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct rfi_topology t;

static void synthetic(const char *description)
{
    struct rfi_error err;
    cr_assert_eq(rfi_topology_load(NULL, description, &t, &err), 0, "%s", err.text);
    cr_assert_not(t.this_system);
    cr_assert_not(t.flat);
}

/* Says of any placement what must hold of it. */
static void check(uint32_t ranks, uint32_t workers, struct rfi_placement *p)
{
    struct rfi_error err;
    cr_assert_eq(rfi_placement_plan(&t, ranks, workers, p, &err), 0, "%s", err.text);
    for (uint32_t r = 0; r < ranks; r++) {
        cr_assert_lt(p->rank_node[r], t.n_nodes);
        cr_assert_eq(p->rank_gpu[r], ranks <= t.n_gpus ? (int)r : -1);
        if (p->rank_gpu[r] >= 0 && t.gpus[r].node != RFI_NODE_UNKNOWN)
            cr_assert_eq(p->rank_node[r], t.gpus[r].node);
    }
    for (uint32_t w = 0; w < workers; w++) {
        bool allowed = false;
        cr_assert_lt(p->worker_node[w], t.n_nodes);
        if (workers > t.n_cpus) {
            cr_assert_eq(p->worker_cpu[w], -1);
            continue;
        }
        for (uint32_t c = 0; c < t.n_cpus; c++)
            allowed |= t.cpus[c].os_cpu == p->worker_cpu[w] && t.cpus[c].node == p->worker_node[w];
        cr_assert(allowed, "worker %u: CPU %d", w, p->worker_cpu[w]);
        for (uint32_t v = 0; v < w; v++)
            cr_assert_neq(p->worker_cpu[v], p->worker_cpu[w]);
    }
}

static uint32_t core_of(int cpu)
{
    for (uint32_t c = 0; c < t.n_cpus; c++)
        if (t.cpus[c].os_cpu == cpu)
            return t.cpus[c].core;
    return UINT32_MAX;
}

static uint32_t count(const uint32_t *nodes, uint32_t n, uint32_t node)
{
    uint32_t times = 0;
    for (uint32_t i = 0; i < n; i++)
        times += nodes[i] == node;
    return times;
}

Test(placement, without_gpus_ranks_are_dealt_evenly)
{
    struct rfi_placement p;
    synthetic("numa:4 core:4 pu:2");
    cr_assert(t.n_nodes == 4 && t.n_cpus == 32 && t.n_gpus == 0);
    for (uint32_t ranks = 1; ranks <= 33; ranks++) {
        check(ranks, 4, &p);
        for (uint32_t n = 0; n < 4; n++) {
            uint32_t got = count(p.rank_node, ranks, n);
            cr_assert(got == ranks / 4 || got == ranks / 4 + 1);
        }
        rfi_placement_fini(&p);
    }
}

Test(placement, workers_take_cores_first_and_hyperthreads_after)
{
    struct rfi_placement p;
    synthetic("numa:2 core:3 pu:2");
    for (uint32_t workers = 1; workers <= 12; workers++) {
        check(4, workers, &p);
        cr_assert_leq(abs((int)count(p.worker_node, workers, 0) - (int)count(p.worker_node, workers, 1)), 1);
        for (uint32_t w = 0; workers <= 6 && w < workers; w++)
            for (uint32_t v = 0; v < w; v++)
                cr_assert_neq(core_of(p.worker_cpu[v]), core_of(p.worker_cpu[w]), "%u workers", workers);
        rfi_placement_fini(&p);
    }
}

Test(placement, more_workers_than_cpus_are_not_pinned)
{
    struct rfi_placement p;
    synthetic("numa:2 core:2 pu:1");
    check(4, 5, &p);
    cr_assert_geq(count(p.worker_node, 5, 0), 2);
    cr_assert_geq(count(p.worker_node, 5, 1), 2);
    rfi_placement_fini(&p);
    check(4, 400, &p);
    cr_assert_eq(count(p.worker_node, 400, 0), 200);
    rfi_placement_fini(&p);
}

Test(placement, every_small_combination_holds)
{
    static const char *machines[] = {"core:1 pu:1", "numa:1 core:2 pu:2", "numa:3 core:2 pu:1",
                                     "pack:2 numa:2 core:2 pu:4"};
    for (size_t m = 0; m < 4; m++) {
        synthetic(machines[m]);
        for (uint32_t ranks = 0; ranks < 9; ranks++)
            for (uint32_t workers = 0; workers < 40; workers++) {
                struct rfi_placement p;
                check(ranks, workers, &p);
                rfi_placement_fini(&p);
            }
    }
}

/* Hand-made: nodes of unequal cores, ranks by GPU on one side only. */
static void two_nodes(uint32_t cpus0, uint32_t cpus1, uint32_t gpus0, uint32_t gpus1)
{
    memset(&t, 0, sizeof t);
    t.n_nodes = 2;
    t.n_cpus = cpus0 + cpus1;
    t.nodes[0].n_cpus = cpus0;
    t.nodes[1].n_cpus = cpus1;
    for (uint32_t c = 0; c < t.n_cpus; c++) {
        t.cpus[c].os_cpu = (int)c;
        t.cpus[c].core = c;
        t.cpus[c].node = c >= cpus0;
    }
    t.n_gpus = gpus0 + gpus1;
    for (uint32_t g = 0; g < t.n_gpus; g++)
        t.gpus[g].node = g >= gpus0;
}

Test(placement, nodes_with_more_ranks_get_more_workers)
{
    struct rfi_placement p;
    two_nodes(8, 8, 6, 2);
    check(8, 4, &p);
    cr_assert_eq(count(p.worker_node, 4, 0), 3);
    rfi_placement_fini(&p);
    check(8, 8, &p);
    cr_assert_eq(count(p.worker_node, 8, 0), 6);
    rfi_placement_fini(&p);
    two_nodes(8, 8, 0, 4);
    check(4, 8, &p);
    cr_assert_eq(count(p.worker_node, 8, 1), 8, "a node without ranks gets none while there is room");
    rfi_placement_fini(&p);
}

Test(placement, a_full_node_spills_to_the_other)
{
    struct rfi_placement p;
    two_nodes(2, 6, 4, 0);
    check(4, 5, &p);
    cr_assert_eq(count(p.worker_node, 5, 0), 2);
    rfi_placement_fini(&p);
    two_nodes(0, 4, 2, 2); /* our cpuset has nothing on node 0: memory there, workers here */
    check(4, 3, &p);
    cr_assert(p.rank_node[0] == 0 && count(p.worker_node, 3, 1) == 3);
    rfi_placement_fini(&p);
}

Test(placement, the_number_of_workers_stays_between_one_and_half_the_cores)
{
    synthetic("numa:1 core:1 pu:2");
    cr_assert_eq(rfi_placement_workers(&t, 8), 1);
    synthetic("numa:2 core:8 pu:2");
    cr_assert_eq(rfi_placement_workers(&t, 1), 2);
    cr_assert_eq(rfi_placement_workers(&t, 6), 6);
    cr_assert_eq(rfi_placement_workers(&t, 100), 8);
    synthetic("numa:4 core:64 pu:1");
    cr_assert_eq(rfi_placement_workers(&t, 100), 64);
}

/* Says of any choice of keepers what must hold of it. */
static void check_keepers(uint32_t ranks, uint32_t workers, uint32_t k)
{
    struct rfi_placement p;
    struct rfi_error err;
    uint32_t keepers[32 * 16], primaries[64] = {0}, most = 0, least = UINT32_MAX, nodes = 0, cores = 0;
    check(ranks, workers, &p);
    for (uint32_t w = 0; w < workers; w++) {
        bool seen = false;
        for (uint32_t v = 0; v < w; v++)
            seen |= core_of(p.worker_cpu[v]) == core_of(p.worker_cpu[w]);
        cores += !seen;
    }
    cr_assert_eq(rfi_placement_keepers(&t, &p, ranks, workers, k, keepers, &err), 0, "%s", err.text);
    for (uint32_t n = 0; n < t.n_nodes; n++)
        nodes += count(p.worker_node, workers, n) > 0;
    for (uint32_t r = 0; r < ranks; r++) {
        const uint32_t *of = keepers + r * k;
        uint32_t distinct_nodes = 0;
        for (uint32_t i = 0; i < k; i++) {
            bool node_seen = false;
            cr_assert_lt(of[i], workers);
            for (uint32_t j = 0; j < i; j++) {
                cr_assert_neq(of[i], of[j], "rank %u has worker %u twice", r, of[i]);
                if (cores >= k) /* enough for one each */
                    cr_assert_neq(core_of(p.worker_cpu[of[i]]), core_of(p.worker_cpu[of[j]]));
                node_seen |= p.worker_node[of[i]] == p.worker_node[of[j]];
            }
            distinct_nodes += !node_seen;
        }
        cr_assert_eq(distinct_nodes, k < nodes ? k : nodes, "rank %u: %u nodes", r, distinct_nodes);
        if (count(p.worker_node, workers, p.rank_node[r]))
            cr_assert_eq(p.worker_node[of[0]], p.rank_node[r]);
        primaries[of[0]]++;
    }
    for (uint32_t w = 0; w < workers; w++) {
        most = primaries[w] > most ? primaries[w] : most;
        least = primaries[w] < least ? primaries[w] : least;
    }
    if (t.n_nodes == 1)
        cr_assert_leq(most - least, 1, "primaries are not spread");
    rfi_placement_fini(&p);
}

Test(placement, standbys_are_on_other_cores_and_nodes)
{
    static const char *const machines[] = {"node:4 core:4 pu:2", "node:1 core:16 pu:2", "node:2 core:8 pu:2",
                                           "node:8 core:2 pu:2"};
    for (size_t m = 0; m < sizeof machines / sizeof *machines; m++) {
        synthetic(machines[m]);
        for (uint32_t ranks = 1; ranks <= 9; ranks += 2)
            for (uint32_t workers = 1; workers <= 20; workers++)
                for (uint32_t k = 1; k <= workers && k <= 5; k++)
                    check_keepers(ranks, workers, k);
    }
}

Test(placement, more_copies_than_workers_or_cores_are_refused)
{
    struct rfi_placement p;
    struct rfi_error err;
    uint32_t keepers[32];
    synthetic("node:1 core:2 pu:2");
    check(2, 2, &p);
    cr_expect_eq(rfi_placement_keepers(&t, &p, 2, 2, 3, keepers, &err), -EINVAL);
    cr_expect_not_null(strstr(err.text, "replication 3 needs 3 workers"), "%s", err.text);
    rfi_placement_fini(&p);
    check(2, 4, &p);
    cr_expect_eq(rfi_placement_keepers(&t, &p, 2, 4, 3, keepers, &err), -EINVAL);
    cr_expect_not_null(strstr(err.text, "3 cores"), "%s", err.text);
    cr_expect_eq(rfi_placement_keepers(&t, &p, 2, 4, 2, keepers, &err), 0);
    rfi_placement_fini(&p);
}
