/* What is near what: disks under a device, the neighbour of a node without memory, and where pages are. */
#include "topology/topology.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <numaif.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct rfi_topology t;
static char root[] = "/tmp/rf-near-XXXXXX";

static void clear(void)
{
    memset(&t, 0, sizeof t);
}

/* A folder of the made-up /sys, and what it needs above it. */
static void folder(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(path, 0700);
    }
    cr_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
}

static void lies_on(const char *device, const char *below)
{
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/%s", root, below);
    snprintf(to, sizeof to, "%s/%s/slaves/%s", root, device, strrchr(below, '/') + 1);
    folder(device);
    snprintf(to, sizeof to, "%s/%s/slaves", root, device);
    mkdir(to, 0700);
    snprintf(to, sizeof to, "%s/%s/slaves/%s", root, device, strrchr(below, '/') + 1);
    cr_assert_eq(symlink(from, to), 0);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Names joined, in alphabetical order: "sda sdb". */
static void disks_are(const char *device, const char *expected)
{
    char path[512], names[8][32], all[256] = "";
    snprintf(path, sizeof path, "%s/%s", root, device);
    uint32_t n = rfi_topology_disks_below(path, names, 8);
    qsort(names, n, sizeof *names, by_name);
    for (uint32_t i = 0; i < n; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? " " : "", names[i]);
    cr_assert_str_eq(all, expected, "%s", device);
}

static void make_sys(void)
{
    cr_assert_not_null(mkdtemp(root));
    folder("pci/block/nvme0n1/nvme0n1p2/partition");
    folder("pci/block/sda/sda1/partition");
    folder("pci/block/sdb/sdb1/partition");
    folder("pci/block/sdb/slaves");
    lies_on("virtual/md0", "pci/block/sda/sda1");
    lies_on("virtual/md0", "pci/block/sdb/sdb1");
    lies_on("virtual/dm-0", "virtual/md0");
    lies_on("virtual/dm-1", "virtual/dm-0");
    lies_on("virtual/dm-1", "pci/block/nvme0n1/nvme0n1p2");
    lies_on("virtual/dm-8", "virtual/dm-9"); /* no machine has this */
    lies_on("virtual/dm-9", "virtual/dm-8");
}

static void remove_sys(void)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    cr_assert_eq(system(command), 0);
}

Test(near, partitions_raids_and_mappings_are_followed_to_their_disks, .init = make_sys, .fini = remove_sys)
{
    disks_are("pci/block/nvme0n1", "nvme0n1");
    disks_are("pci/block/nvme0n1/nvme0n1p2", "nvme0n1");
    disks_are("pci/block/sdb/sdb1", "sdb");
    disks_are("virtual/md0", "sda sdb");
    disks_are("virtual/dm-0", "sda sdb");
    disks_are("virtual/dm-1", "nvme0n1 sda sdb");
    disks_are("nowhere", "");
    char names[2][32], path[512];
    snprintf(path, sizeof path, "%s/virtual/dm-1", root);
    cr_assert_leq(rfi_topology_disks_below(path, names, 2), 2);
    snprintf(path, sizeof path, "%s/virtual/dm-8", root);
    cr_assert_leq(rfi_topology_disks_below(path, names, 2), 2, "a circle ends");
}

Test(near, a_file_system_without_a_disk_has_none)
{
    char names[4][32];
    struct stat st;
    cr_assert_eq(stat("/proc/self", &st), 0);
    cr_assert_eq(rfi_topology_disks_of(st.st_dev, names, 4), 0);
}

Test(near, the_dataset_is_where_its_disk_is_and_a_drive_of_several_paths_is_on_one_of_them, .init = clear)
{
    static const char *const disks[] = {"sda", "nvme1c0n1", "nvme1c3n1", "nvme10n1"};
    t.n_nodes = 3;
    t.n_disks = 4;
    for (uint32_t i = 0; i < 4; i++) {
        strcpy(t.disks[i].name, disks[i]);
        t.disks[i].node = i ? (i + 1) % 3 : RFI_NODE_UNKNOWN;
    }
    cr_assert(rfi_topology_set_data(&t, "nvme10n1") && t.data.known && t.data.node == 1);
    cr_assert(rfi_topology_set_data(&t, "nvme1n1") && t.data.node == 2);
    cr_assert_str_eq(t.data.disk, "nvme1n1");
    cr_assert_not(rfi_topology_set_data(&t, "nvme1n2"), "another name space");
    cr_assert_not(rfi_topology_set_data(&t, "nvme1n1p1"));
    cr_assert(!rfi_topology_set_data(&t, "sda") && !t.data.known, "the firmware does not say where it is");
    cr_assert_str_eq(t.data.disk, "sda");
}

Test(near, the_nearest_memory_is_that_of_least_distance, .init = clear)
{
    t.n_nodes = 4;
    cr_assert(rfi_topology_home(&t, 3) == 3 && rfi_topology_homes(&t) == 4);
    t.nodes[3].no_memory = t.nodes[0].no_memory = true;
    cr_assert(rfi_topology_home(&t, 3) == 1 && rfi_topology_homes(&t) == 2, "distances unknown: any that has some");
    t.distance[3][0] = 11;
    t.distance[3][1] = 40;
    t.distance[3][2] = 21;
    cr_assert_eq(rfi_topology_home(&t, 3), 2);
    cr_assert_eq(rfi_topology_home(&t, 1), 1);
    for (uint32_t n = 0; n < 4; n++)
        t.nodes[n].no_memory = true;
    cr_assert_eq(rfi_topology_home(&t, 3), 3, "nobody has any: it stays");
}

Test(near, pages_are_where_the_policy_call_says_too)
{
    enum { PAGES = 8, PAGE = 4096 };
    void *pages[PAGES];
    int nodes[PAGES], node;
    char *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    for (int i = 0; i < PAGES; i++)
        pages[i] = p + i * PAGE;
    memset(p, 1, PAGES / 2 * PAGE);
    int rc = rfi_topology_nodes_of_pages(pages, PAGES, nodes);
    if (rc == -EPERM || rc == -ENOSYS)
        cr_skip_test("this kernel does not say where pages are: %s", strerror(-rc));
    cr_assert_eq(rc, 0);
    for (int i = 0; i < PAGES / 2; i++) {
        cr_assert_eq(get_mempolicy(&node, NULL, 0, pages[i], MPOL_F_NODE | MPOL_F_ADDR), 0);
        cr_assert_eq(nodes[i], node);
    }
    for (int i = PAGES / 2; i < PAGES; i++)
        cr_assert_lt(nodes[i], 0, "it was never touched");
}

/* To the node where they are: nothing changes, nothing is lost. Really moved: tests/numa. */
Test(near, moving_memory_keeps_what_is_in_it)
{
    enum { BYTES = 5 << 20 };
    struct rfi_error err;
    cr_assert_eq(rfi_topology_load(NULL, NULL, &t, &err), 0);
    unsigned char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    for (int i = 0; i < BYTES; i++)
        p[i] = (unsigned char)(i % 251);
    for (uint32_t n = 0; n < t.n_nodes; n++) {
        rfi_topology_move_memory(&t, p, BYTES, n);
        for (int i = 0; i < BYTES; i++)
            cr_assert_eq(p[i], i % 251);
    }
}
