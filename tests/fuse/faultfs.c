/* A file system that shows a folder, read-only, and spoils reads by rule:
 *
 *     faultfs FOLDER MOUNTPOINT RULES [cached]
 *
 * RULES is a file, one rule a line: NAME FROM TO KIND TIMES ARG. NAME is a path relative to the folder, or *;
 * the rule is for reads that touch [FROM, TO) of it (TO 0: to the end), the first TIMES ones at each offset
 * (0: every one). KIND:
 *     eio              the read fails
 *     short            half of it comes
 *     zero             the bytes of the range are zero
 *     flip             the first byte of the range has its lowest bit flipped
 *     eof              the file ends at FROM for this read
 *     late             it comes ARG milliseconds late
 *     stale            it comes ARG milliseconds late, and the bytes of the range are zero
 * Only reads of ringfeed's workers are spoilt (by the name of the process, io_uring's helpers included), so
 * that a test can read the truth through the same path. /.faults tells "reads R" and "spoilt S". Reads come to
 * us as they are asked for (direct_io), unless `cached` is given. */
#define FUSE_USE_VERSION 31
#include <fuse.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RULES = 4096, BUCKETS = 1 << 16 };

struct rule {
    char name[256], kind[8];
    uint64_t from, to, times, arg;
};

/* How often a rule met an offset of a file. */
struct met {
    struct met *next;
    uint64_t rule, offset, times;
    char name[];
};

static struct {
    int root; /* the folder */
    bool cached;
    struct rule rules[MOST_RULES];
    size_t n_rules;
    pthread_mutex_t lock; /* of all below */
    struct met *buckets[BUCKETS];
    uint64_t reads, spoilt;
} fs = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static bool is_counter(const char *path)
{
    return strcmp(path, "/.faults") == 0;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    (void)fi;
    if (is_counter(path)) {
        *st = (struct stat){.st_mode = S_IFREG | 0444, .st_nlink = 1};
        return 0;
    }
    return fstatat(fs.root, below(path), st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t at, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
    (void)at;
    (void)fi;
    (void)flags;
    int fd = openat(fs.root, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return -errno;
    for (struct dirent *e; (e = readdir(d));)
        fill(buf, e->d_name, NULL, 0, 0);
    closedir(d);
    return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
    fi->direct_io = !fs.cached || is_counter(path);
    if (is_counter(path))
        return 0;
    int fd = openat(fs.root, below(path), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    return 0;
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
    if (!is_counter(path))
        close((int)fi->fh);
    return 0;
}

static bool from_a_worker(void)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)fuse_get_context()->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, name, sizeof name - 1);
    close(fd);
    return n > 0 && (strncmp(name, "ringfeed-worker", 15) == 0 || strncmp(name, "iou-wrk-", 8) == 0);
}

/* Whether the rule still applies at this offset; counts it. */
static bool applies(size_t rule, const char *name, uint64_t offset)
{
    uint64_t h = offset * UINT64_C(0x9e3779b97f4a7c15) + rule;
    for (const char *p = name; *p; p++)
        h = (h ^ (unsigned char)*p) * UINT64_C(1099511628211);
    struct met **at = &fs.buckets[h >> 48 & (BUCKETS - 1)];
    while (*at && ((*at)->rule != rule || (*at)->offset != offset || strcmp((*at)->name, name) != 0))
        at = &(*at)->next;
    if (!*at) {
        *at = calloc(1, sizeof **at + strlen(name) + 1);
        if (!*at)
            abort();
        (*at)->rule = rule;
        (*at)->offset = offset;
        strcpy((*at)->name, name);
    }
    return (*at)->times++ < fs.rules[rule].times || !fs.rules[rule].times;
}

/* The first rule for this read, or NULL. */
static const struct rule *rule_for(const char *name, uint64_t offset, uint64_t bytes)
{
    const struct rule *found = NULL;
    pthread_mutex_lock(&fs.lock);
    fs.reads++;
    for (size_t i = 0; i < fs.n_rules && !found; i++) {
        const struct rule *r = &fs.rules[i];
        bool here = (strcmp(r->name, "*") == 0 || strcmp(r->name, name) == 0) && offset + bytes > r->from &&
                    (!r->to || offset < r->to);
        if (here && applies(i, name, offset))
            found = r;
    }
    fs.spoilt += found != NULL;
    pthread_mutex_unlock(&fs.lock);
    return found;
}

static ssize_t spoil(const struct rule *r, char *buf, ssize_t n, uint64_t offset)
{
    uint64_t from = r->from > offset ? r->from - offset : 0, end = (uint64_t)n;
    if (r->to && r->to < offset + end)
        end = r->to > offset ? r->to - offset : 0;
    if (strcmp(r->kind, "short") == 0)
        return n > 1 ? n / 2 : n;
    if (strcmp(r->kind, "eof") == 0)
        return (ssize_t)(from < (uint64_t)n ? from : (uint64_t)n);
    if ((strcmp(r->kind, "zero") == 0 || strcmp(r->kind, "stale") == 0) && end > from)
        memset(buf + from, 0, end - from);
    if (strcmp(r->kind, "flip") == 0 && end > from)
        buf[from] ^= 1;
    return n;
}

static int read_counter(char *buf, size_t bytes, off_t offset)
{
    char text[64];
    pthread_mutex_lock(&fs.lock);
    int n = snprintf(text, sizeof text, "reads %llu\nspoilt %llu\n", (unsigned long long)fs.reads,
                     (unsigned long long)fs.spoilt);
    pthread_mutex_unlock(&fs.lock);
    if (offset >= n)
        return 0;
    size_t left = (size_t)(n - offset);
    memcpy(buf, text + offset, left < bytes ? left : bytes);
    return (int)(left < bytes ? left : bytes);
}

static int fs_read(const char *path, char *buf, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
    if (is_counter(path))
        return read_counter(buf, bytes, offset);
    const struct rule *r = from_a_worker() ? rule_for(below(path), (uint64_t)offset, bytes) : NULL;
    if (r && strcmp(r->kind, "eio") == 0)
        return -EIO;
    if (r && (strcmp(r->kind, "late") == 0 || strcmp(r->kind, "stale") == 0)) {
        struct timespec ts = {.tv_sec = (time_t)(r->arg / 1000), .tv_nsec = (long)(r->arg % 1000) * 1000000};
        while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
            ;
    }
    ssize_t n = pread((int)fi->fh, buf, bytes, offset);
    if (n < 0)
        return -errno;
    return (int)(r ? spoil(r, buf, n, (uint64_t)offset) : n);
}

/* Late reads must not hold up the others: by default the kernel stops everybody at 12 in the background. */
static void *fs_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
    config->attr_timeout = 0; /* a short answer makes the cache believe that the file ends there: only for now */
    conn->max_background = 1024;
    return NULL;
}

static int load_rules(const char *path)
{
    FILE *f = fopen(path, "re");
    unsigned long long from, to, times, arg;
    if (!f)
        return -1;
    for (;;) {
        struct rule *r = &fs.rules[fs.n_rules];
        int n = fscanf(f, "%255s %llu %llu %7s %llu %llu", r->name, &from, &to, r->kind, &times, &arg);
        if (n != 6 || fs.n_rules + 1 == MOST_RULES)
            break;
        r->from = from;
        r->to = to;
        r->times = times;
        r->arg = arg;
        fs.n_rules++;
    }
    bool whole = feof(f);
    fclose(f);
    return whole ? 0 : -1;
}

int main(int argc, char **argv)
{
    static const struct fuse_operations operations = {.init = fs_init,
                                                      .getattr = fs_getattr,
                                                      .readdir = fs_readdir,
                                                      .open = fs_open,
                                                      .read = fs_read,
                                                      .release = fs_release};
    if (argc < 4 || (fs.root = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0 || load_rules(argv[3]) < 0) {
        fprintf(stderr, "faultfs FOLDER MOUNTPOINT RULES [cached]\n");
        return 2;
    }
    fs.cached = argc > 4 && strcmp(argv[4], "cached") == 0;
    char *args[] = {argv[0], (char *)"-f", (char *)"-oro,default_permissions,fsname=faultfs,max_threads=256", argv[2],
                    NULL};
    return fuse_main(4, args, &operations, NULL);
}
