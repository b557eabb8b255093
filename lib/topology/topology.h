/* The machine: NUMA nodes and the cores this process may use, by hwloc (flat fallback when hwloc
 * finds nothing usable), and placement of workers as a pure function of that picture. Memory binding
 * by libnuma's mbind. Binding is only attempted on the running system.
 *
 * Must not know: rings, datasets. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFI_MAX_NODES = 64, RFI_MAX_CPUS = 4096 };

/* Never chosen unasked: a ring's writers mask has one bit a worker's queue. */
enum { RFI_WORKERS_CHOSEN_MAX = 64 };

/* A device whose place the firmware does not tell. */
#define RFI_NODE_UNKNOWN UINT32_MAX

struct rfi_topology {
    uint32_t n_nodes;
    struct {
        int os_node; /* kernel's number */
        uint32_t n_cpus; /* allowed to us */
        uint64_t memory_bytes;
        bool no_memory; /* none is there, or none for us (a cpuset) */
    } nodes[RFI_MAX_NODES];
    uint32_t distance[RFI_MAX_NODES][RFI_MAX_NODES]; /* as the firmware has it: 10 is here; 0: it does not say */
    uint32_t n_cpus;
    struct {
        int os_cpu;
        uint32_t node; /* index into nodes */
        uint32_t core; /* physical core number, logical */
    } cpus[RFI_MAX_CPUS];
    uint32_t n_gpus; /* devices in PCI order, with their locality */
    struct {
        char name[32]; /* PCI address */
        uint32_t node; /* or RFI_NODE_UNKNOWN */
        uint32_t vendor; /* PCI number */
        char uuid[48]; /* "GPU-…"; empty: not known */
    } gpus[64];
    uint32_t n_visible; /* of them in the order that the environment gives; 0: it says nothing */
    uint32_t visible[64];
    uint32_t n_disks;
    struct {
        char name[32];
        uint32_t node; /* or RFI_NODE_UNKNOWN */
    } disks[64];
    struct {
        bool known;
        uint32_t node;
        char disk[32];
    } data; /* where the dataset lies: rfi_topology_set_data */
    bool this_system; /* binding is possible */
    bool flat; /* hwloc gave nothing; one node was assumed */
};

/* Loads the running machine, or an hwloc XML file / synthetic string for tests and planning (`xml`
 * or `synthetic` non-NULL). Cores outside the process's cpuset are left out; nodes outside it are kept, since devices
 * may be there. */
int rfi_topology_load(const char *xml, const char *synthetic, struct rfi_topology *ret, struct rfi_error *err);

/* The node whose memory serves `node`: itself, or, where it has none, the nearest one that has. */
uint32_t rfi_topology_home(const struct rfi_topology *t, uint32_t node);
/* Nodes with memory for us. Below two there is nothing to bind. */
uint32_t rfi_topology_homes(const struct rfi_topology *t);

/* The disk with this name (as lstopo prints it) holds the dataset. False: the picture does not have it, or not where it
 * is; then nothing is near the data. */
bool rfi_topology_set_data(struct rfi_topology *t, const char *disk);
/* Names of the disks under a device (st_dev) of this machine: partitions, RAID and device mapper are followed down.
 * Returns how many, at most `most`; 0 for what is no disk (tmpfs, network, overlay). */
uint32_t rfi_topology_disks_of(uint64_t device, char (*names)[32], uint32_t most);
uint32_t rfi_topology_disks_below(const char *folder, char (*names)[32], uint32_t most); /* a device's folder in /sys */

struct rfi_placement {
    uint32_t *rank_node; /* [ranks] index into nodes, where the ring's memory is: see placement.c */
    int *rank_gpu; /* [ranks] index into gpus, or -1 */
    uint32_t *worker_node; /* [workers]: dealt so that nodes with more ranks have more workers */
    int *worker_cpu; /* [workers] os_cpu, distinct physical cores first, or -1: not pinned (more workers than CPUs) */
};

/* Pure. The server's i-th rank has the i-th visible GPU where the environment names as many as there are ranks, else the
 * i-th in PCI order. */
int rfi_placement_plan(const struct rfi_topology *t, uint32_t ranks, uint32_t workers, struct rfi_placement *ret,
                       struct rfi_error *err);
void rfi_placement_fini(struct rfi_placement *p);

enum { RFI_KEEPERS_MOST = 16 };

/* Pure. Which `k` workers read for each rank: ret[rank * k] is the primary, on the rank's node where there is one, then
 * k - 1 standbys, on nodes and cores of their own as far as there are any; all spread evenly. -EINVAL with the
 * reason when there are fewer than k workers or cores. */
int rfi_placement_keepers(const struct rfi_topology *t, const struct rfi_placement *p, uint32_t ranks, uint32_t workers,
                          uint32_t k, uint32_t *ret, struct rfi_error *err);

/* Workers when the user does not say: one a rank and at least 2, but at most half of the cores that this
 * process may use, and at least 1. */
uint32_t rfi_placement_workers(const struct rfi_topology *t, uint32_t ranks);

/* Pins the calling thread to one CPU / to the CPUs of a node (nothing when the picture is not of this
 * system). 0, or -errno (said once by callers). */
int rfi_topology_pin_cpu(int os_cpu, struct rfi_error *err);
int rfi_topology_pin_node(const struct rfi_topology *t, uint32_t node, struct rfi_error *err);

/* mbind (preferred) of a mapped, untouched range to a node (index into nodes). No-op with one node. */
int rfi_topology_bind_memory(const struct rfi_topology *t, void *addr, size_t bytes, uint32_t node,
                             struct rfi_error *err);

/* Page by page over all nodes, for what every rank reads. */
int rfi_topology_interleave_memory(const struct rfi_topology *t, void *addr, size_t bytes, struct rfi_error *err);

/* On which node (kernel's number) each of `n` pages of this process lies; -errno for one that is not there. The call
 * itself may be forbidden (-EPERM), or there be no NUMA in the kernel (-ENOSYS). */
int rfi_topology_nodes_of_pages(void **pages, uint32_t n, int *ret_nodes);

/* Moves pages of this process alone, nothing pinned, to a node (index). Unlike memory that is preferred there, this makes
 * room: the page cache of that node gives way. What cannot be moved stays where it is. Meanwhile it may need this
 * much memory: the caller knows that it can be had. */
enum { RFI_MOVE_ROOM_BYTES = 32 << 20 };
void rfi_topology_move_memory(const struct rfi_topology *t, void *addr, size_t bytes, uint32_t node);

/* The node (kernel's number) of the CPU that this runs on, or 0. */
int rfi_topology_current_node(void);
