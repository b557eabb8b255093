/* The attacher's side: nothing in the header is believed before it was compared with the mapping. */
#include "segment/segment.h"

#include "base/bytes.h"
#include "segment/names.h"
#include "segment/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096 };

static int damaged(const char *name, const char *what, struct rfi_error *err)
{
    return rfi_fail(err, EPROTO, "the segment '%s' is damaged: %s. Stop its server and remove it with `ringfeed gc`",
                    name, what);
}

static int check_regions(struct rfi_segment *s, struct rfi_error *err)
{
    uint64_t end = RFI_HEADER_BYTES;
    for (uint32_t i = 0; i < s->n_regions; i++) {
        const struct rfi_region_shared *r = &s->regions[i];
        uint64_t bytes, limit;
        if (r->id != i || r->offset % PAGE || r->offset < end || rfi_mul_over(r->element_bytes, r->count, &bytes) ||
            bytes != r->bytes || rfi_add_over(r->offset, r->bytes, &limit) || limit > s->control_bytes)
            return damaged(s->name, "a region lies outside the object", err);
        end = limit;
    }
    return 0;
}

static int check_header(struct rfi_segment *s, uint64_t signature, struct rfi_error *err)
{
    const struct rfi_segment_header *h = (const struct rfi_segment_header *)s->control;
    if (atomic_load_explicit(&h->birth, memory_order_acquire) != RFI_BIRTH_MAGIC)
        return rfi_fail(err, EPROTO, "/dev/shm/ringfeed.%s is not a ringfeed segment. Choose another name", s->name);
    if (atomic_load_explicit(&h->ready, memory_order_acquire) != RFI_READY_MAGIC)
        return rfi_fail(err, EAGAIN, "the run '%s' is not ready yet. Try again", s->name);
    if (h->layout_version != RFI_LAYOUT_VERSION || h->layout_signature != signature)
        return rfi_fail(
            err, EPROTO,
            "the run '%s' was started by another version of ringfeed (layout %u, here %d). Use the same version "
            "on both sides",
            s->name, h->layout_version, RFI_LAYOUT_VERSION);
    s->n_regions = h->n_regions;
    s->data_bytes = h->data_bytes;
    s->owner_pid = h->owner_pid;
    memcpy(s->nonce, h->nonce, sizeof s->nonce);
    memcpy(s->regions, h->regions, sizeof s->regions);
    if (s->n_regions > RFI_MAX_REGIONS || h->control_bytes != s->control_bytes)
        return damaged(s->name, "its size is not the one in its header", err);
    return check_regions(s, err);
}

static int open_object(const char *object, int flags, const char *name, int *ret, uint64_t *ret_bytes,
                       struct rfi_error *err)
{
    struct stat st;
    int fd = rfi_object_open(object, flags);
    if (fd == -ENOENT)
        return rfi_fail(err, ENOENT,
                        "no run named '%s' on this machine. See `ringfeed ls`, or start it with `ringfeed serve`",
                        name);
    if (fd == -EPROTO)
        return rfi_fail(err, EPROTO, "/dev/shm%s is not a shared-memory object. Choose another name", object);
    if (fd < 0)
        return rfi_fail(err, -fd, "cannot open /dev/shm%s: %s. The run belongs to another user?", object,
                        strerror(-fd));
    if (fstat(fd, &st) < 0 || st.st_size < 0) {
        int why = errno;
        close(fd);
        return rfi_fail(err, why, "cannot look at /dev/shm%s: %s", object, strerror(why));
    }
    *ret = fd;
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

static int attach_data(struct rfi_segment *s, const char *object, struct rfi_error *err)
{
    uint64_t bytes;
    int rc = open_object(object, O_RDONLY, s->name, &s->data_fd, &bytes, err);
    if (rc < 0)
        return rc;
    if (bytes != s->data_bytes || bytes < RFI_HEADER_BYTES)
        return damaged(s->name, "its payload object has another size", err);
    s->data = rfi_pages_map(s->data_fd, bytes, PROT_READ);
    if (!s->data)
        return rfi_fail(err, errno, "cannot map %" PRIu64 " bytes of /dev/shm%s: %s", bytes, object, strerror(errno));
    const struct rfi_data_header *d = (const struct rfi_data_header *)s->data;
    if (atomic_load_explicit(&d->magic, memory_order_acquire) != RFI_DATA_MAGIC ||
        memcmp(d->nonce, s->nonce, sizeof s->nonce) != 0)
        return damaged(s->name, "its payload object belongs to another run", err);
    return 0;
}

int rfi_segment_attach(const char *name, uint64_t signature, bool map_data, struct rfi_segment *ret,
                       struct rfi_error *err)
{
    char control[RFI_OBJECT_NAME], data[RFI_OBJECT_NAME];
    struct rfi_segment s = {.lock_fd = -1, .control_fd = -1, .data_fd = -1};
    int rc = rfi_name_check(name, err);
    if (rc < 0)
        return rc;
    snprintf(s.name, sizeof s.name, "%s", name);
    rfi_object_names(name, control, data);
    /* Writable descriptor when we may: the trainer's own page is mapped through it later. */
    rc = open_object(control, O_RDWR, name, &s.control_fd, &s.control_bytes, err);
    if (rc == -EACCES)
        rc = open_object(control, O_RDONLY, name, &s.control_fd, &s.control_bytes, err);
    if (rc < 0)
        return rc;
    if (s.control_bytes < RFI_HEADER_BYTES) {
        rfi_segment_detach(&s);
        return rfi_fail(err, EAGAIN, "the run '%s' is not ready yet. Try again", name);
    }
    s.control = mmap(NULL, s.control_bytes, PROT_READ, MAP_SHARED, s.control_fd, 0);
    if (s.control == MAP_FAILED) {
        s.control = NULL;
        rc = rfi_fail(err, errno, "cannot map %" PRIu64 " bytes of /dev/shm%s: %s", s.control_bytes, control,
                      strerror(errno));
    } else {
        rc = check_header(&s, signature, err);
    }
    if (rc == 0 && map_data)
        rc = attach_data(&s, data, err);
    /* The owner died, and between our two looks somebody took the name over: the payload is the next run's. */
    if (rc == -EPROTO && !rfi_same_object(control, s.control_fd))
        rc = rfi_fail(err, EAGAIN, "the run '%s' is just being replaced by another. Try again", name);
    if (rc < 0) {
        rfi_segment_detach(&s);
        return rc;
    }
    *ret = s;
    return 0;
}

void *rfi_segment_map_rw(const struct rfi_segment *s, uint64_t offset, uint64_t bytes, struct rfi_error *err)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->control_fd, (off_t)offset);
    if (p != MAP_FAILED)
        return p;
    rfi_fail(err, errno, "cannot map a page of the run '%s' writable: %s. The run belongs to another user?", s->name,
             strerror(errno));
    return NULL;
}

void rfi_segment_detach(struct rfi_segment *s)
{
    if (s->control)
        munmap(s->control, s->control_bytes);
    if (s->data)
        munmap(s->data, s->data_bytes);
    int *fds[] = {&s->control_fd, &s->data_fd, &s->lock_fd};
    for (int i = 0; i < 3; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    s->control = s->data = NULL;
}
