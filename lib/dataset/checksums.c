/* A dataset's image once more, with a CRC32C of every sample. The samples are read in index order through a
 * window of the file, so that small neighbours share a read. */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "dataset/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WINDOW_BYTES = 4 << 20, PROGRESS_SAMPLES = 4096 };

struct window {
    int fd; /* of `file`, or -1 */
    uint32_t file;
    uint64_t from, bytes; /* what `data` holds */
    unsigned char *data; /* [WINDOW_BYTES] */
};

static int open_window(const struct rfi_dataset *d, struct window *w, uint32_t file, struct rfi_error *err)
{
    char path[PATH_MAX];
    if (w->fd >= 0 && w->file == file)
        return 0;
    if (w->fd >= 0)
        close(w->fd);
    w->file = file;
    w->bytes = 0;
    w->fd = -1;
    if (rfi_dataset_path(d, file, path, sizeof path) < 0)
        return rfi_fail(err, ENAMETOOLONG, "checksums: the path of file %u is too long. Move the dataset", file);
    w->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (w->fd < 0)
        return rfi_fail(err, errno, "%s: cannot be opened: %s. Put it back or check its permissions", path,
                        strerror(errno));
    return 0;
}

static int read_failed(const struct rfi_dataset *d, const struct window *w, uint64_t offset, int error,
                       struct rfi_error *err)
{
    char path[PATH_MAX] = "?";
    rfi_dataset_path(d, w->file, path, sizeof path);
    if (!error)
        return rfi_fail(err, ESTALE, "%s: ends before offset %llu. Index the dataset again", path,
                        (unsigned long long)offset);
    return rfi_fail(err, error, "%s: cannot be read at offset %llu: %s. Check the disk", path,
                    (unsigned long long)offset, strerror(error));
}

/* Fills the window from `offset` on, with `need` bytes at least. */
static int fill(const struct rfi_dataset *d, struct window *w, uint64_t offset, uint64_t need, struct rfi_error *err)
{
    w->from = offset;
    w->bytes = 0;
    while (w->bytes < need) {
        ssize_t n = pread(w->fd, w->data + w->bytes, WINDOW_BYTES - w->bytes, (off_t)(offset + w->bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return read_failed(d, w, offset + w->bytes, n ? errno : 0, err);
        w->bytes += (uint64_t)n;
    }
    return 0;
}

static int checksum(const struct rfi_dataset *d, struct window *w, uint64_t i, uint32_t *ret, struct rfi_error *err)
{
    struct rfi_extent e;
    *ret = 0;
    if (rfi_dataset_extent(d, i, &e) < 0)
        return rfi_fail(err, EBADMSG, "sample %llu: its entry in the table is damaged. Index the dataset again",
                        (unsigned long long)i);
    int rc = e.bytes ? open_window(d, w, e.file, err) : 0;
    for (uint64_t at = e.offset, left = e.bytes; left && rc == 0;) {
        uint64_t take = rfi_min(left, WINDOW_BYTES);
        if (at < w->from || at - w->from > w->bytes || w->bytes - (at - w->from) < take)
            rc = fill(d, w, at, take, err);
        if (rc == 0)
            *ret = rfi_crc32c(*ret, w->data + (at - w->from), take);
        at += take;
        left -= take;
    }
    return rc;
}

/* Where everything lies in the new image: behind the checksums all moves back. */
static int place(const struct rfi_image_header *from, struct rfi_image_header *to)
{
    struct rfi_image_section *sums = &to->sections[RFI_SEC_CHECKSUMS];
    uint64_t had = rfi_align_up(from->sections[RFI_SEC_CHECKSUMS].bytes, RFI_IMAGE_ALIGN), want;
    *to = *from;
    to->flags |= RFI_IMAGE_CHECKSUMS;
    if (!rfi_image_section_bytes(to, RFI_SEC_CHECKSUMS, &sums->bytes))
        return -EOVERFLOW;
    want = rfi_align_up(sums->bytes, RFI_IMAGE_ALIGN);
    to->core_bytes += want - had;
    to->image_bytes += want - had;
    for (int s = RFI_SEC_CORE_END; s < RFI_N_SECTIONS; s++)
        to->sections[s].offset += want - had;
    return to->image_bytes > SIZE_MAX / 2 ? -EOVERFLOW : 0;
}

static void copy_sections(const struct rfi_dataset *d, const struct rfi_image_header *h, unsigned char *image)
{
    for (int s = 0; s < RFI_N_SECTIONS; s++)
        if (s != RFI_SEC_CHECKSUMS && h->sections[s].bytes)
            memcpy(image + h->sections[s].offset, d->image + d->h.sections[s].offset, h->sections[s].bytes);
}

static int fill_checksums(const struct rfi_dataset *d, uint32_t *sums,
                          int (*progress)(void *ctx, uint64_t done, uint64_t samples), void *ctx, struct rfi_error *err)
{
    struct window w = {.fd = -1, .data = malloc(WINDOW_BYTES)};
    int rc = w.data ? 0 : rfi_fail(err, ENOMEM, "checksums: out of memory. Free some");
    for (uint64_t i = 0; i < d->h.samples && rc == 0; i++) {
        rc = checksum(d, &w, i, &sums[i], err);
        if (rc == 0 && progress && i % PROGRESS_SAMPLES == 0 && progress(ctx, i, d->h.samples))
            rc = rfi_fail(err, ECANCELED, "checksums: cancelled");
    }
    if (w.fd >= 0)
        close(w.fd);
    free(w.data);
    return rc;
}

static int seal(struct rfi_image_header *h, unsigned char *image, size_t bytes, const struct rfi_dataset *d,
                struct rfi_dataset **ret, struct rfi_error *err)
{
    struct rfi_image_section *sums = &h->sections[RFI_SEC_CHECKSUMS];
    sums->hash = rfi_image_hash(image + sums->offset, sums->bytes);
    h->hash = rfi_image_header_hash(h);
    memcpy(image, h, sizeof *h);
    return rfi_dataset_adopt(image, bytes, RFI_OWNED, false, d->root->absolute, ret, err);
}

int rfi_dataset_with_checksums(const struct rfi_dataset *d, int (*progress)(void *ctx, uint64_t done, uint64_t samples),
                               void *ctx, struct rfi_dataset **ret, struct rfi_error *err)
{
    struct rfi_image_header h;
    if (!rfi_crc32c_available())
        return rfi_fail(err, ENOTSUP, "checksums: this ringfeed was built without CRC32C. Build it with ISA-L");
    if (d->bytes < d->h.image_bytes)
        return rfi_fail(err, EINVAL, "checksums: the table in a segment has no keys. Open the dataset itself");
    if (place(&d->h, &h) < 0)
        return rfi_fail(err, EOVERFLOW, "checksums: too many samples for this machine's address space");
    size_t bytes = (size_t)h.image_bytes;
    unsigned char *image =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (image == MAP_FAILED)
        return rfi_fail(err, ENOMEM, "checksums: no memory for %zu bytes. Free some", bytes);
    copy_sections(d, &h, image);
    int rc = fill_checksums(d, (uint32_t *)(void *)(image + h.sections[RFI_SEC_CHECKSUMS].offset), progress, ctx, err);
    if (rc == 0)
        rc = seal(&h, image, bytes, d, ret, err);
    if (rc < 0)
        munmap(image, bytes);
    return rc;
}
