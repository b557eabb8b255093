/* Arrays and tensors that are kept too long. A ring takes releases in order, so one old array stops it for good, and nobody
 * can take memory away from an array. So the memory stays and the ring goes: the pages that held batches lie in are replaced by
 * private copies at the same addresses, and the rank is attached to anew, with a mapping of its own, and goes on where it
 * was. The old handle is left, and keeps its mapping until the last view of it is gone.
 *
 * A page is replaced in one step (mremap), by one that holds the same bytes: who reads an array meanwhile sees no
 * difference. Nothing else looks at the old mapping any more. */
#include "core.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 };

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

/* A handle of its own for the rank, where the user is. */
static int attach_again(struct rfp_trainer *t)
{
    t->waiting = true;
    int rc = rfp_trainer_attach(t, t->info.name, t->info.rank, PATIENCE_MS, true);
    t->waiting = false;
    if (rc < 0)
        return rc;
    PyThreadState *saved = rfp_trainer_let_go(t);
    rc = rf_seek(t->handle, t->epoch, t->step);
    return rfp_trainer_take_back(t, saved, rc);
}

int rfp_trainer_renew(struct rfp_trainer *t)
{
    /* A device knows the address of what is pinned; a rank that exchanges batches cannot go back to where it was. */
    if (t->pin || t->copying || !t->held || t->info.exchanges || !rfp_trainer_is_ours(t))
        return 0;
    struct rfp_left *left = PyMem_Malloc(sizeof *left);
    if (!left) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF((PyObject *)t);
    int rc = leave(t, left);
    if (rc < 0)
        rfp_raise(rc, "batches that are held cannot be moved out of the ring: there is no memory for them. Delete what "
                      "leads into them, or keep fewer");
    else
        rc = attach_again(t);
    rfp_left_drop(left);
    if (rc < 0)
        t->closed = true;
    rfp_trainer_settle(t);
    Py_DECREF((PyObject *)t);
    return rc < 0 ? -1 : 1;
}
