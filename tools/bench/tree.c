#include "bench/tree.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* All threads of a process, ended ones too, in ns. */
static double cpu_of(pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) != 0)
        return 0;
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* CPU time of the children that a process has reaped, in ticks of 10 ms. */
static double cpu_of_reaped(pid_t pid)
{
    char path[64], line[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    const char *rest = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    fclose(f);
    if (!rest || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* The number behind `key` in a file of /proc with one "key: number" a line; false: not there. */
static bool proc_number(pid_t pid, const char *file, const char *key, uint64_t *ret)
{
    char path[64], line[256];
    bool found = false;
    size_t n = strlen(key);
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    while (!found && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':') {
            *ret = strtoull(line + n + 1, NULL, 10);
            found = true;
        }
    fclose(f);
    return found;
}

static pid_t worker_pid(const struct rfi_run_view *run, uint32_t i)
{
    return (pid_t)atomic_load_explicit(&run->workers[i].pid, memory_order_relaxed);
}

void bench_usage_read(const struct rfi_run_view *run, const struct bench_devices *devices, struct bench_usage *ret)
{
    pid_t parent = (pid_t)run->segment.owner_pid;
    *ret = (struct bench_usage){.io_known = true};
    for (uint32_t i = 0; i < run->config.workers; i++) {
        uint64_t bytes = 0;
        pid_t pid = worker_pid(run, i);
        ret->workers_cpu_s += cpu_of(pid);
        ret->issued += atomic_load_explicit(&run->workers[i].reads, memory_order_relaxed);
        ret->io_known &= proc_number(pid, "io", "read_bytes", &bytes);
        ret->io_bytes += bytes;
    }
    ret->parent_cpu_s = cpu_of(parent) + cpu_of_reaped(parent);
    ret->restarts = atomic_load_explicit(&run->coordinator->restarts, memory_order_relaxed);
    ret->device_known = bench_devices_read(devices, &ret->device);
    ret->at_ns = rfi_now_ns();
}

/* Adds one process's share to the kinds; its sum, or 0. */
static uint64_t add_memory(pid_t pid, struct bench_memory *m)
{
    uint64_t all = 0, anonymous = 0, shared = 0, file = 0;
    const char *from = "smaps_rollup";
    if (pid <= 0 || !proc_number(pid, from, "Pss", &all))
        return 0;
    proc_number(pid, from, "Pss_Anon", &anonymous);
    proc_number(pid, from, "Pss_Shmem", &shared);
    proc_number(pid, from, "Pss_File", &file);
    m->anonymous += anonymous * 1024;
    m->shared += shared * 1024;
    m->file += file * 1024;
    return all * 1024;
}

bool bench_memory_read(const struct rfi_run_view *run, struct bench_memory *ret)
{
    *ret = (struct bench_memory){0};
    ret->parent = add_memory((pid_t)run->segment.owner_pid, ret);
    for (uint32_t i = 0; i < run->config.workers; i++)
        ret->workers += add_memory(worker_pid(run, i), ret);
    ret->trainers = add_memory(getpid(), ret);
    return ret->parent && ret->trainers;
}
