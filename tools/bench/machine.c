#include "bench/machine.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

unsigned bench_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

/* The text behind the first line of `path` that begins with `key`, without `strip`; false: there is none. */
static bool find_line(const char *path, const char *key, const char *strip, char *buf, size_t cap)
{
    char line[512];
    bool found = false;
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        char *at = line + strlen(key) + strspn(line + strlen(key), strip);
        at[strcspn(at, "\"\n")] = 0;
        snprintf(buf, cap, "%s", at);
        found = true;
    }
    if (f)
        fclose(f);
    return found;
}

/* The mount option that gives /dev/shm huge pages. */
static void shm_huge(char *buf, size_t cap)
{
    char line[1024];
    snprintf(buf, cap, "never");
    FILE *f = fopen("/proc/mounts", "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *huge = strstr(line, " /dev/shm ") ? strstr(line, "huge=") : NULL;
        if (huge)
            snprintf(buf, cap, "%.*s", (int)strcspn(huge + 5, ", "), huge + 5);
    }
    if (f)
        fclose(f);
}

static void emit_fact(struct cli_emit *e, const char *key, const char *path, const char *line, const char *strip)
{
    char text[256];
    cli_emit_str(e, key, find_line(path, line, strip, text, sizeof text) ? text : NULL);
}

static void emit_devices(struct cli_emit *e, const struct bench_devices *d)
{
    static const char *const facts[][2] = {
        {"model", "device/model"}, {"rotational", "queue/rotational"}, {"scheduler", "queue/scheduler"}};
    cli_emit_array(e, "devices");
    for (unsigned i = 0; i < d->n; i++) {
        char text[128];
        cli_emit_object(e, NULL);
        bench_device_name(d->numbers[i], text, sizeof text);
        cli_emit_str(e, "name", text);
        for (size_t k = 0; k < sizeof facts / sizeof *facts; k++)
            cli_emit_str(e, facts[k][0],
                         bench_device_fact(d->numbers[i], facts[k][1], text, sizeof text) ? text : NULL);
        cli_emit_close(e);
    }
    cli_emit_close(e);
}

void bench_emit_machine(struct cli_emit *e, const struct bench_devices *devices)
{
    struct utsname u = {0};
    char text[64];
    time_t now = time(NULL);
    struct tm tm;
    uname(&u);
    cli_emit_object(e, "machine");
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    cli_emit_str(e, "time", text);
    cli_emit_str(e, "ringfeed", rf_version());
    emit_fact(e, "cpu", "/proc/cpuinfo", "model name", "\t :");
    cli_emit_u64(e, "cores", bench_cores());
    cli_emit_bytes(e, "memory_bytes", (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    emit_fact(e, "system", "/etc/os-release", "PRETTY_NAME=", "\"");
    cli_emit_str(e, "kernel", u.release);
    cli_emit_str(e, "architecture", u.machine);
    shm_huge(text, sizeof text);
    cli_emit_str(e, "shm_huge_pages", text);
    cli_emit_bool(e, "root", geteuid() == 0);
    if (devices) {
        cli_emit_str(e, "filesystem", devices->filesystem);
        emit_devices(e, devices);
    }
    cli_emit_close(e);
}
