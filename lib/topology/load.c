/* The machine as hwloc sees it, copied into plain arrays so that nothing else needs to know hwloc. */
#include "topology/topology.h"

#include "topology/devices.h"

#include "base/log.h"

#include <errno.h>
#include <hwloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two memories beside the same cores (HBM and DRAM): the arena belongs into the larger one. */
static bool shadowed(hwloc_topology_t h, hwloc_obj_t node)
{
    hwloc_obj_t other = NULL;
    while ((other = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, other))) {
        uint64_t a = node->attr->numanode.local_memory, b = other->attr->numanode.local_memory;
        if (other == node || !hwloc_bitmap_isequal(other->cpuset, node->cpuset))
            continue;
        if (b > a || (b == a && other->logical_index < node->logical_index))
            return true;
    }
    return false;
}

/* Memory without cores (expanders, memory of accelerators) is no place for rings. */
static void load_nodes(hwloc_topology_t h, struct rfi_topology *t)
{
    hwloc_obj_t node = NULL;
    while ((node = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, node))) {
        if (hwloc_bitmap_iszero(node->cpuset) || shadowed(h, node))
            continue;
        if (t->n_nodes == RFI_MAX_NODES) {
            rfi_log(RFI_LOG_WARNING, "topology: only the first %d NUMA nodes are used", RFI_MAX_NODES);
            break;
        }
        t->nodes[t->n_nodes].os_node = (int)node->os_index;
        t->nodes[t->n_nodes].no_memory = node->attr->numanode.local_memory == 0 ||
                                         !hwloc_bitmap_isset(hwloc_topology_get_allowed_nodeset(h), node->os_index);
        t->nodes[t->n_nodes++].memory_bytes = node->attr->numanode.local_memory;
    }
}

static uint32_t index_of(const struct rfi_topology *t, unsigned os_node)
{
    uint32_t n = 0;
    while (n < t->n_nodes && t->nodes[n].os_node != (int)os_node)
        n++;
    return n;
}

static void load_distances(hwloc_topology_t h, struct rfi_topology *t)
{
    struct hwloc_distances_s *d;
    unsigned n = 1;
    if (hwloc_distances_get_by_name(h, "NUMALatency", &n, &d, 0) != 0 || n == 0)
        return;
    for (unsigned i = 0; i < d->nbobjs; i++)
        for (unsigned k = 0; k < d->nbobjs; k++) {
            uint32_t a = index_of(t, d->objs[i]->os_index), b = index_of(t, d->objs[k]->os_index);
            if (a < t->n_nodes && b < t->n_nodes)
                t->distance[a][b] = (uint32_t)d->values[(size_t)i * d->nbobjs + k];
        }
    hwloc_distances_release(h, d);
}

/* The node whose cores are the fewest among those that contain `set`'s first core. */
uint32_t rfi_topology_node_of(hwloc_topology_t h, const struct rfi_topology *t, hwloc_const_cpuset_t set)
{
    uint32_t best = RFI_NODE_UNKNOWN;
    int best_weight = 0, first = hwloc_bitmap_first(set);
    if (first < 0)
        return best;
    for (uint32_t n = 0; n < t->n_nodes; n++) {
        hwloc_obj_t node = hwloc_get_numanode_obj_by_os_index(h, (unsigned)t->nodes[n].os_node);
        if (!node || !hwloc_bitmap_isset(node->cpuset, (unsigned)first))
            continue;
        int weight = hwloc_bitmap_weight(node->cpuset);
        if (best == RFI_NODE_UNKNOWN || weight < best_weight) {
            best = n;
            best_weight = weight;
        }
    }
    return best;
}

/* `mine`: the CPUs that this process may use. */
static void load_cpus(hwloc_topology_t h, hwloc_const_cpuset_t mine, struct rfi_topology *t)
{
    hwloc_obj_t pu = NULL;
    while ((pu = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_PU, pu))) {
        uint32_t node = rfi_topology_node_of(h, t, pu->cpuset);
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(h, HWLOC_OBJ_CORE, pu);
        if (node == RFI_NODE_UNKNOWN || !hwloc_bitmap_isset(mine, pu->os_index))
            continue;
        if (t->n_cpus == RFI_MAX_CPUS) {
            rfi_log(RFI_LOG_WARNING, "topology: only the first %d CPUs are used", RFI_MAX_CPUS);
            break;
        }
        t->cpus[t->n_cpus].os_cpu = (int)pu->os_index;
        t->cpus[t->n_cpus].node = node;
        t->cpus[t->n_cpus++].core = core ? core->logical_index : pu->logical_index;
        t->nodes[node].n_cpus++;
    }
}

/* Discovery by sysfs only. The vendors' libraries would be initialised in a process that forks later (CUDA
 * does not survive that), take seconds and leave memory behind. One that is not installed is no
 * error. */
static void leave_out_vendor_libraries(hwloc_topology_t h)
{
    static const char *const names[] = {"cuda", "nvml", "opencl", "rsmi", "levelzero", "gl", "pci"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        hwloc_topology_set_components(h, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, names[i]);
}

static int open_hwloc(const char *xml, const char *synthetic, hwloc_topology_t *ret)
{
    if (hwloc_topology_init(ret) != 0)
        return -ENOMEM;
    leave_out_vendor_libraries(*ret);
    bool ok = hwloc_topology_set_io_types_filter(*ret, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) == 0 &&
              hwloc_topology_set_flags(*ret, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) == 0;
    if (ok && xml)
        ok = hwloc_topology_set_xml(*ret, xml) == 0;
    if (ok && synthetic)
        ok = hwloc_topology_set_synthetic(*ret, synthetic) == 0;
    if (ok && hwloc_topology_load(*ret) == 0)
        return 0;
    hwloc_topology_destroy(*ret);
    return -EINVAL;
}

static void fill(hwloc_topology_t h, struct rfi_topology *t)
{
    hwloc_cpuset_t mine = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(h)), bound = hwloc_bitmap_alloc();
    t->this_system = hwloc_topology_is_thissystem(h);
    if (mine && bound) {
        if (t->this_system && hwloc_get_cpubind(h, bound, HWLOC_CPUBIND_THREAD) == 0)
            hwloc_bitmap_and(mine, mine, bound);
        load_nodes(h, t);
        load_distances(h, t);
        load_cpus(h, mine, t);
        rfi_topology_load_devices(h, t);
    }
    hwloc_bitmap_free(mine);
    hwloc_bitmap_free(bound);
}

/* One node with the CPUs that the scheduler gives us, each taken for a core of its own. */
static void fill_flat(struct rfi_topology *t)
{
    cpu_set_t *set = CPU_ALLOC(RFI_MAX_CPUS);
    size_t bytes = CPU_ALLOC_SIZE(RFI_MAX_CPUS);
    *t = (struct rfi_topology){.n_nodes = 1, .this_system = true, .flat = true};
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    t->nodes[0].memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    if (set && sched_getaffinity(0, bytes, set) == 0)
        for (int cpu = 0; cpu < RFI_MAX_CPUS; cpu++)
            if (CPU_ISSET_S(cpu, bytes, set)) {
                t->cpus[t->n_cpus].os_cpu = cpu;
                t->cpus[t->n_cpus].core = t->n_cpus;
                t->n_cpus++;
            }
    t->nodes[0].n_cpus = t->n_cpus;
    CPU_FREE(set);
}

int rfi_topology_load(const char *xml, const char *synthetic, struct rfi_topology *ret, struct rfi_error *err)
{
    hwloc_topology_t h;
    memset(ret, 0, sizeof *ret);
    int rc = open_hwloc(xml, synthetic, &h);
    if (rc == 0) {
        fill(h, ret);
        hwloc_topology_destroy(h);
        if (ret->n_nodes > 0 && ret->n_cpus > 0)
            return 0;
    }
    if (xml || synthetic)
        return rfi_fail(
            err, EINVAL,
            "topology: %s is no machine that hwloc %s can read. Give a file written by lstopo of a 2.x release",
            xml ? xml : synthetic, HWLOC_VERSION);
    fill_flat(ret);
    if (ret->n_cpus > 0)
        return 0;
    return rfi_fail(err, EIO,
                    "topology: neither hwloc nor the scheduler says which CPUs there are. Check /sys and /proc");
}
