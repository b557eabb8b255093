/* Opening an index: mapped privately, checked, and re-rooted when the dataset moved together with
 * its index. Only the header and root pages are ever written (copy on write, never to the file). */
#include "dataset/index_file.h"

#include "base/bytes.h"
#include "dataset/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = RFI_IMAGE_HEADER_BYTES + sizeof(struct rfi_image_root) };

bool rfi_is_index_file(const char *path)
{
    char magic[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t n = pread(fd, magic, sizeof magic, 0);
    close(fd);
    return n == (ssize_t)sizeof magic && !memcmp(magic, RFI_IMAGE_MAGIC, sizeof magic);
}

static int map_file(const char *path, void **ret, size_t *ret_bytes, struct rfi_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return rfi_fail(err, errno, "%s: cannot open the index: %s. Check the path", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < HEAD_BYTES) {
        close(fd);
        return rfi_fail(err, EBADMSG, "%s: the index is truncated (%lld bytes are less than a header). Make it again",
                        path, (long long)st.st_size);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int saved = errno;
    close(fd);
    if (p == MAP_FAILED)
        return rfi_fail(err, saved, "%s: cannot map the index: %s. Free some address space", path, strerror(saved));
    *ret = p;
    *ret_bytes = (size_t)st.st_size;
    return 0;
}

/* One fault for all pages of the core instead of one each; older kernels fault them in one by one. */
static void populate(void *image, size_t bytes)
{
    struct rfi_image_header h;
    memcpy(&h, image, sizeof h);
#ifdef MADV_POPULATE_READ
    size_t core = (size_t)rfi_min(h.core_bytes, bytes);
    (void)madvise(image, core, MADV_POPULATE_READ);
#endif
}

/* The folder of `path`, real and absolute. */
static bool folder_of(const char *path, char ret[PATH_MAX])
{
    char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
    const char *dir = !slash ? "." : slash == copy ? "/" : copy;
    if (slash && slash != copy)
        *slash = 0;
    bool ok = copy && realpath(dir, ret);
    free(copy);
    return ok;
}

static bool file_below(const char *root, const char *name)
{
    struct stat st;
    char path[2 * PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", root, name);
    return n > 0 && (size_t)n < sizeof path && stat(path, &st) == 0;
}

/* The dataset is looked for beside the index first (they may have moved together), then where it was
 * when the index was made. Sizes and times are compared afterwards, wherever it was found. */
static bool moved_root(const struct rfi_dataset *d, const char *path, char ret[PATH_MAX])
{
    char folder[PATH_MAX], joined[2 * PATH_MAX];
    const char *rel = d->root->relative;
    if (!rel[0] || !folder_of(path, folder))
        return false;
    int n = snprintf(joined, sizeof joined, "%s/%s", folder, rel);
    return n > 0 && (size_t)n < sizeof joined && realpath(joined, ret) && strcmp(ret, d->root->absolute) != 0 &&
           d->h.n_files && file_below(ret, rfi_dataset_file_name(d, 0));
}

static int reroot(struct rfi_dataset *d, const char *root, const char *path, struct rfi_error *err)
{
    struct rfi_image_root *r = (struct rfi_image_root *)(uintptr_t)d->root;
    if (mprotect((void *)(uintptr_t)d->image, HEAD_BYTES, PROT_READ | PROT_WRITE) < 0)
        return rfi_fail(err, errno, "%s: cannot make the index's first pages private: %s. Free some memory", path,
                        strerror(errno));
    memset(r->absolute, 0, sizeof r->absolute);
    memcpy(r->absolute, root, strlen(root));
    d->h.sections[RFI_SEC_ROOT].hash = rfi_image_hash(r, sizeof *r);
    d->h.hash = rfi_image_header_hash(&d->h);
    memcpy((void *)(uintptr_t)d->image, &d->h, sizeof d->h);
    return 0;
}

int rfi_index_open(const char *path, struct rfi_dataset **ret, struct rfi_error *err)
{
    void *image = NULL;
    size_t bytes = 0;
    char root[PATH_MAX];
    struct rfi_dataset *d;
    int rc = map_file(path, &image, &bytes, err);
    if (rc < 0)
        return rc;
    populate(image, bytes);
    rc = rfi_dataset_adopt(image, bytes, RFI_OWNED, true, path, &d, err);
    if (rc < 0) {
        munmap(image, bytes);
        return rc;
    }
    if (d->bytes != d->h.image_bytes)
        rc = rfi_fail(err, EBADMSG, "%s: %zu bytes long, the index says %llu: truncated or appended to. Make it again",
                      path, bytes, (unsigned long long)d->h.image_bytes);
    if (rc == 0 && moved_root(d, path, root))
        rc = reroot(d, root, path, err);
    if (rc == 0)
        rc = rfi_dataset_check_files(d, err);
    if (rc < 0) {
        rfi_dataset_close(d);
        return rc;
    }
    *ret = d;
    return 0;
}

static int check_file(const struct rfi_dataset *d, int root, uint32_t f, struct rfi_error *err)
{
    struct stat st;
    const char *dir = d->root->absolute, *name = rfi_dataset_file_name(d, f);
    uint64_t bytes = d->files[f].bytes;
    if (fstatat(root, name, &st, 0) < 0)
        return rfi_fail(err, errno,
                        "%s/%s: indexed, but it cannot be found now: %s. Put it back, or make the index again", dir,
                        name, strerror(errno));
    if ((uint64_t)st.st_size != bytes)
        return rfi_fail(err, ESTALE, "%s/%s: it has %llu bytes, %llu when it was indexed. Make the index again", dir,
                        name, (unsigned long long)st.st_size, (unsigned long long)bytes);
    if (st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec != d->mtimes[f])
        return rfi_fail(err, ESTALE, "%s/%s: modified after it was indexed. Make the index again", dir, name);
    return 0;
}

int rfi_dataset_check_files(struct rfi_dataset *d, struct rfi_error *err)
{
    if (!d->h.n_files)
        return 0;
    int rc = 0, root = open(d->root->absolute, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return rfi_fail(err, errno,
                        "%s: the indexed dataset's folder cannot be opened: %s. Put it back, or make the index again",
                        d->root->absolute, strerror(errno));
    for (uint32_t f = 0; f < d->h.n_files && rc == 0; f++)
        rc = check_file(d, root, f, err);
    close(root);
    return rc;
}
