/* Binding on the running system: CPUs by the scheduler, memory by mbind; and what came of it. */
#include "topology/topology.h"

#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { NODE_WORD = 8 * sizeof(unsigned long), NODE_WORDS = 64, PAGE = 4096, MOVED_AT_ONCE = 2 << 20 };

static int set_affinity(const cpu_set_t *set, size_t bytes)
{
    return sched_setaffinity(0, bytes, set) == 0 ? 0 : -errno;
}

int rfi_topology_pin_cpu(int os_cpu, struct rfi_error *err)
{
    if (os_cpu < 0)
        return rfi_fail(err, EINVAL, "CPU %d: there is no such CPU. This is a bug", os_cpu);
    size_t cpus = (size_t)os_cpu + 1, bytes = CPU_ALLOC_SIZE(cpus);
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set)
        return rfi_fail(err, ENOMEM, "CPU %d: no memory to pin to it. Free some memory", os_cpu);
    CPU_ZERO_S(bytes, set);
    CPU_SET_S(os_cpu, bytes, set);
    int rc = set_affinity(set, bytes);
    CPU_FREE(set);
    if (rc < 0)
        return rfi_fail(err, -rc,
                        "CPU %d: cannot be pinned to: %s. Check the cpuset of this container, or use --pin off", os_cpu,
                        strerror(-rc));
    return 0;
}

int rfi_topology_pin_node(const struct rfi_topology *t, uint32_t node, struct rfi_error *err)
{
    size_t bytes = CPU_ALLOC_SIZE(RFI_MAX_CPUS);
    if (!t->this_system || node >= t->n_nodes || t->nodes[node].n_cpus == 0)
        return 0;
    cpu_set_t *set = CPU_ALLOC(RFI_MAX_CPUS);
    if (!set)
        return rfi_fail(err, ENOMEM, "node %d: no memory to pin to it. Free some memory", t->nodes[node].os_node);
    CPU_ZERO_S(bytes, set);
    for (uint32_t c = 0; c < t->n_cpus; c++)
        if (t->cpus[c].node == node)
            CPU_SET_S(t->cpus[c].os_cpu, bytes, set);
    int rc = set_affinity(set, bytes);
    CPU_FREE(set);
    if (rc < 0)
        return rfi_fail(err, -rc,
                        "node %d: cannot be pinned to: %s. Check the cpuset of this container, or use --pin off",
                        t->nodes[node].os_node, strerror(-rc));
    return 0;
}

/* Preferred, not bound: a full node then costs speed, where a strict binding costs a process (the kernel
 * kills somebody of that node for memory). Who wants to know looks at where the pages are. */
int rfi_topology_bind_memory(const struct rfi_topology *t, void *addr, size_t bytes, uint32_t node,
                             struct rfi_error *err)
{
    unsigned long mask[NODE_WORDS] = {0};
    if (rfi_topology_homes(t) < 2 || !t->this_system || bytes == 0)
        return 0;
    if (node >= t->n_nodes)
        return rfi_fail(err, EINVAL, "NUMA: there is no node %u among %u. This is a bug", node, t->n_nodes);
    unsigned os = (unsigned)t->nodes[node].os_node;
    if (os >= NODE_WORD * NODE_WORDS - 1)
        return rfi_fail(err, EINVAL, "NUMA: node %u is beyond what this build can bind to. Use --numa off", os);
    mask[os / NODE_WORD] = 1ul << os % NODE_WORD;
    if (mbind(addr, bytes, MPOL_PREFERRED, mask, os + 2, 0) == 0) /* the kernel looks at one bit less */
        return 0;
    return rfi_fail(
        err, errno,
        "NUMA: memory cannot be placed on node %u: %s. Allow mbind in the container's seccomp profile, or use "
        "--numa off",
        os, strerror(errno));
}

int rfi_topology_interleave_memory(const struct rfi_topology *t, void *addr, size_t bytes, struct rfi_error *err)
{
    unsigned long mask[NODE_WORDS] = {0};
    unsigned top = 0;
    if (rfi_topology_homes(t) < 2 || !t->this_system || bytes == 0)
        return 0;
    for (uint32_t n = 0; n < t->n_nodes; n++) {
        if (t->nodes[n].no_memory)
            continue;
        unsigned os = (unsigned)t->nodes[n].os_node;
        if (os >= NODE_WORD * NODE_WORDS - 1)
            return rfi_fail(err, EINVAL, "NUMA: node %u is beyond what this build can bind to. Use --numa off", os);
        mask[os / NODE_WORD] |= 1ul << os % NODE_WORD;
        top = os > top ? os : top;
    }
    if (mbind(addr, bytes, MPOL_INTERLEAVE, mask, top + 2, 0) == 0)
        return 0;
    return rfi_fail(err, errno,
                    "NUMA: memory cannot be spread over the nodes: %s. Allow mbind in the container's seccomp profile, "
                    "or use --numa off",
                    strerror(errno));
}

int rfi_topology_nodes_of_pages(void **pages, uint32_t n, int *ret_nodes)
{
    return move_pages(0, n, pages, NULL, ret_nodes, 0) == 0 ? 0 : -errno;
}

/* Moves at most MOVED_AT_ONCE bytes. The kernel takes new pages from that node or not at all, and kills nobody for it.
 * False: not all of them are there now. That is asked afterwards: of a huge page the first answer is of its parts. */
static bool move_some(unsigned char *addr, size_t bytes, int os_node)
{
    void *pages[MOVED_AT_ONCE / PAGE];
    int nodes[MOVED_AT_ONCE / PAGE], status[MOVED_AT_ONCE / PAGE];
    unsigned long n = 0;
    for (size_t at = 0; at < bytes; at += PAGE) {
        pages[n] = addr + at;
        nodes[n++] = os_node;
    }
    if (move_pages(0, n, pages, nodes, status, MPOL_MF_MOVE) < 0 || move_pages(0, n, pages, NULL, status, 0) < 0)
        return false;
    for (unsigned long i = 0; i < n; i++)
        if (status[i] != os_node)
            return false;
    return true;
}

/* For a huge page the kernel does not throw page cache out, for small ones it does: some are moved there, and given back. */
static bool make_room(int os_node)
{
    unsigned char *p = mmap(NULL, RFI_MOVE_ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool ok = p != MAP_FAILED;
    if (!ok)
        return false;
    madvise(p, RFI_MOVE_ROOM_BYTES, MADV_NOHUGEPAGE);
    memset(p, 1, RFI_MOVE_ROOM_BYTES);
    for (size_t at = 0; at < RFI_MOVE_ROOM_BYTES && ok; at += MOVED_AT_ONCE)
        ok = move_some(p + at, MOVED_AT_ONCE, os_node);
    munmap(p, RFI_MOVE_ROOM_BYTES);
    return ok;
}

void rfi_topology_move_memory(const struct rfi_topology *t, void *addr, size_t bytes, uint32_t node)
{
    int os_node = t->nodes[node].os_node;
    for (size_t at = 0; at < bytes; at += MOVED_AT_ONCE) {
        size_t some = bytes - at < MOVED_AT_ONCE ? bytes - at : MOVED_AT_ONCE;
        if (!move_some((unsigned char *)addr + at, some, os_node) &&
            !(make_room(os_node) && move_some((unsigned char *)addr + at, some, os_node)))
            return;
    }
}

int rfi_topology_current_node(void)
{
    unsigned cpu, node;
    return getcpu(&cpu, &node) == 0 ? (int)node : 0;
}
