/* What is near what: memory for a node that has none, and the disks under a dataset. */
#include "topology/topology.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { STACKED_MOST = 8 }; /* RAID over encryption over partitions ...: deeper than any that is in use */

uint32_t rfi_topology_homes(const struct rfi_topology *t)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_nodes; i++)
        n += !t->nodes[i].no_memory;
    return n;
}

uint32_t rfi_topology_home(const struct rfi_topology *t, uint32_t node)
{
    uint32_t best = node;
    uint64_t least = UINT64_MAX;
    if (!t->nodes[node].no_memory)
        return node;
    for (uint32_t n = 0; n < t->n_nodes; n++) {
        uint64_t far = t->distance[node][n] ? t->distance[node][n] : UINT32_MAX;
        if (!t->nodes[n].no_memory && far < least) {
            best = n;
            least = far;
        }
    }
    return best;
}

/* With several paths to a drive, nvme0n1 has no place of its own: the paths nvme0c0n1, nvme0c1n1 ... have. */
static bool is_disk(const char *name, const char *disk)
{
    unsigned subsystem, space, s, path, n;
    int end = 0;
    if (strcmp(name, disk) == 0)
        return true;
    return sscanf(disk, "nvme%un%u%n", &subsystem, &space, &end) == 2 && !disk[end] &&
           sscanf(name, "nvme%uc%un%u%n", &s, &path, &n, &end) == 3 && !name[end] && s == subsystem && n == space;
}

bool rfi_topology_set_data(struct rfi_topology *t, const char *disk)
{
    for (uint32_t i = 0; i < t->n_disks; i++) {
        if (!is_disk(t->disks[i].name, disk))
            continue;
        t->data.known = t->disks[i].node != RFI_NODE_UNKNOWN;
        t->data.node = t->data.known ? t->disks[i].node : 0;
        snprintf(t->data.disk, sizeof t->data.disk, "%s", disk);
        return t->data.known;
    }
    return false;
}

static uint32_t follow(const char *path, char (*names)[32], uint32_t most, unsigned depth)
{
    char real[PATH_MAX], below[PATH_MAX + 300];
    uint32_t n = 0;
    if (most == 0 || depth == 0 || !realpath(path, real))
        return 0;
    snprintf(below, sizeof below, "%s/partition", real);
    if (access(below, F_OK) == 0)
        *strrchr(real, '/') = 0;
    snprintf(below, sizeof below, "%s/slaves", real);
    DIR *dir = opendir(below);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(below, sizeof below, "%s/slaves/%s", real, e->d_name);
        n += follow(below, names + n, most - n, depth - 1);
    }
    if (dir)
        closedir(dir);
    if (n == 0)
        snprintf(names[n++], sizeof *names, "%.31s", strrchr(real, '/') + 1);
    return n;
}

uint32_t rfi_topology_disks_of(uint64_t device, char (*names)[32], uint32_t most)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(device), minor(device));
    return rfi_topology_disks_below(path, names, most);
}

uint32_t rfi_topology_disks_below(const char *folder, char (*names)[32], uint32_t most)
{
    return follow(folder, names, most, STACKED_MOST);
}
