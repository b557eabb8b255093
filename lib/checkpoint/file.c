/* Checkpoint files: atomic, durable, the last two kept. */
#include "checkpoint/state.h"

#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* The new file under its temporary name, on the disk. */
static int write_new(const char *path, const char *text, size_t bytes, char *tmp, size_t room)
{
    if (snprintf(tmp, room, "%s.XXXXXX", path) >= (int)room)
        return -ENAMETOOLONG;
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = write_all(fd, text, bytes);
    mode_t mask = umask(0);
    umask(mask);
    if (rc == 0 && fchmod(fd, 0666 & ~mask) < 0)
        rc = -errno;
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc < 0)
        unlink(tmp);
    return rc;
}

/* Between the two renames only the one before is there: a reader looks for both. */
static int replace(const char *tmp, const char *path, const char *prev)
{
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
    char tmp[PATH_MAX], prev[PATH_MAX];
    struct stat st;
    size_t bytes;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return rfi_fail(err, EINVAL, "%s: no regular file. Name a file for the checkpoint", path);
    char *text = rfi_state_text(s, &bytes);
    if (!text)
        return rfi_fail(err, ENOMEM, "%s: no memory for a checkpoint", path);
    int rc = write_new(path, text, bytes, tmp, sizeof tmp);
    free(text);
    if (rc == 0) {
        if (snprintf(prev, sizeof prev, "%s.prev", path) >= (int)sizeof prev)
            rc = -ENAMETOOLONG;
        else
            rc = replace(tmp, path, prev);
        if (rc < 0)
            unlink(tmp);
    }
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
