/* A rank of a run, attached. How it is waited for is in next.c. */
#include "core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <structmember.h>
#include <time.h>
#include <unistd.h>

enum { ATTACH_RETRY_NS = 10000000, DEFAULT_TIMEOUT_MS = 30000 };

static PyTypeObject *trainer_type;

struct rfp_trainer *rfp_trainer_of(PyObject *o)
{
    return (struct rfp_trainer *)o;
}

/* NumPy's type strings and those of the struct module. Anything else is bytes. */
static void element_format(struct rfp_trainer *t)
{
    static const struct {
        const char *numpy, *format;
        Py_ssize_t bytes;
    } types[] = {{"b1", "?", 1}, {"i1", "b", 1}, {"u1", "B", 1},  {"i2", "h", 2},   {"u2", "H", 2},
                 {"i4", "i", 4}, {"u4", "I", 4}, {"i8", "q", 8},  {"u8", "Q", 8},   {"f2", "e", 2},
                 {"f4", "f", 4}, {"f8", "d", 8}, {"c8", "Zf", 8}, {"c16", "Zd", 16}};
    const char *dtype = t->dataset.dtype;
    size_t n = sizeof types / sizeof *types, i = n;
    if (*dtype)
        for (i = 0; i < n && strcmp(dtype + 1, types[i].numpy) != 0; i++)
            ;
    uint64_t bytes = i < n ? (uint64_t)types[i].bytes : 0;
    t->n_dims = 1;
    for (uint32_t d = 0; d < t->dataset.n_dims && d < 16 && bytes; d++) {
        t->shape[t->n_dims++] = (Py_ssize_t)t->dataset.shape[d];
        bytes *= t->dataset.shape[d];
    }
    if (bytes && bytes == t->info.fixed_bytes) {
        snprintf(t->format, sizeof t->format, "%s%s", *dtype == '>' ? ">" : "", types[i].format);
        t->item_bytes = types[i].bytes;
        return;
    }
    t->n_dims = 2;
    t->shape[1] = (Py_ssize_t)t->info.fixed_bytes;
    t->item_bytes = 1;
    snprintf(t->format, sizeof t->format, "B");
}

/* One try that does not wait for the name, with the GIL let go of. */
static int try_attach(struct rfp_trainer *t, const char *name, unsigned rank, rf_attach_options *o, bool busy,
                      char *text, size_t cap)
{
    int rc;
    PyThreadState *saved = PyEval_SaveThread();
    rc = rf_attach(name, rank, o, &t->handle);
    if (rc < 0)
        snprintf(text, cap, "%s", rf_last_error());
    if (rc == -ENOENT || rc == -EAGAIN || (busy && rc == -EBUSY))
        nanosleep(&(struct timespec){.tv_nsec = ATTACH_RETRY_NS}, NULL);
    PyEval_RestoreThread(saved);
    return rc;
}

/* Waits for the name in short steps, so that ^C acts. Once a server is there but slow, it is waited for as a whole. */
int rfp_trainer_attach(struct rfp_trainer *t, const char *name, unsigned rank, int timeout_ms, bool busy)
{
    rf_attach_options o;
    char text[1024];
    struct timespec now, until;
    rf_attach_options_init(&o);
    o.writable = t->writable;
    o.timeout_ms = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms < 0)
        timeout_ms = DEFAULT_TIMEOUT_MS;
    until.tv_sec += timeout_ms / 1000 + (until.tv_nsec + timeout_ms % 1000 * 1000000L) / 1000000000L;
    until.tv_nsec = (until.tv_nsec + timeout_ms % 1000 * 1000000L) % 1000000000L;
    for (bool slow = false;;) {
        int rc = try_attach(t, name, rank, &o, busy, text, sizeof text);
        if (rc >= 0)
            return 0;
        if (PyErr_CheckSignals() < 0)
            return -1;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long left_ms = (until.tv_sec - now.tv_sec) * 1000 + (until.tv_nsec - now.tv_nsec) / 1000000;
        slow |= rc == -ETIMEDOUT;
        /* The server gives up the rank of a try that it answered too late, and may not have noticed yet. */
        bool again = rc == -ENOENT || rc == -EAGAIN || rc == -ETIMEDOUT || ((slow || busy) && rc == -EBUSY);
        if (!again || left_ms <= 0) {
            rfp_raise(rc, text);
            return -1;
        }
        o.timeout_ms = slow ? (int)left_ms : 0;
    }
}

/* Trainer(name, rank, timeout_ms, writable, batch_type) */
static PyObject *trainer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    const char *name;
    unsigned rank;
    int timeout_ms, writable;
    PyObject *batch_type;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "sIipO", &name, &rank, &timeout_ms, &writable, &batch_type))
        return NULL;
    if (!rfp_batch_is_type(batch_type)) {
        PyErr_SetString(PyExc_TypeError, "batch_type: a subclass of _core.Batch is needed");
        return NULL;
    }
    struct rfp_trainer *t = (struct rfp_trainer *)PyType_GenericAlloc(type, 0);
    if (!t)
        return NULL;
    t->batch_type = Py_NewRef(batch_type);
    t->batch_alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)batch_type, Py_tp_alloc);
    t->pid = getpid();
    t->timeout_ms = -1;
    t->writable = writable;
    if (rfp_trainer_attach(t, name, rank, timeout_ms, false) < 0) {
        Py_DECREF((PyObject *)t);
        return NULL;
    }
    rf_trainer_get_info(t->handle, &t->info);
    rf_trainer_get_dataset(t->handle, &t->dataset);
    element_format(t);
    t->epoch = t->info.start_epoch;
    return (PyObject *)t;
}

bool rfp_trainer_is_ours(const struct rfp_trainer *t)
{
    return t->pid == getpid();
}

/* What is pinned is unpinned before it is unmapped. */
static void detach(struct rfp_trainer *t)
{
    rfp_pin_end(t, rfp_trainer_is_ours(t));
    rf_detach(t->handle);
    t->handle = NULL;
}

void rfp_trainer_settle(struct rfp_trainer *t)
{
    if (!t->closed || t->leases || t->waiting || !t->handle)
        return;
    detach(t);
}

static void close_trainer(struct rfp_trainer *t)
{
    t->closed = true;
    if (t->ahead && !t->waiting) {
        struct rfp_lease *l = t->ahead;
        t->ahead = NULL;
        rfp_lease_drop(l);
    }
    rfp_copies_finish(t);
    rfp_trainer_settle(t);
}

static void trainer_dealloc(PyObject *self)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    if (t->handle)
        detach(t);
    while (t->spare) {
        struct rfp_lease *l = t->spare;
        t->spare = l->next;
        PyMem_Free(l);
    }
    Py_XDECREF(t->batch_type);
    Py_XDECREF(t->layout);
    rfp_free_object(self);
}

/* -1 with an exception when the handle cannot be used now. */
static int check(struct rfp_trainer *t)
{
    if (t->closed || !t->handle)
        PyErr_SetString(PyExc_ValueError, "this loader was closed. Make another one");
    else if (t->waiting)
        PyErr_SetString(PyExc_RuntimeError, "another thread waits for a batch of this loader: one thread uses it");
    else
        return 0;
    return -1;
}

/* close(leave): with `leave` the rank is given up at once, though held batches keep the memory. */
static PyObject *trainer_close(PyObject *self, PyObject *leave)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    int now = PyObject_IsTrue(leave);
    if (now < 0)
        return NULL;
    close_trainer(t);
    if (t->handle && now && !t->waiting)
        rf_leave(t->handle);
    Py_RETURN_NONE;
}

static void drop_ahead(struct rfp_trainer *t)
{
    struct rfp_lease *l = t->ahead;
    t->ahead = NULL;
    if (l)
        rfp_lease_drop(l);
}

static PyObject *outcome(struct rfp_trainer *t, int rc)
{
    return rc < 0 ? rfp_raise(rc, rf_trainer_error(t->handle)) : PyLong_FromLong(rc);
}

PyThreadState *rfp_trainer_let_go(struct rfp_trainer *t)
{
    Py_INCREF((PyObject *)t);
    t->waiting = true;
    return PyEval_SaveThread();
}

int rfp_trainer_take_back(struct rfp_trainer *t, PyThreadState *saved, int rc)
{
    PyEval_RestoreThread(saved);
    rfp_lease_flush(t);
    t->waiting = false;
    if (t->closed)
        PyErr_SetString(PyExc_ValueError, "this loader was closed meanwhile");
    else if (rc < 0)
        rfp_raise(rc, rf_trainer_error(t->handle));
    bool failed = t->closed || rc < 0;
    rfp_trainer_settle(t);
    Py_DECREF((PyObject *)t);
    return failed ? -1 : 0;
}

/* begin(epoch, restart, owner) -> the iterator over that epoch, from its first batch on or from where a restore has put it. */
static PyObject *trainer_begin(PyObject *self, PyObject *args)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    unsigned long long epoch;
    int restart;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "KpO", &epoch, &restart, &owner) || check(t) < 0)
        return NULL;
    bool served = !t->info.epochs || epoch < t->info.start_epoch + t->info.epochs; /* else the ring stands at its end */
    if (restart && served) {
        int rc;
        if (!t->ahead || t->ahead->b.epoch != epoch || t->ahead->b.batch != 0) {
            drop_ahead(t);
            PyThreadState *saved = rfp_trainer_let_go(t);
            rc = rf_set_epoch(t->handle, epoch);
            if (rfp_trainer_take_back(t, saved, rc) < 0)
                return NULL;
        }
        t->epoch = epoch;
        t->step = 0;
        t->ended = false;
    }
    return rfp_epoch_new(t, t->epoch, owner);
}

/* seek(epoch, step, len): step `len` is the end of the epoch, where nothing of it comes any more. */
static PyObject *trainer_seek(PyObject *self, PyObject *args)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    unsigned long long epoch, step, len;
    int rc;
    if (!PyArg_ParseTuple(args, "KKK", &epoch, &step, &len) || check(t) < 0)
        return NULL;
    drop_ahead(t);
    PyThreadState *saved = rfp_trainer_let_go(t);
    rc = rf_seek(t->handle, epoch, step);
    if (rfp_trainer_take_back(t, saved, rc) < 0)
        return NULL;
    t->epoch = epoch;
    t->step = step;
    t->ended = step && step >= len;
    t->serial++;
    Py_RETURN_NONE;
}

/* place(epoch, step): says where the ring stands; the server was told. */
static PyObject *trainer_place(PyObject *self, PyObject *args)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    unsigned long long epoch, step;
    if (!PyArg_ParseTuple(args, "KK", &epoch, &step))
        return NULL;
    t->epoch = epoch;
    t->step = step;
    t->ended = false;
    t->serial++;
    Py_RETURN_NONE;
}

static PyObject *trainer_prefetch(PyObject *self, PyObject *args)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    unsigned batches;
    if (!PyArg_ParseTuple(args, "I", &batches) || check(t) < 0)
        return NULL;
    return outcome(t, rf_prefetch(t->handle, batches));
}

static PyObject *trainer_report(PyObject *self, PyObject *args)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    unsigned long long samples;
    double seconds;
    if (!PyArg_ParseTuple(args, "Kd", &samples, &seconds) || check(t) < 0)
        return NULL;
    return outcome(t, rf_report_health(t->handle, samples, seconds));
}

static PyObject *trainer_rebalance(PyObject *self, PyObject *unused)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    int rc;
    (void)unused;
    if (check(t) < 0)
        return NULL;
    PyThreadState *saved = rfp_trainer_let_go(t);
    rc = rf_rebalance(t->handle);
    if (rfp_trainer_take_back(t, saved, rc) < 0)
        return NULL;
    return Py_BuildValue("(Os)", rc ? Py_True : Py_False, rf_rebalance_reason(t->handle));
}

/* pin(device, fallback): batches lie in pinned memory from now on. */
static PyObject *trainer_pin(PyObject *self, PyObject *args)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    int device, fallback;
    if (!PyArg_ParseTuple(args, "ii", &device, &fallback) || check(t) < 0)
        return NULL;
    if (!t->pin && rfp_pin_ask(t, device, fallback) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *trainer_pinned(PyObject *self, void *unused)
{
    (void)unused;
    return rfp_pin_list((struct rfp_trainer *)self);
}

static PyObject *field_names(struct rfp_trainer *t)
{
    PyObject *names = PyTuple_New((Py_ssize_t)t->info.n_fields);
    for (uint32_t i = 0; names && i < t->info.n_fields; i++) {
        const char *name = rf_trainer_field_name(t->handle, i);
        PyObject *text = PyUnicode_FromString(name ? name : "");
        if (!text || PyTuple_SetItem(names, (Py_ssize_t)i, text) < 0)
            Py_CLEAR(names);
    }
    return names;
}

static PyObject *trainer_facts(PyObject *self, PyObject *unused)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    (void)unused;
    if (!t->handle) {
        PyErr_SetString(PyExc_ValueError, "this loader was closed. Make another one");
        return NULL;
    }
    PyObject *names = field_names(t);
    PyObject *dataset = names ? rfp_dataset_dict(&t->dataset, names) : NULL;
    Py_XDECREF(names);
    if (!dataset)
        return NULL;
    return Py_BuildValue("{s:s,s:I,s:I,s:I,s:I,s:I,s:K,s:K,s:K,s:K,s:i,s:K,s:N}", "name", t->info.name, "rank",
                         t->info.rank, "world_size", t->info.world_size, "first_rank", t->info.first_rank, "ranks",
                         t->info.ranks, "depth", t->info.depth, "batch", (unsigned long long)t->info.batch, "epochs",
                         (unsigned long long)t->info.epochs, "start_epoch", (unsigned long long)t->info.start_epoch,
                         "arena_bytes", (unsigned long long)t->info.arena_bytes, "server_pid", t->info.server_pid,
                         "len", (unsigned long long)t->info.len, "dataset", dataset);
}

static PyObject *trainer_position(PyObject *self, void *unused)
{
    struct rfp_trainer *t = (struct rfp_trainer *)self;
    (void)unused;
    return Py_BuildValue("(KK)", (unsigned long long)t->epoch, (unsigned long long)t->step);
}

static PyMethodDef trainer_methods[] = {
    {"begin", trainer_begin, METH_VARARGS, "begin(epoch, restart, owner) -> iterator over an epoch"},
    {"seek", trainer_seek, METH_VARARGS, "seek(epoch, step, len)"},
    {"place", trainer_place, METH_VARARGS, "place(epoch, step)"},
    {"prefetch", trainer_prefetch, METH_VARARGS, "prefetch(batches) -> batches ready now"},
    {"report_health", trainer_report, METH_VARARGS, "report_health(samples, seconds)"},
    {"rebalance", trainer_rebalance, METH_NOARGS, "rebalance() -> (moved, why)"},
    {"pin", trainer_pin, METH_VARARGS, "pin(device, fallback)"},
    {"facts", trainer_facts, METH_NOARGS, "facts() -> dict"},
    {"close", trainer_close, METH_O,
     "close(leave): detaches once no batch is held any more; gives the rank up at once if `leave`"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef trainer_members[] = {
    {"timeout_ms", T_INT, offsetof(struct rfp_trainer, timeout_ms), 0, "of a wait; -1: the run's"},
    {"held", T_UINT, offsetof(struct rfp_trainer, held), READONLY, "batches not released"},
    {"layout", T_OBJECT, offsetof(struct rfp_trainer, layout), 0, "how samples look"},
    {"waiting", T_BOOL, offsetof(struct rfp_trainer, waiting), READONLY, "somebody waits for a batch"},
    {"closed", T_BOOL, offsetof(struct rfp_trainer, closed), READONLY, NULL},
    {"pid", T_INT, offsetof(struct rfp_trainer, pid), READONLY, "the process that attached"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef trainer_getset[] = {
    {"position", trainer_position, NULL, "(epoch, step) of the next batch", NULL},
    {"pinned", trainer_pinned, NULL, "[(address, bytes, device; -1: it could not be)]", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot trainer_slots[] = {
    {Py_tp_doc, (void *)"A rank of a running loader."},
    {Py_tp_new, (void *)trainer_new},
    {Py_tp_dealloc, (void *)trainer_dealloc},
    {Py_tp_methods, trainer_methods},
    {Py_tp_members, trainer_members},
    {Py_tp_getset, trainer_getset},
    {0, NULL},
};

static PyType_Spec trainer_spec = {"ringfeed._core.Trainer", sizeof(struct rfp_trainer), 0, Py_TPFLAGS_DEFAULT,
                                   trainer_slots};

int rfp_trainer_init(PyObject *module)
{
    return rfp_add_type(module, &trainer_spec, &trainer_type);
}
