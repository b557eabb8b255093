/* Reads limits from /proc and the cgroup file systems; no state. */
#include "segment/room.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* A file holding one number, or "max". UINT64_MAX when absent or unlimited. */
static uint64_t read_number(const char *path)
{
    char text[64] = "";
    FILE *f = fopen(path, "re");
    if (!f)
        return UINT64_MAX;
    if (!fgets(text, sizeof text, f))
        text[0] = 0;
    fclose(f);
    if (text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

static uint64_t left_in(const char *dir, const char *limit_file, const char *usage_file)
{
    char path[4600];
    snprintf(path, sizeof path, "%s/%s", dir, limit_file);
    uint64_t limit = read_number(path);
    if (limit > UINT64_MAX / 4) /* v1 writes a huge number for "none" */
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", dir, usage_file);
    uint64_t usage = read_number(path);
    if (usage == UINT64_MAX)
        return UINT64_MAX;
    return usage >= limit ? 0 : limit - usage;
}

/* Usage includes page cache that the kernel would give back first. */
static uint64_t cache_in(const char *dir, const char *key)
{
    char path[4600], line[256];
    uint64_t bytes = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] == ' ')
            bytes = strtoull(line + n + 1, NULL, 10);
    fclose(f);
    return bytes;
}

/* Walks from the process's own group up to the root of the hierarchy: the smallest room counts. */
static uint64_t walk_up(const char *mount, char *group, const char *limit, const char *usage, const char *cache)
{
    uint64_t room = UINT64_MAX;
    for (;;) {
        char dir[4500];
        snprintf(dir, sizeof dir, "%s%s", mount, group);
        uint64_t left = left_in(dir, limit, usage);
        if (left != UINT64_MAX)
            room = rfi_min(room, left + cache_in(dir, cache));
        char *slash = strrchr(group, '/');
        if (!slash)
            return room;
        *slash = 0;
    }
}

uint64_t rfi_room_cgroup(void)
{
    char line[4300];
    uint64_t room = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f)
        return room;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        controllers++;
        if (!*controllers)
            room = rfi_min(room, walk_up("/sys/fs/cgroup", group, "memory.max", "memory.current", "file"));
        else if (!strcmp(controllers, "memory"))
            room = rfi_min(room, walk_up("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                                         "memory.usage_in_bytes", "total_cache"));
    }
    fclose(f);
    return room;
}

int rfi_room_shm(uint64_t *ret_free, uint64_t *ret_size, struct rfi_error *err)
{
    struct statvfs st;
    if (statvfs("/dev/shm", &st) < 0)
        return rfi_fail(err, errno, "cannot look at /dev/shm: %s. Mount a tmpfs there", strerror(errno));
    *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    *ret_size = (uint64_t)st.f_blocks * st.f_frsize;
    return 0;
}

uint64_t rfi_room_available(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f)
        return UINT64_MAX;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1)
            break;
    fclose(f);
    return kb ? kb * 1024 : UINT64_MAX;
}

int rfi_room_check(uint64_t bytes, uint64_t memory_bytes, struct rfi_error *err)
{
    uint64_t shm_free = 0, shm_size = 0;
    int rc = rfi_room_shm(&shm_free, &shm_size, err);
    if (rc < 0)
        return rc;
    if (shm_size && bytes > shm_free)
        return rfi_fail(err, ENOSPC,
                        "not enough room in /dev/shm: %" PRIu64 " bytes are needed, %" PRIu64 " of %" PRIu64
                        " are free. Enlarge it (mount -o remount,size=…; docker run --shm-size=…), lower "
                        "--cache-bytes, --prefetch, --ring-bytes or --batch, or remove dead runs with `ringfeed gc`",
                        bytes, shm_free, shm_size);
    uint64_t cgroup = rfi_room_cgroup(), machine = rfi_room_available();
    if (memory_bytes > machine)
        return rfi_fail(err, ENOSPC,
                        "not enough memory: %" PRIu64 " bytes are needed, %" PRIu64
                        " are available. Lower --cache-bytes, --prefetch, --ring-bytes, --batch or --queue-depth",
                        memory_bytes, machine);
    if (memory_bytes > cgroup)
        return rfi_fail(
            err, ENOSPC,
            "not enough memory in this control group: %" PRIu64 " bytes are needed, %" PRIu64
            " are allowed. Raise the group's limit or lower --cache-bytes, --prefetch, --ring-bytes or --batch",
            memory_bytes, cgroup);
    return 0;
}
