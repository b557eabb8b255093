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

/* One name for the temporary file, so that deaths leave at most one of it, and a lock, so that nobody writes into
 * another's. The lock goes with the file when it gets its proper name: whoever waited for that looks again. */
static int open_locked(const char *tmp)
{
    struct stat mine, named;
    for (int tries = 0; tries < 100; tries++) {
        int fd = open(tmp, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0)
            return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            close(fd);
            return -EBUSY;
        }
        if (fstat(fd, &mine) == 0 && stat(tmp, &named) == 0 && mine.st_ino == named.st_ino)
            return fd;
        close(fd);
    }
    return -EBUSY;
}

/* The new file under its temporary name, on the disk; *ret_fd keeps its lock. */
static int write_new(const char *path, const char *text, size_t bytes, char *tmp, size_t room, int *ret_fd)
{
    int fd = snprintf(tmp, room, "%s.new", path) < (int)room ? open_locked(tmp) : -ENAMETOOLONG;
    if (fd < 0)
        return fd;
    int rc = ftruncate(fd, 0) < 0 ? -errno : write_all(fd, text, bytes);
    if (rc < 0) {
        unlink(tmp);
        close(fd);
    }
    *ret_fd = fd;
    return rc;
}

/* FILE becomes FILE.prev, and the new one FILE. */
static int rotate(const char *tmp, const char *path, const char *prev)
{
    if (rename(path, prev) < 0 && errno != ENOENT)
        return -errno;
    RFI_FAIL_POINT("checkpoint-rename");
    return rename(tmp, path) < 0 ? -errno : 0;
}

int rfi_state_write(const struct rfi_state *s, const char *path, struct rfi_error *err)
{
    char tmp[PATH_MAX], prev[PATH_MAX];
    struct stat st;
    size_t bytes;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return rfi_fail(err, EINVAL, "%s: no regular file. Name a file for the checkpoint", path);
    char *text = rfi_state_text(s, &bytes);
    if (!text)
        return rfi_fail(err, ENOMEM, "%s: no memory for a checkpoint", path);
    int fd, rc = write_new(path, text, bytes, tmp, sizeof tmp, &fd);
    free(text);
    if (rc == 0) {
        RFI_FAIL_POINT("checkpoint-write");
        /* Between the two renames only the one before is there: a reader looks for both. */
        if (snprintf(prev, sizeof prev, "%s.prev", path) >= (int)sizeof prev)
            rc = -ENAMETOOLONG;
        else
            rc = rotate(tmp, path, prev);
        if (rc < 0)
            unlink(tmp);
        close(fd);
    }
    if (rc == 0)
        rc = sync_folder_of(path);
    if (rc < 0)
        return rfi_fail(err, -rc, "%s: cannot write the checkpoint: %s. Free some space or choose another place", path,
                        rc == -EBUSY ? "somebody else is writing it" : strerror(-rc));
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
