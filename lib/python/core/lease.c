/* Leases: who has a batch, and when its place in the ring is given back. The batch object is not the lease itself, so that a
 * batch may keep its arrays without a cycle: batch -> array -> view -> lease. When the last of them goes, the ring
 * gets its place back.
 *
 * A ring takes releases in order, so one old batch that a variable still holds would stop it for good. When that
 * happens, and nothing but the batch object leads into its memory, the batch moves to memory of its own. Where arrays do,
 * renew.c makes room. */
#include "core.h"

#include <string.h>

struct rfp_lease *rfp_lease_new(struct rfp_trainer *t, const rf_batch *b)
{
    struct rfp_lease *l = t->spare;
    if (l)
        t->spare = l->next;
    else if (!(l = PyMem_Malloc(sizeof *l))) {
        PyErr_NoMemory();
        return NULL;
    }
    l->refs = 1;
    l->views = l->copies = 0;
    l->released = l->shut = false;
    l->trainer = t;
    l->next = l->newer = NULL;
    l->older = t->newest;
    if (t->newest)
        t->newest->newer = l;
    t->newest = l;
    l->taken = (struct rfp_place){0};
    l->batch = NULL;
    l->own = NULL;
    l->left = NULL;
    rfp_place_note(&l->taken);
    l->b = *b;
    Py_INCREF((PyObject *)t);
    t->leases++;
    t->held++;
    return l;
}

/* The memory of a forked child is a copy: rf_release says so and does nothing. */
void rfp_lease_release(struct rfp_lease *l)
{
    struct rfp_trainer *t = l->trainer;
    if (l->released)
        return;
    l->released = true;
    if (l->own || l->left)
        return;
    t->held--;
    if (!t->waiting) {
        rf_release(t->handle, &l->b);
        return;
    }
    l->refs++;
    l->next = t->pending;
    t->pending = l;
}

void rfp_lease_drop(struct rfp_lease *l)
{
    struct rfp_trainer *t = l->trainer;
    if (--l->refs)
        return;
    if (!l->released) {
        rfp_lease_release(l);
        if (l->refs) /* it waits to be given back */
            return;
    }
    PyMem_Free(l->own);
    if (l->left)
        rfp_left_drop(l->left);
    rfp_place_forget(&l->taken);
    if (l->older)
        l->older->newer = l->newer;
    *(l->newer ? &l->newer->older : &t->newest) = l->older;
    l->next = t->spare;
    t->spare = l;
    t->leases--;
    if (t->closed)
        rfp_trainer_settle(t);
    Py_DECREF((PyObject *)t);
}

void rfp_lease_flush(struct rfp_trainer *t)
{
    while (t->pending) {
        struct rfp_lease *l = t->pending;
        t->pending = l->next;
        rf_release(t->handle, &l->b);
        rfp_lease_drop(l);
    }
}

/* ---- moving out of the ring ---- */

struct rfp_lease *rfp_lease_oldest(const struct rfp_trainer *t)
{
    struct rfp_lease *oldest = NULL;
    for (struct rfp_lease *l = t->newest; l; l = l->older)
        if (!l->released && !l->own && !l->left)
            oldest = l;
    return oldest;
}

/* `bytes` of `from` at *to, which moves on. NULL stays NULL. */
static const void *put(unsigned char **to, const void *from, size_t bytes)
{
    void *at = *to;
    if (!from)
        return NULL;
    memcpy(at, from, bytes);
    *to += (bytes + 7) & ~(size_t)7;
    return at;
}

/* Samples are packed, so offsets change, of fields as well. */
static void move(struct rfp_lease *l, unsigned char *to)
{
    const rf_batch *old = &l->b;
    size_t n = old->n_samples, f = old->field_offsets ? old->n_fields : 0;
    rf_batch b = *old;
    b.offsets = put(&to, old->offsets, 8 * n);
    b.lengths = put(&to, old->lengths, 8 * n);
    b.ids = put(&to, old->ids, 8 * n);
    b.labels = put(&to, old->labels, 8 * n);
    b.flags = put(&to, old->flags, n);
    b.field_offsets = put(&to, old->field_offsets, 8 * n * f);
    b.field_lengths = put(&to, old->field_lengths, 8 * n * f);
    uint64_t *offsets = (uint64_t *)(uintptr_t)b.offsets, *fields = (uint64_t *)(uintptr_t)b.field_offsets, at = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(to + at, old->data + old->offsets[i], old->lengths[i]);
        for (size_t k = 0; k < f; k++)
            if (fields[i * f + k] != UINT64_MAX)
                fields[i * f + k] += at - old->offsets[i];
        offsets[i] = at;
        at += old->lengths[i];
    }
    b.data = to;
    b.data_bytes = at;
    b.resident = 0;
    l->b = b;
}

int rfp_lease_move_oldest(struct rfp_trainer *t)
{
    struct rfp_lease *l = rfp_lease_oldest(t);
    if (!l || !l->batch)
        return 0;
    PyObject *done = l->views ? PyObject_CallMethod(l->batch, "_forget", NULL) : Py_NewRef(Py_None);
    if (!done)
        return -1;
    Py_DECREF(done);
    if (l->views)
        return 0;
    size_t n = l->b.n_samples, bytes = (size_t)(l->b.field_offsets ? 16 * n * l->b.n_fields : 0) + 40 * n + 64;
    for (size_t i = 0; i < n; i++)
        bytes += l->b.lengths[i];
    rf_batch place = l->b;
    l->own = PyMem_Malloc(bytes);
    if (!l->own) {
        PyErr_NoMemory();
        return -1;
    }
    move(l, l->own);
    t->held--;
    rf_release(t->handle, &place);
    return 1;
}
