/* LRU of open files; see files.h. Slot numbers instead of pointers; NONE ends a chain. */
#include "worker/files.h"

#include "base/bytes.h"
#include "reader/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NONE = UINT32_MAX, MOST = 8192 };

int rfi_files_init(struct rfi_files *f, const struct rfi_dataset *d, bool direct, uint64_t align,
                   const char *const *mirrors, uint32_t n_mirrors)
{
    struct rlimit lim = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &lim);
    uint64_t room = lim.rlim_cur > 128 ? lim.rlim_cur - 64 : 32;
    *f = (struct rfi_files){.dataset = d,
                            .align = align,
                            .direct = direct,
                            .newest = NONE,
                            .oldest = NONE,
                            .spare = NONE,
                            .mirrors = mirrors,
                            .n_mirrors = n_mirrors,
                            .whole = true};
    f->cap = (uint32_t)rfi_max(1, rfi_min(rfi_min(room, MOST), rfi_dataset_n_files(d) * (1 + (uint64_t)n_mirrors)));
    f->buckets = f->cap;
    f->slots = calloc(f->cap, sizeof *f->slots);
    f->heads = malloc(f->buckets * sizeof *f->heads);
    if (!f->slots || !f->heads)
        return -ENOMEM;
    for (uint32_t i = 0; i < f->buckets; i++)
        f->heads[i] = NONE;
    return 0;
}

static void close_file(struct rfi_files *f, struct rfi_open_file *o)
{
    if (f->reader && f->reader->ops->forget)
        f->reader->ops->forget(f->reader, o->fd);
    close(o->fd);
}

void rfi_files_fini(struct rfi_files *f)
{
    for (uint32_t i = 0; i < f->used; i++)
        if (i != f->spare && f->slots[i].fd >= 0)
            close_file(f, &f->slots[i]);
    free(f->slots);
    free(f->heads);
}

static void unlink_lru(struct rfi_files *f, uint32_t i)
{
    struct rfi_open_file *o = &f->slots[i];
    *(o->newer == NONE ? &f->newest : &f->slots[o->newer].older) = o->older;
    *(o->older == NONE ? &f->oldest : &f->slots[o->older].newer) = o->newer;
}

static void push_newest(struct rfi_files *f, uint32_t i)
{
    struct rfi_open_file *o = &f->slots[i];
    o->newer = NONE;
    o->older = f->newest;
    *(f->newest == NONE ? &f->oldest : &f->slots[f->newest].newer) = i;
    f->newest = i;
}

static uint32_t bucket(const struct rfi_files *f, uint32_t file, uint32_t copy)
{
    return (uint32_t)((file * (1 + (uint64_t)f->n_mirrors) + copy) % f->buckets);
}

static void unhash(struct rfi_files *f, uint32_t i)
{
    uint32_t *at = &f->heads[bucket(f, f->slots[i].file, f->slots[i].copy)];
    while (*at != NONE && *at != i)
        at = &f->slots[*at].next;
    if (*at == i)
        *at = f->slots[i].next;
}

static uint32_t find(const struct rfi_files *f, uint32_t file, uint32_t copy)
{
    uint32_t i = f->heads[bucket(f, file, copy)];
    while (i != NONE && (f->slots[i].file != file || f->slots[i].copy != copy))
        i = f->slots[i].next;
    return i;
}

/* A slot for a new file: an unused one, or the oldest without users. */
static uint32_t take_slot(struct rfi_files *f)
{
    if (f->spare != NONE) {
        uint32_t spare = f->spare;
        f->spare = NONE;
        return spare;
    }
    if (f->used < f->cap)
        return f->used++;
    for (uint32_t i = f->oldest; i != NONE; i = f->slots[i].newer)
        if (f->slots[i].users == 0) {
            close_file(f, &f->slots[i]);
            unlink_lru(f, i);
            unhash(f, i);
            return i;
        }
    return NONE;
}

static int path_of(const struct rfi_files *f, uint32_t file, uint32_t copy, char *path, size_t cap)
{
    if (copy == 0)
        return rfi_dataset_path(f->dataset, file, path, cap);
    return rfi_dataset_path_below(f->dataset, file, f->mirrors[copy - 1], path, cap);
}

static bool fits(const struct rfi_files *f, int fd)
{
    struct rfi_dio dio;
    return rfi_dio_align(fd, &dio) && dio.memory <= f->align && dio.offset <= f->align;
}

static int open_file(const struct rfi_files *f, uint32_t file, uint32_t copy, int *ret_fd, bool *ret_direct)
{
    char path[PATH_MAX]; /* not kept: a worker that walks over a million files stays small */
    struct stat st;
    int rc = path_of(f, file, copy, path, sizeof path);
    if (rc < 0)
        return -rc;
    /* O_NONBLOCK: a FIFO in a file's place must not hold us; on regular files it means nothing. */
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(path, flags | (f->direct ? O_DIRECT : 0));
    *ret_direct = f->direct && fd >= 0;
    if (fd < 0 && errno == EINVAL && f->direct)
        fd = open(path, flags);
    if (fd < 0)
        return errno;
    if (*ret_direct && !fits(f, fd)) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
        *ret_direct = false;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (f->whole && (uint64_t)st.st_size < rfi_dataset_file_bytes(f->dataset, file))) {
        close(fd);
        return ESTALE;
    }
    *ret_fd = fd;
    return 0;
}

static int set_direct(struct rfi_open_file *o, bool direct)
{
    int flags = fcntl(o->fd, F_GETFL);
    if (flags < 0 || fcntl(o->fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) < 0)
        return errno;
    o->direct = direct;
    return 0;
}

/* An open file is to be read the other way from now on. Reads in flight were shaped for the way before: a rounded one
 * may end in the page cache, but one that is not rounded must not become a direct one. False: open it anew. */
static bool follow(struct rfi_files *f, struct rfi_open_file *o)
{
    if (f->direct && !o->never_direct) {
        if (o->users > 0)
            return false;
        o->never_direct = !fits(f, o->fd) || set_direct(o, true) != 0;
    } else if (!f->direct) {
        set_direct(o, false);
    }
    if (o->direct == f->direct && f->reader && f->reader->ops->forget) /* what it knows may depend on it */
        f->reader->ops->forget(f->reader, o->fd);
    return true;
}

struct rfi_open_file *rfi_files_get(struct rfi_files *f, uint32_t file, uint32_t copy, int *ret_errno)
{
    uint32_t i = find(f, file, copy);
    if (i != NONE && f->slots[i].direct != f->direct && !follow(f, &f->slots[i])) {
        unhash(f, i); /* closed when its last read has landed and the place is wanted */
        i = NONE;
    }
    if (i == NONE) {
        int fd = -1;
        bool direct = false;
        *ret_errno = open_file(f, file, copy, &fd, &direct);
        if ((*ret_errno == EMFILE || *ret_errno == ENFILE) &&
            f->used) { /* fewer than the limit promised: live with these */
            f->cap = f->used;
            f->spare = take_slot(f); /* closes the oldest that nobody reads */
            if (f->spare != NONE)
                *ret_errno = open_file(f, file, copy, &fd, &direct);
        }
        if (*ret_errno)
            return NULL;
        i = take_slot(f);
        if (i == NONE) { /* every descriptor is being read: the caller comes again */
            close(fd);
            *ret_errno = EMFILE;
            return NULL;
        }
        struct rfi_open_file *o = &f->slots[i];
        uint32_t *head = &f->heads[bucket(f, file, copy)];
        *o = (struct rfi_open_file){.file = file,
                                    .copy = copy,
                                    .fd = fd,
                                    .direct = direct,
                                    .never_direct = f->direct && !direct,
                                    .next = *head};
        *head = i;
        push_newest(f, i);
    } else if (i != f->newest) {
        unlink_lru(f, i);
        push_newest(f, i);
    }
    f->slots[i].users++;
    return &f->slots[i];
}

void rfi_files_put(struct rfi_files *f, struct rfi_open_file *o)
{
    (void)f;
    o->users--;
}

int rfi_files_buffered(struct rfi_files *f, struct rfi_open_file *o)
{
    (void)f;
    o->never_direct = true;
    return set_direct(o, false);
}
