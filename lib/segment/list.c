/* Which runs there are, which are dead, and removing those. Touches only what prefix and magic name as
 * ours. */
#include "segment/segment.h"

#include "segment/names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char prefix[] = "ringfeed.";

/* The start of the control header, by pread: an object being truncated must not fault us. */
static bool read_header(int fd, struct rfi_segment_header *h)
{
    memset(h, 0, sizeof *h);
    ssize_t n = pread(fd, h, sizeof *h, 0);
    return n >= (ssize_t)sizeof(uint64_t) && atomic_load_explicit(&h->birth, memory_order_relaxed) == RFI_BIRTH_MAGIC;
}

static bool is_orphaned_data(const char *object)
{
    struct rfi_data_header h = {0};
    int fd = rfi_object_open(object, O_RDONLY);
    if (fd < 0)
        return false;
    bool ours = pread(fd, &h, sizeof h, 0) == sizeof h &&
                atomic_load_explicit(&h.magic, memory_order_relaxed) == RFI_DATA_MAGIC;
    close(fd);
    return ours;
}

static uint64_t object_bytes(const char *object)
{
    struct stat st;
    int fd = rfi_object_open(object, O_RDONLY);
    if (fd < 0)
        return 0;
    uint64_t n = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    close(fd);
    return n;
}

static void look_at(const char *name, const char *control, const char *data, int fd, struct rfi_run_entry *e)
{
    struct rfi_segment_header h;
    struct stat st = {0};
    (void)read_header(fd, &h);
    (void)!fstat(fd, &st);
    *e = (struct rfi_run_entry){.pid = h.owner_pid,
                                .created_ns = h.created_ns,
                                .uid = st.st_uid,
                                .control_bytes = (uint64_t)st.st_size,
                                .data_bytes = object_bytes(data)};
    snprintf(e->name, sizeof e->name, "%.64s", name);
    e->ready = atomic_load_explicit(&h.ready, memory_order_relaxed) == RFI_READY_MAGIC;
    int probe = rfi_object_open(control, O_RDWR);
    if (probe < 0) {
        e->owner = RFI_OWNER_UNKNOWN;
        return;
    }
    /* Only asks: taking the lock would make a serve starting right now believe the name is owned. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    if (fcntl(probe, F_OFD_GETLK, &lock) < 0)
        e->owner = RFI_OWNER_UNKNOWN;
    else
        e->owner = lock.l_type == F_UNLCK ? RFI_OWNER_DEAD : RFI_OWNER_ALIVE;
    close(probe);
}

/* Calls fn with every file name behind the prefix. */
static int each_name(int (*fn)(void *ctx, const char *name), void *ctx, struct rfi_error *err)
{
    int rc = 0;
    DIR *dir = opendir("/dev/shm");
    if (!dir)
        return rfi_fail(err, errno, "cannot list /dev/shm: %s", strerror(errno));
    for (struct dirent *d; rc == 0 && (d = readdir(dir));)
        if (!strncmp(d->d_name, prefix, sizeof prefix - 1))
            rc = fn(ctx, d->d_name + sizeof prefix - 1);
    closedir(dir);
    return rc;
}

struct list_ctx {
    int (*fn)(void *ctx, const struct rfi_run_entry *e);
    void *ctx;
};

static int list_one(void *ctx, const char *name)
{
    struct list_ctx *l = ctx;
    char control[RFI_OBJECT_NAME], data[RFI_OBJECT_NAME];
    struct rfi_segment_header h;
    struct rfi_run_entry e;
    if (rfi_name_check(name, NULL) < 0)
        return 0;
    rfi_object_names(name, control, data);
    int fd = rfi_object_open(control, O_RDONLY);
    if (fd < 0) {
        if (fd != -EACCES)
            return 0;
        e = (struct rfi_run_entry){.owner = RFI_OWNER_UNKNOWN};
        snprintf(e.name, sizeof e.name, "%s", name);
        return l->fn(l->ctx, &e);
    }
    bool ours = read_header(fd, &h);
    if (ours)
        look_at(name, control, data, fd, &e);
    close(fd);
    return ours ? l->fn(l->ctx, &e) : 0;
}

int rfi_segment_list(int (*fn)(void *ctx, const struct rfi_run_entry *e), void *ctx, struct rfi_error *err)
{
    struct list_ctx l = {fn, ctx};
    return each_name(list_one, &l, err);
}

int rfi_segment_reclaim(const char *name, struct rfi_error *err)
{
    char control[RFI_OBJECT_NAME], data[RFI_OBJECT_NAME];
    struct rfi_segment_header h;
    rfi_object_names(name, control, data);
    int fd = rfi_object_open(control, O_RDWR);
    if (fd == -ENOENT)
        return rfi_fail(err, ENOENT, "no run named '%s'", name);
    if (fd == -EPROTO)
        return rfi_fail(err, EPROTO,
                        "/dev/shm%s is not a shared-memory object. Remove it by hand or choose another name", control);
    if (fd < 0)
        return rfi_fail(err, -fd, "cannot open /dev/shm%s: %s. It belongs to another user; choose another name",
                        control, strerror(-fd));
    int rc = 0;
    if (!rfi_owner_lock(fd))
        rc = rfi_fail(err, EBUSY, "the owner of '%s' lives", name);
    else if (!rfi_same_object(control, fd))
        rc = rfi_fail(err, ENOENT, "the run '%s' is gone", name);
    else if (!read_header(fd, &h))
        rc = rfi_fail(err, EPROTO, "/dev/shm%s was not made by ringfeed. Remove it by hand or choose another name",
                      control);
    if (rc == 0) {
        if (is_orphaned_data(data) || object_bytes(data) == 0 ||
            atomic_load_explicit(&h.ready, memory_order_relaxed) == 0)
            shm_unlink(data);
        shm_unlink(control);
    }
    close(fd);
    return rc;
}

struct gc_ctx {
    void (*fn)(void *ctx, const char *name, uint64_t bytes);
    void *ctx;
};

static int gc_one(void *ctx, const char *name)
{
    struct gc_ctx *g = ctx;
    char base[80], control[RFI_OBJECT_NAME], data[RFI_OBJECT_NAME];
    size_t n = strlen(name);
    bool is_data = n > 5 && n < sizeof base && !strcmp(name + n - 5, ".data");
    snprintf(base, sizeof base, "%.*s", (int)(is_data ? n - 5 : n), name);
    if (rfi_name_check(base, NULL) < 0)
        return 0;
    rfi_object_names(base, control, data);
    if (is_data) { /* payload whose control name is gone: a crash between two unlinks */
        int fd = rfi_object_open(control, O_RDONLY);
        if (fd >= 0)
            close(fd);
        else if (fd == -ENOENT && is_orphaned_data(data)) {
            uint64_t bytes = object_bytes(data);
            if (shm_unlink(data) == 0 && g->fn)
                g->fn(g->ctx, base, bytes);
        }
        return 0;
    }
    uint64_t bytes = object_bytes(control) + object_bytes(data);
    if (rfi_segment_reclaim(base, NULL) == 0 && g->fn)
        g->fn(g->ctx, base, bytes);
    return 0;
}

int rfi_segment_gc(void (*fn)(void *ctx, const char *name, uint64_t bytes), void *ctx, struct rfi_error *err)
{
    struct gc_ctx g = {fn, ctx};
    return each_name(gc_one, &g, err);
}
