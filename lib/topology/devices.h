/* GPUs and disks of an hwloc picture. Private to the topology layer. */
#pragma once

#include "topology/topology.h"

#include <hwloc.h>
#include <stdio.h>

/* Index of the node with the first CPU of `set`, or RFI_NODE_UNKNOWN. */
uint32_t rfi_topology_node_of(hwloc_topology_t h, const struct rfi_topology *t, hwloc_const_cpuset_t set);

/* The UUID in what NVIDIA's driver says of a GPU (/proc/driver/nvidia/gpus/ADDRESS/information). False: none is there. */
bool rfi_topology_uuid_in(FILE *information, char *ret, size_t cap);

void rfi_topology_load_devices(hwloc_topology_t h, struct rfi_topology *t);
