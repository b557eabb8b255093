/* Birth and end of a run's objects, on the owner's side. */
#include "segment/segment.h"

#include "base/bytes.h"
#include "segment/names.h"
#include "segment/pages.h"
#include "segment/room.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

int rfi_segment_layout(const struct rfi_region_request *requests, uint32_t n, struct rfi_region_shared *regions,
                       uint64_t *ret_bytes, struct rfi_error *err)
{
    uint64_t at = RFI_HEADER_BYTES;
    for (uint32_t i = 0; i < n; i++) {
        struct rfi_region_shared *r = &regions[i];
        *r = (struct rfi_region_shared){
            .id = i, .element_bytes = requests[i].element_bytes, .count = requests[i].count, .offset = at};
        if (rfi_mul_over(r->element_bytes, r->count, &r->bytes) || r->bytes > UINT64_MAX / 4 ||
            rfi_add_over(at, rfi_align_up(r->bytes, PAGE), &at) || at > UINT64_MAX / 4)
            return rfi_fail(err, EOVERFLOW,
                            "the segment would be larger than any memory. Lower --batch, --prefetch or "
                            "--ranks");
    }
    *ret_bytes = at;
    return 0;
}

/* A serve of this name that was killed between making the object and its first word leaves an empty one.
 * Only the name that we were told to take is looked at so: gc never removes an empty object. */
static bool remove_empty(const char *object)
{
    struct stat st;
    int fd = rfi_object_open(object, O_RDWR);
    if (fd < 0)
        return false;
    bool empty = rfi_owner_lock(fd) && rfi_same_object(object, fd) && fstat(fd, &st) == 0 && st.st_size == 0;
    if (empty)
        shm_unlink(object);
    close(fd);
    return empty;
}

/* Opens the name exclusively, taking it over from a dead owner. Leaves the locked descriptor in *ret_lock. */
static int take_name(const char *name, const char *object, int *ret_fd, int *ret_lock, struct rfi_error *err)
{
    for (int tries = 0; tries < 16; tries++) {
        int fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST) {
            int rc = rfi_segment_reclaim(name, err);
            if (rc == -EBUSY)
                return rfi_fail(err, EEXIST,
                                "the name '%s' is taken: its owner lives (see `ringfeed ls`). Choose another "
                                "name or stop that run",
                                name);
            if (rc < 0 && rc != -ENOENT && !(rc == -EPROTO && remove_empty(object)))
                return rc;
            continue;
        }
        if (fd < 0)
            return rfi_fail(err, errno, "cannot create /dev/shm%s: %s. Check that /dev/shm is a writable tmpfs", object,
                            strerror(errno));
        (void)!fchmod(fd, 0600); /* whatever the umask */
        /* Recognisable as ours before anyone can ask whose it is; by write: a full tmpfs is an error. */
        uint64_t birth = RFI_BIRTH_MAGIC;
        if (pwrite(fd, &birth, sizeof birth, 0) != sizeof birth) {
            shm_unlink(object);
            close(fd);
            return rfi_fail(err, ENOSPC,
                            "no room in /dev/shm for the first page of '%s'. Enlarge it or remove dead runs "
                            "with `ringfeed gc`",
                            name);
        }
        int lock = rfi_object_open(object, O_RDWR);
        /* Between creation and lock another reclaimer may have taken it for dead: then start over. */
        if (lock >= 0 && rfi_owner_lock(lock) && rfi_same_object(object, lock) && rfi_same_object(object, fd)) {
            *ret_fd = fd;
            *ret_lock = lock;
            return 0;
        }
        close(fd);
        if (lock >= 0)
            close(lock);
    }
    return rfi_fail(err, EAGAIN, "the name '%s' is being fought over by other processes. Try again", name);
}

static int populate(int fd, unsigned char *p, uint64_t from, uint64_t bytes, uint64_t total, struct rfi_error *err)
{
    if (rfi_pages_populate(fd, p, from, bytes) < 0)
        return rfi_fail(err, ENOSPC,
                        "no room in /dev/shm: %" PRIu64 " bytes are needed and ran out while being allocated (%s). "
                        "Enlarge it (mount -o remount,size=…) or lower --prefetch, --ring-bytes or --batch",
                        total, strerror(errno));
    return 0;
}

static int populate_data(struct rfi_segment *s, const struct rfi_pieces *p, uint64_t total, struct rfi_error *err)
{
    uint64_t whole = p->bytes == p->stride ? p->first + p->n * p->stride : p->first;
    int rc = populate(s->data_fd, s->data, 0, whole, total, err);
    for (uint32_t i = 0; rc == 0 && p->bytes != p->stride && i < p->n; i++)
        rc = populate(s->data_fd, s->data, p->first + i * p->stride, p->bytes, total, err);
    return rc;
}

static int make_data(struct rfi_segment *s, const char *object, struct rfi_error *err)
{
    shm_unlink(object); /* an orphan of a crash between two unlinks; the control name is ours */
    s->data_fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (s->data_fd < 0)
        return rfi_fail(err, errno, "cannot create /dev/shm%s: %s. Remove it or choose another name", object,
                        strerror(errno));
    (void)!fchmod(s->data_fd, 0600);
    if (ftruncate(s->data_fd, (off_t)s->data_bytes) < 0 ||
        !(s->data = rfi_pages_map(s->data_fd, s->data_bytes, PROT_READ | PROT_WRITE)))
        return rfi_fail(err, errno, "cannot map %" PRIu64 " bytes of /dev/shm%s: %s. Lower --prefetch or --ring-bytes",
                        s->data_bytes, object, strerror(errno));
    return 0;
}

static void fill_header(struct rfi_segment *s, uint64_t signature)
{
    struct rfi_segment_header *h = (struct rfi_segment_header *)s->control;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h->layout_version = RFI_LAYOUT_VERSION;
    h->n_regions = s->n_regions;
    h->layout_signature = signature;
    memcpy(h->nonce, s->nonce, sizeof h->nonce);
    h->control_bytes = s->control_bytes;
    h->data_bytes = s->data_bytes;
    h->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    h->owner_pid = getpid();
    snprintf(h->name, sizeof h->name, "%s", s->name);
    memcpy(h->regions, s->regions, sizeof h->regions);
    struct rfi_data_header *d = (struct rfi_data_header *)s->data;
    memcpy(d->nonce, s->nonce, sizeof d->nonce);
    d->data_bytes = s->data_bytes;
    atomic_store_explicit(&d->magic, RFI_DATA_MAGIC, memory_order_release);
}

static int make_objects(struct rfi_segment *s, const char *control, const char *data, const struct rfi_pieces *there,
                        uint64_t spare_bytes, uint64_t signature, rfi_segment_bind_fn bind, void *ctx,
                        struct rfi_error *err)
{
    uint64_t total = s->control_bytes + s->data_bytes - spare_bytes;
    int rc = rfi_room_check(total, total, err);
    if (rc < 0)
        return rc;
    if (ftruncate(s->control_fd, (off_t)s->control_bytes) < 0)
        return rfi_fail(err, errno, "cannot size /dev/shm%s to %" PRIu64 " bytes: %s. Lower --prefetch or --batch",
                        control, s->control_bytes, strerror(errno));
    if (!(s->control = rfi_pages_map(s->control_fd, s->control_bytes, PROT_READ | PROT_WRITE)))
        return rfi_fail(err, errno, "cannot map %" PRIu64 " bytes of /dev/shm%s: %s", s->control_bytes, control,
                        strerror(errno));
    rc = make_data(s, data, err);
    if (rc == 0 && bind)
        rc = bind(ctx, s->control, s->data, err);
    if (rc == 0)
        rc = populate(s->control_fd, s->control, 0, s->control_bytes, total, err);
    if (rc == 0)
        rc = populate_data(s, there, total, err);
    if (rc == 0)
        fill_header(s, signature);
    return rc;
}

int rfi_segment_create(const char *name, const struct rfi_region_request *requests, uint32_t n, uint64_t data_bytes,
                       uint64_t signature, rfi_segment_bind_fn bind, void *ctx, struct rfi_segment *ret,
                       struct rfi_error *err)
{
    const struct rfi_pieces all = {.first = rfi_align_up(data_bytes + RFI_HEADER_BYTES, PAGE)};
    return rfi_segment_create_sparse(name, requests, n, data_bytes, &all, 0, signature, bind, ctx, ret, err);
}

int rfi_segment_create_sparse(const char *name, const struct rfi_region_request *requests, uint32_t n,
                              uint64_t data_bytes, const struct rfi_pieces *there, uint64_t spare_bytes,
                              uint64_t signature, rfi_segment_bind_fn bind, void *ctx, struct rfi_segment *ret,
                              struct rfi_error *err)
{
    char control[RFI_OBJECT_NAME], data[RFI_OBJECT_NAME];
    struct rfi_segment s = {.owner = true,
                            .lock_fd = -1,
                            .control_fd = -1,
                            .data_fd = -1,
                            .n_regions = n,
                            .owner_pid = getpid(),
                            .data_bytes = rfi_align_up(data_bytes + RFI_HEADER_BYTES, PAGE)};
    int rc = rfi_name_check(name, err);
    if (rc < 0)
        return rc;
    if (n > RFI_MAX_REGIONS)
        return rfi_fail(err, EINVAL, "internal: %u regions", n);
    rc = rfi_segment_layout(requests, n, s.regions, &s.control_bytes, err);
    if (rc < 0)
        return rc;
    snprintf(s.name, sizeof s.name, "%s", name);
    if (getrandom(s.nonce, sizeof s.nonce, 0) != sizeof s.nonce)
        return rfi_fail(err, EIO, "no random numbers from the kernel: %s", strerror(errno));
    rfi_object_names(name, control, data);
    rc = take_name(name, control, &s.control_fd, &s.lock_fd, err);
    if (rc < 0)
        return rc;
    rc = make_objects(&s, control, data, there, spare_bytes, signature, bind, ctx, err);
    if (rc < 0) {
        rfi_segment_destroy(&s);
        return rc;
    }
    *ret = s;
    return 0;
}

int rfi_segment_populate(struct rfi_segment *s, uint64_t offset, uint64_t bytes, struct rfi_error *err)
{
    if (rfi_pages_populate(s->data_fd, s->data, offset, bytes) < 0)
        return rfi_fail(err, ENOSPC, "no room in /dev/shm for %" PRIu64 " bytes more: %s. Enlarge it", bytes,
                        strerror(errno));
    return 0;
}

void rfi_segment_ready(struct rfi_segment *s)
{
    struct rfi_segment_header *h = (struct rfi_segment_header *)s->control;
    atomic_store_explicit(&h->ready, RFI_READY_MAGIC, memory_order_release);
}

void rfi_segment_destroy(struct rfi_segment *s)
{
    char control[RFI_OBJECT_NAME], data[RFI_OBJECT_NAME];
    rfi_object_names(s->name, control, data);
    if (s->owner && s->lock_fd >= 0 && rfi_same_object(control, s->lock_fd)) {
        if (s->data_fd >= 0 && rfi_same_object(data, s->data_fd))
            shm_unlink(data);
        shm_unlink(control);
    }
    rfi_segment_detach(s);
}

void rfi_segment_disown(struct rfi_segment *s)
{
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    s->lock_fd = -1;
    s->owner = false;
}
