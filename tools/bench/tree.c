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

/* Numbers of a file of /proc with one "key: number" a line, all of one reading; whether every key was there. */
static bool proc_numbers(pid_t pid, const char *file, const char *const *keys, uint64_t *values, unsigned n)
{
    char path[64], line[256];
    unsigned found = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "re");
    while (f && found < n && fgets(line, sizeof line, f))
        for (unsigned i = 0; i < n; i++) {
            size_t k = strlen(keys[i]);
            if (strncmp(line, keys[i], k) != 0 || line[k] != ':')
                continue;
            values[i] = strtoull(line + k + 1, NULL, 10);
            found++;
        }
    if (f)
        fclose(f);
    return found == n;
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
        ret->resident += atomic_load_explicit(&run->workers[i].cached, memory_order_relaxed);
        ret->issued += atomic_load_explicit(&run->workers[i].reads, memory_order_relaxed);
        ret->io_known &= proc_numbers(pid, "io", (const char *const[]){"read_bytes"}, &bytes, 1);
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
    static const char *const keys[] = {"Pss", "Pss_Anon", "Pss_Shmem", "Pss_File"};
    uint64_t kib[4];
    if (pid <= 0 || !proc_numbers(pid, "smaps_rollup", keys, kib, 4))
        return 0;
    m->anonymous += kib[1] * 1024;
    m->shared += kib[2] * 1024;
    m->file += kib[3] * 1024;
    return kib[0] * 1024;
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
