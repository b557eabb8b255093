/* Arrays and tensors that are kept too long. A ring takes releases in order, so one old array stops it for good, and nobody
 * can take memory away from an array. So the memory stays and the ring goes: the pages that held batches lie in are replaced by
 * private copies at the same addresses, and the rank is attached to anew, with a mapping of its own, and goes on where it
 * was. The old handle is left, and keeps its mapping until the last view of it is gone.
 *
 * A page is replaced in one step (mremap), by one that holds the same bytes: who reads an array meanwhile sees no
 * difference. Nothing else looks at the old mapping any more. */
#include "core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_NS = 2000000, PATIENCE_MS = 10000 };

struct rfp_left {
    rf_trainer *handle;
    uint32_t leases;
};

void rfp_left_drop(struct rfp_left *left)
{
    if (--left->leases)
        return;
    rf_detach(left->handle);
    PyMem_Free(left);
}

/* The pages of [from, to) are this process's alone from now on. */
static int make_private(const void *from, const void *to)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)from & ~(page - 1), end = ((uintptr_t)to + page - 1) & ~(page - 1);
    if (from == to)
        return 0;
    void *copy = mmap(NULL, end - first, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        return -errno;
    memcpy(copy, (const void *)first, end - first);
    if (mremap(copy, end - first, end - first, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)first) == MAP_FAILED) {
        int code = errno;
        munmap(copy, end - first);
        return -code;
    }
    return 0;
}

/* The least range that has all of a batch's arrays: they lie together, in its slot's descriptor. */
static void arrays_of(const rf_batch *b, const char **ret_from, const char **ret_to)
{
    size_t n = b->n_samples, fields = 8 * n * b->n_fields;
    const struct {
        const void *at;
        size_t bytes;
    } arrays[] = {{b->offsets, 8 * n}, {b->lengths, 8 * n},        {b->ids, 8 * n},           {b->labels, 8 * n},
                  {b->flags, n},       {b->field_offsets, fields}, {b->field_lengths, fields}};
    *ret_from = *ret_to = (const char *)b->ids;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        const char *at = arrays[i].at;
        if (at && at < *ret_from)
            *ret_from = at;
        if (at && at + arrays[i].bytes > *ret_to)
            *ret_to = at + arrays[i].bytes;
    }
}

static int keep(struct rfp_lease *l)
{
    const char *from, *to;
    arrays_of(&l->b, &from, &to);
    int rc = make_private(from, to);
    if (rc == 0 && !l->b.resident) /* the resident cache never changes */
        rc = make_private(l->b.data, l->b.data + l->b.data_bytes);
    return rc;
}

/* Without the GIL. The server may need a moment to see that the rank is free. */
static int attach_again(struct rfp_trainer *t, rf_trainer **ret, char *text, size_t cap)
{
    rf_attach_options o;
    int rc = -EBUSY;
    rf_attach_options_init(&o);
    o.writable = t->writable;
    o.timeout_ms = PATIENCE_MS;
    for (long waited_ms = 0; rc == -EBUSY && waited_ms < PATIENCE_MS; waited_ms += RETRY_NS / 1000000) {
        rc = rf_attach(t->info.name, t->info.rank, &o, ret);
        if (rc == -EBUSY)
            nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
    if (rc < 0) {
        snprintf(text, cap, "%s", rf_last_error());
        return rc;
    }
    rc = rf_seek(*ret, t->epoch, t->step);
    if (rc < 0)
        snprintf(text, cap, "%s", rf_trainer_error(*ret));
    return rc;
}

/* All held batches get memory of their own, behind the handle that is left. */
static int leave(struct rfp_trainer *t, struct rfp_left *left)
{
    int rc = 0;
    left->handle = t->handle;
    left->leases = 1; /* until all are counted */
    t->handle = NULL;
    rf_leave(left->handle);
    for (struct rfp_lease *l = t->newest; l; l = l->older) {
        if (l->released || l->own || l->left)
            continue;
        l->left = left;
        left->leases++;
        t->held--;
        if (rc == 0)
            rc = keep(l);
    }
    return rc;
}

int rfp_trainer_renew(struct rfp_trainer *t)
{
    char text[1024] = "";
    struct rfp_left *left;
    if (t->pin || t->copying || !t->held || !rfp_trainer_is_ours(t)) /* what a device knows the address of stays */
        return 0;
    left = PyMem_Malloc(sizeof *left);
    if (!left) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF((PyObject *)t);
    t->waiting = true;
    PyThreadState *saved = PyEval_SaveThread();
    /* Refused where ranks exchange batches, but not to where the ring stands; and never to the end of the run. */
    int rc = rf_seek(t->handle, t->epoch, t->step ? t->step - 1 : t->info.len > 1);
    PyEval_RestoreThread(saved);
    rfp_lease_flush(t);
    if (rc < 0) {
        PyMem_Free(left);
    } else {
        rc = leave(t, left);
        if (rc < 0)
            snprintf(text, sizeof text, "held batches cannot be moved out of the ring: %s. Delete what leads into them",
                     strerror(-rc));
        rf_trainer *handle = NULL;
        saved = PyEval_SaveThread();
        if (rc == 0)
            rc = attach_again(t, &handle, text, sizeof text);
        PyEval_RestoreThread(saved);
        t->handle = handle;
        rfp_left_drop(left);
        if (rc < 0) {
            t->closed = true;
            rfp_raise(rc, text);
        }
        rc = rc < 0 ? -1 : 1;
    }
    t->waiting = false;
    rfp_trainer_settle(t);
    Py_DECREF((PyObject *)t);
    return rc < -1 ? 0 : rc;
}
