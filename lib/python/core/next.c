/* The iterator over one epoch. Its __next__ is the whole hand-over: on a ready batch it is one call of the library and one
 * new object; only when it must wait it lets go of the GIL. */
#include "core.h"

#include <errno.h>

struct epoch {
    PyObject ob_base;
    struct rfp_trainer *t;
    PyObject *owner; /* the loader: `for batch in Loader(…)` has nothing else that keeps it */
    uint64_t serial;
    uint64_t epoch;
    bool done;
};

static PyTypeObject *epoch_type;

PyObject *rfp_epoch_new(struct rfp_trainer *t, uint64_t epoch, PyObject *owner)
{
    struct epoch *e = (struct epoch *)PyType_GenericAlloc(epoch_type, 0);
    if (!e)
        return NULL;
    Py_INCREF((PyObject *)t);
    e->t = t;
    e->owner = Py_NewRef(owner);
    e->serial = ++t->serial;
    e->epoch = epoch;
    return (PyObject *)e;
}

/* Called by rf_next between slices of its wait, without the GIL. The first call comes before anything was waited for. */
static int on_wait(void *ctx)
{
    struct rfp_trainer *t = ctx;
    if (t->wait_rounds++ == 0)
        return 0;
    PyEval_RestoreThread(t->saved);
    int stop = rfp_copies_poll(t) < 0;
    rfp_lease_flush(t);
    stop = stop || t->closed || PyErr_CheckSignals() < 0;
    t->saved = PyEval_SaveThread();
    return stop;
}

static int wait_next(struct rfp_trainer *t, rf_batch *b)
{
    int rc;
    t->waiting = true;
    t->wait_rounds = 0;
    Py_INCREF((PyObject *)t);
    rf_on_wait(t->handle, on_wait, t);
    t->saved = PyEval_SaveThread();
    rc = rf_next(t->handle, t->timeout_ms, b);
    PyEval_RestoreThread(t->saved);
    bool gave_back = t->pending != NULL;
    rfp_lease_flush(t);
    rf_on_wait(t->handle, NULL, NULL);
    if (rc == -EDEADLK && gave_back) /* another thread has just helped */
        rc = rf_next(t->handle, 0, b);
    t->waiting = false;
    Py_DECREF((PyObject *)t);
    return rc;
}

/* Where the oldest batch that is held was taken: its release is what the ring waits for. */
static void oldest_held(struct rfp_trainer *t, char *buf, size_t cap)
{
    struct rfp_lease *oldest = rfp_lease_oldest(t);
    rfp_place_text(oldest ? &oldest->taken : &(struct rfp_place){0}, buf, cap);
}

/* A note for the one who keeps batches. */
static int warn_of_held(struct rfp_trainer *t)
{
    char where[300];
    if (t->warned || t->held - t->copying < 2) /* copies end by themselves */
        return 0;
    rf_trainer_get_info(t->handle, &t->info); /* the ring may have grown */
    if (t->info.depth < 3 || t->held + 1 < t->info.depth)
        return 0;
    t->warned = true;
    oldest_held(t, where, sizeof where);
    return PyErr_WarnFormat(
        PyExc_RuntimeWarning, 1,
        "%u batches of rank %u are held, the oldest taken at %s, and the ring has room for %u: nothing can be "
        "read ahead. Keep a batch.copy(), delete what leads into old batches, or raise prefetch_factor",
        t->held, t->info.rank, where, t->info.depth);
}

static PyObject *failed(struct rfp_trainer *t, int rc)
{
    if (t->closed && !PyErr_Occurred()) {
        rfp_trainer_settle(t);
        return PyErr_Format(PyExc_ValueError, "this loader was closed while it waited");
    }
    if (rc == -EIO) /* the ring goes on behind the batch that could not be read */
        t->step++;
    if (rc != -EDEADLK)
        return rfp_raise(rc, rf_trainer_error(t->handle));
    char text[1400], where[300];
    oldest_held(t, where, sizeof where);
    PyOS_snprintf(
        text, sizeof text,
        "%s. The oldest was taken at %s: a variable, an array or a tensor still leads there. Delete it (del), or "
        "keep a batch.copy() in its place (copy=True keeps all)",
        rf_trainer_error(t->handle), where);
    return rfp_raise(rc, text);
}

static PyObject *end_epoch(struct epoch *e)
{
    struct rfp_trainer *t = e->t;
    e->done = true;
    t->epoch = e->epoch + 1;
    t->step = 0;
    return NULL;
}

static PyObject *give(struct epoch *e, struct rfp_lease *l)
{
    struct rfp_trainer *t = e->t;
    if (t->pin && rfp_pin_cover(t, &l->b) < 0) {
        t->ahead = l; /* for the next call */
        return NULL;
    }
    t->step = l->b.batch + 1;
    t->ended = l->b.last != 0;
    return rfp_batch_new(l);
}

static bool in_turn(const struct epoch *e)
{
    const struct rfp_trainer *t = e->t;
    return t->serial == e->serial && !t->closed && t->handle && !t->waiting;
}

static PyObject *out_of_turn(struct epoch *e)
{
    struct rfp_trainer *t = e->t;
    if (t->closed || !t->handle)
        return PyErr_Format(PyExc_ValueError, "this loader was closed. Make another one");
    if (t->waiting)
        return PyErr_Format(PyExc_RuntimeError, "another thread waits for a batch of this loader: one thread uses it");
    return PyErr_Format(
        PyExc_RuntimeError,
        "this iterator is over: a later iter() of the loader, or load_state_dict(), has taken its place");
}

static PyObject *epoch_next(PyObject *self)
{
    struct epoch *e = (struct epoch *)self;
    struct rfp_trainer *t = e->t;
    rf_batch b;
    if (e->done)
        return NULL;
    if (t->copies && rfp_copies_poll(t) < 0)
        return NULL;
    if (!in_turn(e))
        return out_of_turn(e);
    if (t->ended)
        return end_epoch(e);
    if (t->ahead) {
        struct rfp_lease *l = t->ahead;
        if (l->b.epoch != e->epoch)
            return end_epoch(e);
        t->ahead = NULL;
        return give(e, l);
    }
    if (t->held >= 2 && t->held + 1 >= t->info.depth && warn_of_held(t) < 0)
        return NULL;
    int rc = rf_next(t->handle, 0, &b);
    if (rc == -ETIMEDOUT || rc == -EDEADLK)
        rc = rf_is_empty(t->handle) ? RF_END : wait_next(t, &b);
    while (rc == -EDEADLK) {
        int moved = rfp_copies_wait(t);
        if (!moved)
            moved = rfp_lease_move_oldest(t);
        if (!moved)
            moved = rfp_trainer_renew(t);
        if (moved < 0)
            return NULL;
        if (!in_turn(e)) /* Python ran */
            return out_of_turn(e);
        rc = wait_next(t, &b); /* also for the error's text */
        if (!moved)
            break;
    }
    if (rc == RF_END)
        return end_epoch(e);
    if (rc < 0)
        return failed(t, rc);
    struct rfp_lease *l = rfp_lease_new(t, &b);
    if (!l) {
        rf_release(t->handle, &b);
        return NULL;
    }
    if (b.epoch == e->epoch)
        return give(e, l);
    t->ahead = l;
    return end_epoch(e);
}

/* A loader that keeps its iterator, or whose collate_fn leads there, is a cycle: the collector has to see through it. */
static int epoch_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct epoch *e = (struct epoch *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(e->owner);
    return 0;
}

static int epoch_clear(PyObject *self)
{
    struct epoch *e = (struct epoch *)self;
    e->done = true;
    Py_CLEAR(e->owner);
    return 0;
}

static void epoch_dealloc(PyObject *self)
{
    struct epoch *e = (struct epoch *)self;
    PyObject_GC_UnTrack(self);
    Py_XDECREF(e->owner);
    Py_XDECREF((PyObject *)e->t);
    rfp_free_object(self);
}

static PyObject *same(PyObject *self)
{
    return Py_NewRef(self);
}

static PyType_Slot epoch_slots[] = {
    {Py_tp_doc, (void *)"The batches of one epoch, in order."},
    {Py_tp_dealloc, (void *)epoch_dealloc},
    {Py_tp_traverse, (void *)epoch_traverse},
    {Py_tp_clear, (void *)epoch_clear},
    {Py_tp_iter, (void *)same},
    {Py_tp_iternext, (void *)epoch_next},
    {0, NULL},
};

static PyType_Spec epoch_spec = {"ringfeed._core.Epoch", sizeof(struct epoch), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                 epoch_slots};

int rfp_epoch_init(PyObject *module)
{
    return rfp_add_type(module, &epoch_spec, &epoch_type);
}
