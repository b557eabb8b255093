/* Which PCI devices are accelerators, and where devices are. A GPU is told by what drivers and hwloc's
 * plugins found under it, or by its PCI class: the small display chips of server boards have the plain
 * VGA class and no compute device, and must not shift the numbering. */
#include "topology/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES_MAX = 64 };

enum {
    CLASS_VGA = 0x0300,
    CLASS_3D = 0x0302,
    CLASS_DISPLAY_OTHER = 0x0380,
    CLASS_ACCELERATOR = 0x1200,
    VENDOR_AMD = 0x1002,
    VENDOR_NVIDIA = 0x10de,
};

static bool computes(hwloc_obj_t pci)
{
    for (hwloc_obj_t os = pci->io_first_child; os; os = os->next_sibling)
        if (os->type == HWLOC_OBJ_OS_DEVICE && os->attr->osdev.type == HWLOC_OBJ_OSDEV_COPROC)
            return true;
    return false;
}

static bool is_gpu(hwloc_obj_t pci)
{
    unsigned class = pci->attr->pcidev.class_id, vendor = pci->attr->pcidev.vendor_id;
    if (class == CLASS_3D || class == CLASS_DISPLAY_OTHER || class == CLASS_ACCELERATOR)
        return true;
    return class == CLASS_VGA && (computes(pci) || vendor == VENDOR_NVIDIA || vendor == VENDOR_AMD);
}

/* Unknown where the firmware says nothing: then the parent is the whole machine. */
static uint32_t locality(hwloc_topology_t h, const struct rfi_topology *t, hwloc_obj_t device)
{
    hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(h, device);
    if (t->n_nodes == 1)
        return 0;
    if (!near || !near->cpuset || near->type == HWLOC_OBJ_MACHINE)
        return RFI_NODE_UNKNOWN;
    return rfi_topology_node_of(h, t, near->cpuset);
}

static int pci_order(const void *a, const void *b)
{
    const struct hwloc_pcidev_attr_s *x = &(*(hwloc_obj_t const *)a)->attr->pcidev;
    const struct hwloc_pcidev_attr_s *y = &(*(hwloc_obj_t const *)b)->attr->pcidev;
    if (x->domain != y->domain)
        return x->domain < y->domain ? -1 : 1;
    int u = x->bus << 16 | x->dev << 8 | x->func, v = y->bus << 16 | y->dev << 8 | y->func;
    return (u > v) - (u < v);
}

bool rfi_topology_uuid_in(FILE *information, char *ret, size_t cap)
{
    char line[256], uuid[48];
    while (fgets(line, sizeof line, information))
        if (sscanf(line, "GPU UUID: %47s", uuid) == 1 && strncmp(uuid, "GPU-", 4) == 0) {
            snprintf(ret, cap, "%s", uuid);
            return true;
        }
    return false;
}

/* From hwloc where it was built with NVML, else from the driver. */
static void load_uuid(hwloc_obj_t pci, const char *address, bool this_system, char *ret, size_t cap)
{
    char path[96];
    for (hwloc_obj_t os = pci->io_first_child; os; os = os->next_sibling) {
        const char *uuid = hwloc_obj_get_info_by_name(os, "NVIDIAUUID");
        if (uuid && (size_t)snprintf(ret, cap, "%s", uuid) < cap)
            return;
    }
    *ret = 0;
    snprintf(path, sizeof path, "/proc/driver/nvidia/gpus/%s/information", address);
    FILE *f = this_system ? fopen(path, "re") : NULL;
    if (!f)
        return;
    (void)rfi_topology_uuid_in(f, ret, cap);
    fclose(f);
}

static void load_gpus(hwloc_topology_t h, struct rfi_topology *t)
{
    hwloc_obj_t found[DEVICES_MAX], pci = NULL;
    uint32_t n = 0;
    while ((pci = hwloc_get_next_pcidev(h, pci)) && n < DEVICES_MAX)
        if (is_gpu(pci))
            found[n++] = pci;
    qsort(found, n, sizeof found[0], pci_order);
    for (uint32_t i = 0; i < n; i++) {
        const struct hwloc_pcidev_attr_s *a = &found[i]->attr->pcidev;
        snprintf(t->gpus[i].name, sizeof t->gpus[i].name, "%04x:%02x:%02x.%x", (unsigned)a->domain, a->bus, a->dev,
                 a->func);
        t->gpus[i].node = locality(h, t, found[i]);
        t->gpus[i].vendor = a->vendor_id;
        load_uuid(found[i], t->gpus[i].name, t->this_system && a->vendor_id == VENDOR_NVIDIA, t->gpus[i].uuid,
                  sizeof t->gpus[i].uuid);
    }
    t->n_gpus = n;
}

/* "2": a number among one vendor's GPUs in PCI order, as its runtime counts them. */
static uint32_t by_number(const struct rfi_topology *t, const char *name, size_t length, uint32_t vendor)
{
    char *end;
    unsigned long k = strtoul(name, &end, 10);
    if (!length || end != name + length || *name == '-' || *name == '+')
        return UINT32_MAX;
    for (uint32_t g = 0; g < t->n_gpus; g++)
        if (t->gpus[g].vendor == vendor && k-- == 0)
            return g;
    return UINT32_MAX;
}

/* "GPU-8932f937": as much of a UUID as tells one GPU from the others. */
static uint32_t by_uuid(const struct rfi_topology *t, const char *name, size_t length)
{
    uint32_t found = UINT32_MAX;
    for (uint32_t g = 0; g < t->n_gpus; g++) {
        if (strncmp(t->gpus[g].uuid, name, length) != 0)
            continue;
        if (found != UINT32_MAX)
            return UINT32_MAX;
        found = g;
    }
    return found;
}

/* Parts of GPUs by the older names, "MIG-GPU-8932f937-…/1/0", lie where the GPU does. The newer ones, "MIG-…", cannot be looked
 * up without the vendor's library. */
static uint32_t named(const struct rfi_topology *t, const char *name, size_t length, uint32_t vendor)
{
    static const char mig[] = "MIG-";
    const char *slash = memchr(name, '/', length);
    if (slash && strncmp(name, mig, sizeof mig - 1) == 0) {
        name += sizeof mig - 1;
        length = (size_t)(slash - name);
    }
    if (vendor == VENDOR_NVIDIA && length > 4 && strncmp(name, "GPU-", 4) == 0)
        return by_uuid(t, name, length);
    return by_number(t, name, length, vendor);
}

/* A list that has a name which leads nowhere says nothing. */
static void see(struct rfi_topology *t, const char *list, uint32_t vendor)
{
    while (*list) {
        size_t length = strcspn(list, ",");
        uint32_t gpu = named(t, list, length, vendor);
        if (gpu == UINT32_MAX || t->n_visible == DEVICES_MAX) {
            t->n_visible = 0;
            return;
        }
        t->visible[t->n_visible++] = gpu;
        list += length + (list[length] == ',');
    }
}

static void load_visible(struct rfi_topology *t)
{
    static const struct {
        const char *name;
        uint32_t vendor;
    } lists[] = {{"CUDA_VISIBLE_DEVICES", VENDOR_NVIDIA},
                 {"ROCR_VISIBLE_DEVICES", VENDOR_AMD},
                 {"HIP_VISIBLE_DEVICES", VENDOR_AMD}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists && t->this_system && t->n_visible == 0; i++)
        if (getenv(lists[i].name))
            see(t, getenv(lists[i].name), lists[i].vendor);
}

static void load_disks(hwloc_topology_t h, struct rfi_topology *t)
{
    hwloc_obj_t os = NULL;
    while ((os = hwloc_get_next_osdev(h, os)) && t->n_disks < DEVICES_MAX) {
        if (os->attr->osdev.type != HWLOC_OBJ_OSDEV_BLOCK || !os->name)
            continue;
        snprintf(t->disks[t->n_disks].name, sizeof t->disks[0].name, "%s", os->name);
        t->disks[t->n_disks++].node = locality(h, t, os);
    }
}

void rfi_topology_load_devices(hwloc_topology_t h, struct rfi_topology *t)
{
    load_gpus(h, t);
    load_visible(t);
    load_disks(h, t);
}
