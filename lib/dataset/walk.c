/* The directory walk. Recursion is bounded by RFI_WALK_DEPTH; a directory that is its own ancestor (a
 * symbolic link upwards) is left out, so every walk ends. */
#include "dataset/walk.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RFI_WALK_DEPTH = 100, PROGRESS_EVERY = 1024 };

struct level {
    const struct level *up;
    dev_t dev;
    ino_t ino;
};

struct walk {
    const char *path; /* of the tree's top, for messages */
    char name[PATH_MAX]; /* prefix and path below the top, of the entry at hand */
    size_t prefix_bytes;
    const rf_dataset_options *o;
    struct rfi_sources *s;
    struct rfi_error *err;
};

static int walk_directory(struct walk *w, int fd, size_t name_bytes, const struct level *up, int depth);

int rfi_sources_add(struct rfi_sources *s, const char *name, uint64_t bytes, int64_t mtime_ns)
{
    struct rfi_source f = {.name = s->names.used, .bytes = bytes, .mtime_ns = mtime_ns};
    if (rfi_grow_add(&s->names, name, strlen(name) + 1) < 0)
        return -ENOMEM;
    return rfi_grow_add(&s->list, &f, sizeof f);
}

static int fail_at(struct walk *w, int code, const char *why)
{
    return rfi_fail(w->err, code, "%s/%s: %s. Repair it or leave it out", w->path, w->name + w->prefix_bytes, why);
}

static int add_file(struct walk *w, const struct stat *st)
{
    size_t n = rfi_sources_n(w->s);
    int64_t mtime = st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec;
    if (rfi_sources_add(w->s, w->name, (uint64_t)st->st_size, mtime) < 0)
        return fail_at(w, ENOMEM, "out of memory for the list of files");
    if (n % PROGRESS_EVERY == 0 && w->o->progress && w->o->progress(w->o->progress_ctx, n, 0, 0))
        return rfi_fail(w->err, ECANCELED, "%s: the scan was cancelled", w->path);
    return 0;
}

static bool is_ancestor(const struct level *up, const struct stat *st)
{
    for (; up; up = up->up)
        if (up->dev == st->st_dev && up->ino == st->st_ino)
            return true;
    return false;
}

static int enter(struct walk *w, int dir, const char *entry, size_t name_bytes, const struct level *up,
                 const struct stat *st, int depth)
{
    if (is_ancestor(up, st)) {
        rfi_log(RFI_LOG_INFO, "%s/%s: leads back to a folder above it; left out", w->path, w->name + w->prefix_bytes);
        return 0;
    }
    if (depth >= RFI_WALK_DEPTH || name_bytes + 2 >= sizeof w->name)
        return fail_at(w, ELOOP, "folders are nested too deep");
    int fd = openat(dir, entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_at(w, errno, strerror(errno));
    w->name[name_bytes] = '/';
    w->name[name_bytes + 1] = 0;
    return walk_directory(w, fd, name_bytes + 1, up, depth + 1);
}

static int visit(struct walk *w, int dir, const char *entry, size_t name_bytes, const struct level *up, int depth)
{
    struct stat st;
    size_t n = strlen(entry);
    if (name_bytes + n >= sizeof w->name)
        return fail_at(w, ENAMETOOLONG, "the path is too long");
    memcpy(w->name + name_bytes, entry, n + 1);
    if (fstatat(dir, entry, &st, 0) < 0)
        return fail_at(w, errno, errno == ENOENT ? "a symbolic link that leads nowhere" : strerror(errno));
    if (S_ISDIR(st.st_mode))
        return enter(w, dir, entry, name_bytes + n, up, &st, depth);
    if (S_ISREG(st.st_mode))
        return add_file(w, &st);
    rfi_log(RFI_LOG_INFO, "%s/%s: not a regular file; left out", w->path, w->name + w->prefix_bytes);
    return 0;
}

/* Takes over fd. */
static int walk_directory(struct walk *w, int fd, size_t name_bytes, const struct level *up, int depth)
{
    struct stat st;
    DIR *d = fdopendir(fd);
    int rc = 0;
    if (!d || fstat(fd, &st) < 0) {
        rc = fail_at(w, errno, strerror(errno));
        if (d)
            closedir(d);
        else
            close(fd);
        return rc;
    }
    struct level here = {.up = up, .dev = st.st_dev, .ino = st.st_ino};
    while (rc == 0) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e)
            break;
        if (e->d_name[0] != '.')
            rc = visit(w, fd, e->d_name, name_bytes, &here, depth);
    }
    if (rc == 0 && errno) {
        w->name[name_bytes] = 0;
        rc = fail_at(w, errno, strerror(errno));
    }
    closedir(d);
    return rc;
}

int rfi_walk(const char *path, const char *prefix, const rf_dataset_options *o, struct rfi_sources *s,
             struct rfi_error *err)
{
    struct walk w = {.path = path, .prefix_bytes = strlen(prefix), .o = o, .s = s, .err = err};
    if (w.prefix_bytes >= sizeof w.name)
        return rfi_fail(err, ENAMETOOLONG, "%s: the path is too long. Move the dataset nearer to the root", path);
    memcpy(w.name, prefix, w.prefix_bytes + 1);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return rfi_fail(err, errno, "%s: cannot open the directory: %s. Check its permissions", path, strerror(errno));
    return walk_directory(&w, fd, w.prefix_bytes, NULL, 0);
}
