/* Path arguments to a list of files. Two steps, because names are relative to a root that is known
 * only after all arguments were looked at. */
#include "dataset/sources.h"
#include "dataset/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One path that exists. */
struct argument {
    size_t path; /* offset in paths; absolute: a directory real, a file with its folder real */
    bool directory, globbed;
    uint64_t bytes;
    int64_t mtime_ns;
};

struct arguments {
    struct rfi_grow list; /* struct argument */
    struct rfi_grow paths;
};

static size_t n_arguments(const struct arguments *a)
{
    return a->list.used / sizeof(struct argument);
}

static struct argument *argument(const struct arguments *a, size_t i)
{
    return (struct argument *)(void *)a->list.data + i;
}

static const char *path_of(const struct arguments *a, size_t i)
{
    return (const char *)a->paths.data + argument(a, i)->path;
}

/* Real folder + own name: a symbolic link's own name is what says what the file is. */
static int real_file(const char *path, char ret[PATH_MAX])
{
    char folder[PATH_MAX];
    const char *base = rfi_base_name(path);
    size_t n = (size_t)(base - path), m = strlen(base);
    if (n >= sizeof folder)
        return -ENAMETOOLONG;
    memcpy(folder, n ? path : ".", n ? n : 1);
    folder[n ? n : 1] = 0;
    if (!realpath(folder, ret))
        return -errno;
    n = strlen(ret);
    if (n + 1 + m >= PATH_MAX)
        return -ENAMETOOLONG;
    if (n > 1)
        ret[n++] = '/';
    memcpy(ret + n, base, m + 1);
    return 0;
}

static int add_argument(struct arguments *a, const char *path, bool globbed, struct rfi_error *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return rfi_fail(err, errno, "%s: %s. Check the path", path,
                        errno == ENOENT ? "nothing there" : strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return rfi_fail(err, EINVAL,
                        "%s: neither a file nor a directory. A dataset is read at any offset, in any order", path);
    char real[PATH_MAX];
    int rc = S_ISDIR(st.st_mode) ? (realpath(path, real) ? 0 : -errno) : real_file(path, real);
    if (rc < 0)
        return rfi_fail(err, -rc, "%s: %s. Check the path", path, strerror(-rc));
    struct argument g = {.path = a->paths.used, .directory = S_ISDIR(st.st_mode), .globbed = globbed};
    g.bytes = (uint64_t)st.st_size;
    g.mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    if (rfi_grow_add(&a->paths, real, strlen(real) + 1) < 0 || rfi_grow_add(&a->list, &g, sizeof g) < 0)
        return rfi_fail(err, ENOMEM, "%s: out of memory for the list of files. Free some", path);
    return 0;
}

static int expand_glob(struct arguments *a, const char *pattern, struct rfi_error *err)
{
    glob_t g;
    int rc = glob(pattern, GLOB_BRACE, NULL, &g);
    if (rc == GLOB_NOMATCH)
        return rfi_fail(err, ENOENT, "%s: the pattern matches nothing. Check it", pattern);
    if (rc != 0)
        return rfi_fail(err, rc == GLOB_NOSPACE ? ENOMEM : EIO, "%s: the pattern cannot be expanded. Name the files",
                        pattern);
    for (size_t i = 0; i < g.gl_pathc && rc == 0; i++)
        rc = add_argument(a, g.gl_pathv[i], true, err);
    globfree(&g);
    return rc;
}

/* A path that exists is itself, whatever characters it has. */
static int look_at(struct arguments *a, const char *path, struct rfi_error *err)
{
    struct stat st;
    if (!path || !*path)
        return rfi_fail(err, EINVAL, "DATASET: an empty path. Name a file, a directory or a pattern");
    if (strpbrk(path, "*?[{") && lstat(path, &st) < 0)
        return expand_glob(a, path, err);
    return add_argument(a, path, false, err);
}

/* Longest folder that holds all arguments; a single directory is its own root. */
static void find_root(const struct arguments *a, struct rfi_sources *s)
{
    size_t n = n_arguments(a), keep = 0;
    strcpy(s->root, path_of(a, 0));
    if (n == 1 && argument(a, 0)->directory)
        return;
    *strrchr(s->root, '/') = 0;
    for (size_t i = 1; i < n; i++) {
        const char *p = path_of(a, i);
        keep = 0;
        for (size_t k = 0;; k++) {
            if ((!s->root[k] || s->root[k] == '/') && p[k] == '/')
                keep = k;
            if (!s->root[k] || s->root[k] != p[k])
                break;
        }
        s->root[keep] = 0;
    }
    if (!s->root[0])
        strcpy(s->root, "/");
}

static int compare(const void *x, const void *y, void *names)
{
    const struct rfi_source *a = x, *b = y;
    return strcmp((const char *)names + a->name, (const char *)names + b->name);
}

static int add_tree(const char *path, const char *below, const rf_dataset_options *o, struct rfi_sources *s,
                    struct rfi_error *err)
{
    char prefix[PATH_MAX + 1] = "";
    size_t first = rfi_sources_n(s);
    if (*below)
        strcat(strcpy(prefix, below), "/");
    int rc = rfi_walk(path, prefix, o, s, err);
    if (rc < 0)
        return rc;
    if (rfi_sources_n(s) == first)
        return rfi_fail(err, ENOENT, "%s: no file in this directory. Check the path", path);
    qsort_r(rfi_source_at(s, first), rfi_sources_n(s) - first, sizeof(struct rfi_source), compare, s->names.data);
    return 0;
}

static int add_all(const struct arguments *a, const rf_dataset_options *o, struct rfi_sources *s, struct rfi_error *err)
{
    int rc = 0;
    size_t root = strcmp(s->root, "/") ? strlen(s->root) : 0;
    for (size_t i = 0; i < n_arguments(a) && rc == 0; i++) {
        const struct argument *g = argument(a, i);
        const char *path = path_of(a, i), *below = path + root + (path[root] == '/');
        if (g->directory)
            rc = add_tree(path, below, o, s, err);
        else if (rfi_sources_add(s, below, g->bytes, g->mtime_ns) < 0)
            rc = rfi_fail(err, ENOMEM, "%s: out of memory for the list of files. Free some", path);
    }
    return rc;
}

int rfi_sources_find(const rf_dataset_options *o, struct rfi_sources *ret, struct rfi_error *err)
{
    struct arguments a = {0};
    int rc = 0;
    *ret = (struct rfi_sources){.root_fd = -1};
    for (size_t i = 0; i < o->n_paths && rc == 0; i++)
        rc = look_at(&a, o->paths[i], err);
    if (rc == 0 && !n_arguments(&a))
        rc = rfi_fail(err, EINVAL, "DATASET: not given. Name a file, a directory or a pattern");
    if (rc == 0) {
        find_root(&a, ret);
        ret->one_directory = n_arguments(&a) == 1 && argument(&a, 0)->directory;
        ret->one_path = n_arguments(&a) == 1 && !argument(&a, 0)->directory && !argument(&a, 0)->globbed;
        rc = add_all(&a, o, ret, err);
    }
    if (rc == 0 && (ret->root_fd = open(ret->root, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = rfi_fail(err, errno, "%s: %s. Check its permissions", ret->root, strerror(errno));
    rfi_grow_free(&a.list);
    rfi_grow_free(&a.paths);
    if (rc < 0)
        rfi_sources_free(ret);
    return rc;
}

void rfi_sources_free(struct rfi_sources *s)
{
    if (s->root_fd >= 0)
        close(s->root_fd);
    rfi_grow_free(&s->list);
    rfi_grow_free(&s->names);
    s->root_fd = -1;
}

void rfi_sources_drop(struct rfi_sources *s, bool (*drop)(const struct rfi_sources *s, size_t i, void *ctx), void *ctx)
{
    size_t n = rfi_sources_n(s), kept = 0;
    for (size_t i = 0; i < n; i++) /* all decided before anything moves */
        rfi_source_at(s, i)->gone = drop(s, i, ctx);
    for (size_t i = 0; i < n; i++)
        if (!rfi_source_at(s, i)->gone)
            *rfi_source_at(s, kept++) = *rfi_source_at(s, i);
    rfi_grow_cut(&s->list, kept * sizeof(struct rfi_source));
}

int rfi_source_open(const struct rfi_sources *s, size_t i, int *ret_fd, struct rfi_error *err)
{
    const char *name = rfi_source_name(s, i);
    *ret_fd = openat(s->root_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (*ret_fd < 0)
        return rfi_fail(err, errno, "%s/%s: cannot be opened: %s. Check its permissions", s->root, name,
                        strerror(errno));
    return 0;
}

const char *rfi_base_name(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}
