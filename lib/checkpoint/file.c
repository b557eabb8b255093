/* Checkpoint files: atomic, durable, the last two kept. */
#include "checkpoint/state.h"

#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES = 256 << 20 };

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        p += put;
        n -= (size_t)put;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int sync_folder_of(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else
        snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0; /* EINVAL: a file system that cannot sync folders */
    close(fd);
    return rc;
}

/* FILE.new, emptied and locked until it is closed. What a killed process left there is used again, so that kills leave
 * one file at most; while another process or thread is writing there, a name of our own. */
static int open_new(const char *path, char *tmp, size_t room)
{
    static _Atomic uint32_t number;
    struct stat named, opened;
    if (snprintf(tmp, room, "%s.new", path) >= (int)room)
        return -ENAMETOOLONG;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && stat(tmp, &named) == 0 && fstat(fd, &opened) == 0 &&
        named.st_ino == opened.st_ino && named.st_dev == opened.st_dev && S_ISREG(opened.st_mode) &&
        ftruncate(fd, 0) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    uint32_t k = atomic_fetch_add_explicit(&number, 1, memory_order_relaxed);
    if (snprintf(tmp, room, "%s.new-%d-%u", path, (int)getpid(), k) >= (int)room)
        return -ENAMETOOLONG;
    unlink(tmp); /* of a killed process with our number */
    fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd < 0 ? -errno : fd;
}

/* FILE becomes FILE.prev and the new file FILE. Between the two renames only the one before is there: a reader looks
 * for both. */
static int put_in_place(const char *path, const char *tmp)
{
    char prev[PATH_MAX];
    if (snprintf(prev, sizeof prev, "%s.prev", path) >= (int)sizeof prev)
        return -ENAMETOOLONG;
    RFI_FAIL_POINT("checkpoint-temp");
    if (rename(path, prev) < 0 && errno != ENOENT)
        return -errno;
    RFI_FAIL_POINT("checkpoint-prev");
    if (rename(tmp, path) < 0)
        return -errno;
    RFI_FAIL_POINT("checkpoint-new");
    return 0;
}

int rfi_state_write(const struct rfi_state *s, const char *path, struct rfi_error *err)
{
    char tmp[PATH_MAX];
    struct stat st;
    size_t bytes;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return rfi_fail(err, EINVAL, "%s: no regular file. Name a file for the checkpoint", path);
    char *text = rfi_state_text(s, &bytes);
    if (!text)
        return rfi_fail(err, ENOMEM, "%s: no memory for a checkpoint", path);
    int fd = open_new(path, tmp, sizeof tmp), rc = fd;
    if (fd >= 0) {
        rc = write_all(fd, text, bytes);
        if (rc == 0)
            rc = put_in_place(path, tmp);
        if (rc < 0)
            unlink(tmp);
        if (close(fd) < 0 && rc == 0) /* the lock goes with it: only now may the next one look at FILE.new */
            rc = -errno;
    }
    free(text);
    if (rc == 0)
        rc = sync_folder_of(path);
    if (rc < 0)
        return rfi_fail(err, -rc, "%s: cannot write the checkpoint: %s. Free some space or choose another place", path,
                        strerror(-rc));
    return 0;
}

int rfi_state_read(const char *path, struct rfi_state *ret, struct rfi_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > MOST_BYTES) {
        int code = fd < 0 ? errno : EINVAL;
        if (fd >= 0)
            close(fd);
        return rfi_fail(err, code, "%s: cannot read the checkpoint: %s", path,
                        code == EINVAL ? "no regular file of a sane size" : strerror(code));
    }
    char *text = malloc((size_t)st.st_size + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (text && n < (size_t)st.st_size && got > 0) {
        got = read(fd, text + n, (size_t)st.st_size - n);
        n += got > 0 ? (size_t)got : 0;
    }
    int code = !text ? ENOMEM : got < 0 ? errno : 0;
    close(fd);
    int rc = code ? rfi_fail(err, code, "%s: cannot read the checkpoint: %s", path, strerror(code))
                  : rfi_state_parse(text, n, path, ret, err);
    free(text);
    return rc;
}

int rfi_state_read_either(const char *path, struct rfi_state *ret, struct rfi_error *note, struct rfi_error *err)
{
    char prev[PATH_MAX];
    struct rfi_error second = {0};
    *note = (struct rfi_error){0};
    int rc = rfi_state_read(path, ret, err);
    if (rc == 0)
        return 0;
    if (snprintf(prev, sizeof prev, "%s.prev", path) >= (int)sizeof prev)
        return rc;
    int rc2 = rfi_state_read(prev, ret, &second);
    if (rc2 == 0) {
        if (rc != -ENOENT)
            *note = *err;
        return 0;
    }
    if (rc == -ENOENT && rc2 != -ENOENT) {
        *err = second;
        return rc2;
    }
    return rc;
}
