/* Reading a list of indices. The file may be anything: it is read in fixed pieces and never trusted. */
#include "order/subset.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 65536 };

struct list {
    const char *path;
    uint64_t samples;
    uint32_t *items;
    uint64_t n, cap;
    uint64_t line; /* being read, from 1 */
    uint64_t value;
    enum { BEFORE, DIGITS, BEHIND } state; /* of the line */
    bool ascending;
};

static int add(struct list *l, struct rfi_error *err)
{
    if (l->value >= l->samples)
        return rfi_fail(err, EINVAL,
                        "--subset %s: line %" PRIu64 ": index %" PRIu64 " is out of bounds, there are %" PRIu64
                        " samples. Give "
                        "indices below that",
                        l->path, l->line, l->value, l->samples);
    if (l->n == l->cap) {
        uint64_t cap = l->cap ? l->cap * 2 : 1024;
        uint32_t *items = realloc(l->items, cap * sizeof *items);
        if (!items)
            return rfi_fail(err, ENOMEM, "--subset %s: no memory for %" PRIu64 " indices", l->path, cap);
        l->items = items;
        l->cap = cap;
    }
    if (l->n && l->items[l->n - 1] >= l->value)
        l->ascending = false;
    l->items[l->n++] = (uint32_t)l->value;
    return 0;
}

static int end_line(struct list *l, struct rfi_error *err)
{
    int rc = l->state == BEFORE ? 0 : add(l, err);
    l->state = BEFORE;
    l->value = 0;
    l->line++;
    return rc;
}

static int take(struct list *l, char c, struct rfi_error *err)
{
    if (c == '\n')
        return end_line(l, err);
    if (c == ' ' || c == '\t' || c == '\r') {
        if (l->state == DIGITS)
            l->state = BEHIND;
        return 0;
    }
    if (c < '0' || c > '9' || l->state == BEHIND)
        return rfi_fail(err, EINVAL,
                        "--subset %s: line %" PRIu64 ": not one decimal index. Write one index a line (A:B is a range)",
                        l->path, l->line);
    l->state = DIGITS;
    if (l->value <= UINT32_MAX) /* larger is out of bounds anyway, and stays so */
        l->value = l->value * 10 + (uint64_t)(c - '0');
    return 0;
}

static int read_all(struct list *l, int fd, struct rfi_error *err)
{
    char piece[PIECE];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rfi_fail(err, errno, "--subset %s: cannot be read: %s", l->path, strerror(errno));
        if (n == 0)
            return l->state == BEFORE ? 0 : end_line(l, err);
        for (ssize_t i = 0; i < n; i++) {
            int rc = take(l, piece[i], err);
            if (rc < 0)
                return rc;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int sort(struct list *l, struct rfi_error *err)
{
    if (l->ascending)
        return 0;
    qsort(l->items, l->n, sizeof *l->items, by_value);
    for (uint64_t i = 1; i < l->n; i++)
        if (l->items[i] == l->items[i - 1])
            return rfi_fail(err, EINVAL,
                            "--subset %s: index %" PRIu32 " is listed more than once. List every sample once", l->path,
                            l->items[i]);
    return 0;
}

static int open_file(const char *path, int *ret_fd, struct rfi_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return rfi_fail(err, errno, "--subset %s: cannot be opened: %s. Give A:B, or a file with one index a line",
                        path, strerror(errno));
    /* Every server and every process of a run reads it: what can be read only once is no list. */
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return rfi_fail(err, EINVAL, "--subset %s: not a regular file. Save the list to a file first", path);
    }
    *ret_fd = fd;
    return 0;
}

int rfi_subset_read_file(const char *path, uint64_t samples, bool sequence, uint32_t **ret, uint64_t *ret_n,
                         struct rfi_error *err)
{
    struct list l = {.path = path, .samples = samples, .line = 1, .ascending = true};
    int fd = -1;
    if (samples > (uint64_t)UINT32_MAX + 1)
        return rfi_fail(err, EINVAL,
                        "--subset %s: %" PRIu64 " samples, but the table of a list holds indices up to 4294967295. Use "
                        "--subset A:B, which needs no table",
                        path, samples);
    int rc = open_file(path, &fd, err);
    if (rc < 0)
        return rc;
    rc = read_all(&l, fd, err);
    close(fd);
    if (rc == 0 && !sequence)
        rc = sort(&l, err);
    if (rc < 0) {
        free(l.items);
        return rc;
    }
    *ret = l.items;
    *ret_n = l.n;
    return 0;
}
