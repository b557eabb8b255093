#include "bench/devices.h"

#include "base/bytes.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

enum { FILES_LOOKED_AT = 4096, SECTOR = 512 };

static bool read_line(const char *path, char *buf, size_t cap)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(buf, (int)cap, f);
    if (f)
        fclose(f);
    if (!ok)
        return false;
    size_t n = strcspn(buf, "\n");
    while (n && buf[n - 1] == ' ')
        n--;
    buf[n] = 0;
    return true;
}

static bool read_stat(dev_t number, struct bench_device_counters *ret)
{
    char path[64], line[512];
    unsigned long long reads, merged, sectors;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/stat", major(number), minor(number));
    if (!read_line(path, line, sizeof line) || sscanf(line, "%llu %llu %llu", &reads, &merged, &sectors) != 3)
        return false;
    ret->reads += reads;
    ret->bytes += sectors * SECTOR;
    return true;
}

static void add(struct bench_devices *d, dev_t number)
{
    struct bench_device_counters any = {0};
    for (unsigned i = 0; i < d->n; i++)
        if (d->numbers[i] == number)
            return;
    if (d->n < BENCH_DEVICES_MOST && read_stat(number, &any))
        d->numbers[d->n++] = number;
    else
        d->more = true;
}

static void name_filesystem(const char *path, char *buf, size_t cap)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {{0xef53, "ext4"},        {0x58465342, "xfs"},   {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"},
                 {0x794c7630, "overlay"}, {0x6969, "nfs"},       {0x2fc12fc1, "zfs"},   {0x65735546, "fuse"},
                 {0xf2f52010, "f2fs"},    {0x0bd00bd0, "lustre"}};
    struct statfs fs;
    snprintf(buf, cap, "?");
    if (statfs(path, &fs) < 0)
        return;
    snprintf(buf, cap, "0x%lx", (unsigned long)fs.f_type);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if ((unsigned long)fs.f_type == known[i].magic)
            snprintf(buf, cap, "%s", known[i].name);
}

void bench_devices_find(const struct rfi_dataset *d, struct bench_devices *ret)
{
    uint32_t files = rfi_dataset_n_files(d), looks = (uint32_t)rfi_min(files, FILES_LOOKED_AT);
    *ret = (struct bench_devices){.filesystem = "?"};
    for (uint32_t i = 0; i < looks; i++) {
        char path[PATH_MAX];
        struct stat st;
        if (rfi_dataset_path(d, (uint32_t)((uint64_t)i * files / looks), path, sizeof path) < 0 || stat(path, &st) < 0)
            continue;
        if (i == 0)
            name_filesystem(path, ret->filesystem, sizeof ret->filesystem);
        add(ret, st.st_dev);
    }
}

bool bench_devices_read(const struct bench_devices *d, struct bench_device_counters *ret)
{
    *ret = (struct bench_device_counters){0};
    for (unsigned i = 0; i < d->n; i++)
        if (!read_stat(d->numbers[i], ret))
            return false;
    return d->n > 0;
}

static void sys_path(dev_t number, const char *file, char *buf, size_t cap)
{
    snprintf(buf, cap, "/sys/dev/block/%u:%u/%s", major(number), minor(number), file);
}

void bench_device_name(dev_t number, char *buf, size_t cap)
{
    char path[96], real[PATH_MAX];
    sys_path(number, "", path, sizeof path);
    const char *slash = realpath(path, real) ? strrchr(real, '/') : NULL;
    snprintf(buf, cap, "%s", slash ? slash + 1 : "?");
}

bool bench_device_fact(dev_t number, const char *file, char *buf, size_t cap)
{
    char path[96], above[64];
    sys_path(number, file, path, sizeof path);
    if (read_line(path, buf, cap))
        return true;
    snprintf(above, sizeof above, "../%s", file); /* a partition: its disk knows */
    sys_path(number, above, path, sizeof path);
    return read_line(path, buf, cap);
}
