/* Writing an index: a temporary file in the same folder, fsync, rename, fsync of the folder, so that a
 * reader sees the old index or the whole new one. */
#include "base/bytes.h"
#include "dataset/handle.h"
#include "dataset/index_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = RFI_IMAGE_HEADER_BYTES + sizeof(struct rfi_image_root), MAX_UPS = 3 };

/* Path from `from` to `to`, both real and absolute; "" when more than MAX_UPS steps up are needed:
 * such a pair is not one thing that moves together. */
static void relative_path(const char *from, const char *to, char ret[4096])
{
    size_t same = 0, i = 0;
    int ups = 0;
    for (;; i++) {
        bool end_a = !from[i] || from[i] == '/', end_b = !to[i] || to[i] == '/';
        if (end_a && end_b)
            same = i;
        if (from[i] != to[i] || !from[i])
            break;
    }
    const char *rest = to + same + (to[same] == '/'), *up = from + same + (from[same] == '/');
    for (const char *p = up; *p; p = strchrnul(p, '/'), p += *p == '/')
        ups++;
    ret[0] = 0;
    if (ups > MAX_UPS || strlen(rest) + 3 * MAX_UPS + 2 > 4096)
        return;
    strcpy(ret, ups || *rest ? "" : ".");
    for (int k = 0; k < ups; k++)
        strcat(ret, k + 1 < ups || *rest ? "../" : "..");
    strcat(ret, rest);
}

static int write_all(int fd, const void *data, size_t bytes)
{
    const char *p = data;
    while (bytes) {
        ssize_t n = write(fd, p, rfi_min(bytes, 1u << 30));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Header and root as they belong into a file in `folder`. */
static void make_head(const struct rfi_dataset *d, const char *folder, unsigned char head[HEAD_BYTES])
{
    struct rfi_image_header h = d->h;
    struct rfi_image_root *r = (struct rfi_image_root *)(void *)(head + RFI_IMAGE_HEADER_BYTES);
    memset(head, 0, HEAD_BYTES);
    snprintf(r->absolute, sizeof r->absolute, "%s", d->root->absolute);
    relative_path(folder, r->absolute, r->relative);
    h.sections[RFI_SEC_ROOT].hash = rfi_image_hash(r, sizeof *r);
    h.hash = rfi_image_header_hash(&h);
    memcpy(head, &h, sizeof h);
}

static int fill(const struct rfi_dataset *d, int fd, const char *folder)
{
    unsigned char *head = malloc(HEAD_BYTES);
    if (!head)
        return -ENOMEM;
    make_head(d, folder, head);
    int rc = write_all(fd, head, HEAD_BYTES);
    free(head);
    if (rc == 0)
        rc = write_all(fd, d->image + HEAD_BYTES, (size_t)d->h.image_bytes - HEAD_BYTES);
    mode_t mask = umask(0);
    umask(mask);
    if (rc == 0 && (fchmod(fd, 0666 & ~mask) < 0 || fsync(fd) < 0))
        rc = -errno;
    return rc;
}

static int sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    /* some file systems cannot sync a folder and say EINVAL: nothing more can be done there */
    int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
    close(fd);
    return rc;
}

static int write_into(const struct rfi_dataset *d, const char *folder, const char *base, struct rfi_error *err)
{
    char tmp[PATH_MAX + 32], final[PATH_MAX + NAME_MAX];
    snprintf(tmp, sizeof tmp, "%s/.rfi-XXXXXX", folder);
    snprintf(final, sizeof final, "%s/%s", folder, base);
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return rfi_fail(err, errno, "%s: cannot create a file there: %s. Choose another place for the index", folder,
                        strerror(errno));
    int rc = fill(d, fd, folder);
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(tmp, final) < 0)
        rc = -errno;
    if (rc < 0)
        unlink(tmp);
    else
        rc = sync_folder(folder);
    if (rc < 0)
        return rfi_fail(err, -rc,
                        "%s: cannot write the index (%llu bytes): %s. Free some space or choose another place", final,
                        (unsigned long long)d->h.image_bytes, strerror(-rc));
    return 0;
}

int rfi_dataset_write(const struct rfi_dataset *d, const char *path, struct rfi_error *err)
{
    char folder[PATH_MAX];
    struct stat st;
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (d->bytes < d->h.image_bytes)
        return rfi_fail(err, EINVAL, "%s: the table in a segment has no keys and cannot be saved. Index the dataset",
                        path);
    if (!*base || strlen(base) > NAME_MAX || (stat(path, &st) == 0 && !S_ISREG(st.st_mode)))
        return rfi_fail(err, EINVAL, "%s: not the name of a regular file. Name the index, like data.rfi", path);
    if (stat(path, &st) == 0 && st.st_size > 0 && !rfi_is_index_file(path))
        return rfi_fail(err, EEXIST,
                        "%s: exists and is no index: it may be data. Choose another name, or remove it first", path);
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!dir)
        return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", path);
    int rc = 0;
    if (!realpath(dir, folder))
        rc =
            rfi_fail(err, errno, "%s: cannot write the index there: %s. Create the folder first", dir, strerror(errno));
    free(dir);
    return rc < 0 ? rc : write_into(d, folder, base, err);
}
