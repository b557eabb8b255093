/* Pictures of machines: made-up XML, recorded ones where they are at hand, and the machine we are on, on
 * which binding is done for real. */
#include "topology/devices.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct rfi_topology t;

static const char *folder(void)
{
    const char *dir = getenv("RF_TEST_SOURCE");
    cr_assert(dir, "RF_TEST_SOURCE must name tests/unit/topology: run by meson test");
    return dir;
}

/* Two sockets of two cores with two threads. Socket 0 has a GPU (01) and the display chip of the board (02);
 * socket 1 has two GPUs (81, 82), listed out of order, and an NVMe disk. GPU c1 hangs at the machine: its
 * firmware does not say where it is. (The file has no comment: hwloc's reader without libxml takes none.) */
Test(machine, a_made_up_server_is_read_as_it_is_written)
{
    char path[4096];
    struct rfi_error err;
    snprintf(path, sizeof path, "%s/two-sockets.xml", folder());
    cr_assert_eq(rfi_topology_load(path, NULL, &t, &err), 0, "%s", err.text);
    cr_assert(t.n_nodes == 2 && t.n_cpus == 8 && !t.this_system && !t.flat);
    cr_assert(t.nodes[0].memory_bytes == (uint64_t)4 << 30 && t.nodes[1].memory_bytes == (uint64_t)8 << 30);
    for (uint32_t c = 0; c < 8; c++) { /* threads of one core are 4 apart, cores 0 and 1 are on node 0 */
        cr_assert_eq(t.cpus[c].core, (uint32_t)t.cpus[c].os_cpu % 4);
        cr_assert_eq(t.cpus[c].node, (uint32_t)t.cpus[c].os_cpu % 4 / 2);
    }
    static const char *names[] = {"0000:01:00.0", "0000:81:00.0", "0000:82:00.0", "0000:c1:00.0"};
    static const uint32_t nodes[] = {0, 1, 1, RFI_NODE_UNKNOWN};
    cr_assert_eq(t.n_gpus, 4, "the board's display chip is no GPU");
    for (uint32_t g = 0; g < 4; g++) {
        cr_assert_str_eq(t.gpus[g].name, names[g]);
        cr_assert_eq(t.gpus[g].node, nodes[g]);
    }
    cr_assert(t.n_disks == 1 && t.disks[0].node == 1);
    cr_assert_str_eq(t.disks[0].name, "nvme0n1");

    struct rfi_placement p;
    cr_assert_eq(rfi_placement_plan(&t, 3, 3, &p, &err), 0);
    cr_assert(p.rank_node[0] == 0 && p.rank_node[1] == 1 && p.rank_node[2] == 1);
    rfi_placement_fini(&p);
    cr_assert_eq(rfi_placement_plan(&t, 4, 1, &p, &err), 0);
    cr_assert(p.rank_gpu[3] == 3 && p.rank_node[3] == 1, "a GPU of unknown place: dealt evenly");
    rfi_placement_fini(&p);
}

Test(machine, binding_does_nothing_on_a_picture)
{
    cpu_set_t before, after;
    struct rfi_error err;
    cr_assert_eq(rfi_topology_load(NULL, "numa:4 core:2 pu:1", &t, &err), 0);
    sched_getaffinity(0, sizeof before, &before);
    cr_assert_eq(rfi_topology_pin_node(&t, 3, &err), 0);
    sched_getaffinity(0, sizeof after, &after);
    cr_assert(CPU_EQUAL(&before, &after));
    cr_assert_eq(rfi_topology_bind_memory(&t, NULL, 4096, 3, &err), 0);
}

static void refused(const char *xml, const char *synthetic)
{
    struct rfi_error err = {0};
    cr_assert_eq(rfi_topology_load(xml, synthetic, &t, &err), -EINVAL, "%s", xml ? xml : synthetic);
    cr_assert(strstr(err.text, xml ? xml : synthetic), "%s", err.text);
}

Test(machine, what_is_no_machine_is_refused_by_name)
{
    char path[] = "/tmp/rf-topology-XXXXXX";
    int fd = mkstemp(path);
    refused("/nonexistent/machine.xml", NULL);
    refused(path, NULL);
    static const char junk[] = "<?xml version=\"1.0\"?><topology version=\"2.0\"><object type=\"Machine\"/>";
    cr_assert_eq(write(fd, junk, sizeof junk - 1), (ssize_t)sizeof junk - 1);
    refused(path, NULL);
    refused(NULL, "numa:0 core:-1");
    unlink(path);
}

/* ---- recorded machines ---- */

struct recorded {
    const char *file;
    uint32_t nodes, gpus;
    int os_nodes[8];
    uint32_t gpu_nodes[16];
};

static const struct recorded machines[] = {
    {"nvidiaDGX2.xml", 2, 16, {0, 1}, {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}},
    {"mpibind-g4dnmetal.xml", 2, 8, {0, 1}, {0, 0, 0, 0, 1, 1, 1, 1}},
    {"mpibind-epyc-corona.xml", 8, 4, {0, 1, 2, 3, 4, 5, 6, 7}, {1, 2, 5, 7}},
    {"mpibind-epyc-corona-p2.xml", 2, 8, {0, 1}, {0, 0, 0, 0, 1, 1, 1, 1}},
    {"mpibind-coral-lassen.xml", 2, 4, {0, 8}, {0, 0, 1, 1}},
    {"mpibind-eas-tioga.xml", 4, 8, {0, 1, 2, 3}, {3, 3, 1, 1, 0, 0, 2, 2}},
};

static void check_recorded(const struct recorded *m, const char *path)
{
    struct rfi_error err;
    struct rfi_placement p;
    cr_assert_eq(rfi_topology_load(path, NULL, &t, &err), 0, "%s", err.text);
    cr_assert(t.n_nodes == m->nodes && t.n_gpus == m->gpus, "%s: %u nodes, %u GPUs", m->file, t.n_nodes, t.n_gpus);
    for (uint32_t n = 0; n < m->nodes; n++)
        cr_assert_eq(t.nodes[n].os_node, m->os_nodes[n]);
    for (uint32_t ranks = 1; ranks <= 2 * m->gpus; ranks++) {
        uint32_t workers = ranks < t.n_cpus ? ranks : t.n_cpus;
        cr_assert_eq(rfi_placement_plan(&t, ranks, workers, &p, &err), 0);
        for (uint32_t r = 0; r < ranks; r++) {
            uint32_t want = ranks <= m->gpus ? m->gpu_nodes[r] : r * m->nodes / ranks;
            cr_assert_eq(p.rank_node[r], want, "%s: rank %u of %u", m->file, r, ranks);
        }
        for (uint32_t w = 0; w < workers; w++)
            for (uint32_t v = 0; v < w; v++)
                cr_assert_neq(p.worker_cpu[v], p.worker_cpu[w]);
        rfi_placement_fini(&p);
    }
}

Test(machine, recorded_machines_give_every_rank_the_node_of_its_gpu, .timeout = 60)
{
    const char *dir = getenv("RF_TEST_MACHINES");
    unsigned found = 0;
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir ? dir : "", machines[i].file);
        if (access(path, R_OK) == 0) {
            check_recorded(&machines[i], path);
            found++;
        }
    }
    if (found == 0)
        cr_skip_test("there are no recorded machines in %s", dir ? dir : "RF_TEST_MACHINES");
}

/* ---- this machine ---- */

static void load_this(void)
{
    struct rfi_error err;
    cr_assert_eq(rfi_topology_load(NULL, NULL, &t, &err), 0, "%s", err.text);
}

Test(machine, this_one_has_the_cpus_that_the_scheduler_gives_us)
{
    cpu_set_t set;
    load_this();
    sched_getaffinity(0, sizeof set, &set);
    cr_assert(t.this_system && t.n_cpus == (uint32_t)CPU_COUNT(&set));
    for (uint32_t c = 0; c < t.n_cpus; c++)
        cr_assert(CPU_ISSET(t.cpus[c].os_cpu, &set));
}

Test(machine, pinning_pins_and_a_narrower_set_is_respected_afterwards)
{
    struct rfi_error err;
    cpu_set_t set;
    load_this();
    int last = t.cpus[t.n_cpus - 1].os_cpu;
    cr_assert_eq(rfi_topology_pin_cpu(last, &err), 0, "%s", err.text);
    sched_getaffinity(0, sizeof set, &set);
    cr_assert(CPU_COUNT(&set) == 1 && CPU_ISSET(last, &set));
    cr_assert_eq(sched_getcpu(), last);
    load_this(); /* now we may use one CPU only */
    cr_assert(t.n_cpus == 1 && t.cpus[0].os_cpu == last);
    struct rfi_placement p;
    cr_assert_eq(rfi_placement_plan(&t, 4, 1, &p, &err), 0);
    cr_assert_eq(p.worker_cpu[0], last);
    rfi_placement_fini(&p);
    cr_assert_eq(rfi_placement_workers(&t, 4), 1);
}

Test(machine, pinning_to_a_node_allows_its_cpus)
{
    struct rfi_error err;
    cpu_set_t set;
    load_this();
    cr_assert_eq(rfi_topology_pin_node(&t, 0, &err), 0, "%s", err.text);
    sched_getaffinity(0, sizeof set, &set);
    cr_assert_eq((uint32_t)CPU_COUNT(&set), t.nodes[0].n_cpus);
    cr_assert_eq(rfi_topology_current_node(), t.nodes[0].os_node);
}

Test(machine, a_cpu_that_is_not_there_is_an_error_and_changes_nothing)
{
    struct rfi_error err;
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof before, &before);
    cr_assert_eq(rfi_topology_pin_cpu(100000, &err), -EINVAL);
    cr_assert(strstr(err.text, "CPU 100000"), "%s", err.text);
    cr_assert_eq(rfi_topology_pin_cpu(-1, &err), -EINVAL);
    sched_getaffinity(0, sizeof after, &after);
    cr_assert(CPU_EQUAL(&before, &after));
}

/* With one node binding is no operation; on several, the pages must be where they were wanted. */
Test(machine, memory_lies_on_the_node_it_was_bound_to)
{
    enum { BYTES = 1 << 20 };
    struct rfi_error err;
    load_this();
    for (uint32_t n = 0; n < t.n_nodes; n++) {
        int node = -1;
        char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(p, MAP_FAILED);
        cr_assert_eq(rfi_topology_bind_memory(&t, p, BYTES, n, &err), 0, "%s", err.text);
        memset(p, 1, BYTES);
        cr_assert_eq(get_mempolicy(&node, NULL, 0, p, MPOL_F_NODE | MPOL_F_ADDR), 0);
        cr_assert_eq(node, t.nodes[n].os_node);
        munmap(p, BYTES);
    }
}

/* The system call itself, on a picture that claims a second node: the wrong node is refused by the kernel
 * and told, and node 0 is accepted. */
Test(machine, mbind_errors_are_told)
{
    struct rfi_error err;
    char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(&t, 0, sizeof t);
    t.this_system = true;
    t.n_nodes = 2;
    t.nodes[1].os_node = 1000;
    cr_assert_eq(rfi_topology_bind_memory(&t, p, 4096, 0, &err), 0, "%s", err.text);
    cr_assert_lt(rfi_topology_bind_memory(&t, p, 4096, 1, &err), 0);
    cr_assert(strstr(err.text, "node 1000") && strstr(err.text, "--numa off"), "%s", err.text);
    cr_assert_eq(rfi_topology_bind_memory(&t, p, 4096, 2, &err), -EINVAL);
}

/* hwloc told to see a machine that does not exist at all: the flat picture takes over. */
Test(machine, the_flat_picture_replaces_a_broken_hwloc)
{
    struct rfi_error err;
    cpu_set_t set;
    setenv("HWLOC_XMLFILE", "/nonexistent/machine.xml", 1);
    setenv("HWLOC_COMPONENTS", "xml,stop", 1);
    cr_assert_eq(rfi_topology_load(NULL, NULL, &t, &err), 0, "%s", err.text);
    sched_getaffinity(0, sizeof set, &set);
    cr_assert(t.flat && t.this_system && t.n_nodes == 1 && t.n_cpus == (uint32_t)CPU_COUNT(&set));
    cr_assert_eq(t.nodes[0].n_cpus, t.n_cpus);
    cr_assert_gt(t.nodes[0].memory_bytes, 1 << 20);
}

Test(machine, the_drivers_word_for_a_gpu)
{
    char uuid[48] = "";
    char text[] =
        "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 145\nGPU UUID: \t GPU-8932f937-d72c-4106-c12f-20bd9faed9f6\n"
        "Video BIOS: \t 92.00.45.00.03\nBus Type: \t PCIe\n";
    char none[] = "Model: \t\t NVIDIA A100-SXM4-80GB\nGPU UUID: \t ?\?\?\n";
    FILE *f = fmemopen(text, sizeof text - 1, "r");
    cr_assert(f && rfi_topology_uuid_in(f, uuid, sizeof uuid));
    cr_assert_str_eq(uuid, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6");
    fclose(f);
    f = fmemopen(none, sizeof none - 1, "r");
    cr_assert(f && !rfi_topology_uuid_in(f, uuid, sizeof uuid));
    fclose(f);
}
