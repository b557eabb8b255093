/* A batch as Python has it: its facts, and views of its memory. What arrays are made of them is the business of
 * ringfeed/_batch.py, whose Batch is a subclass of this one. */
#include "core.h"

#include <structmember.h>

struct batch {
    PyObject ob_base;
    struct rfp_lease *lease;
};

static PyTypeObject *batch_type;

bool rfp_batch_is_type(PyObject *o)
{
    return PyType_Check(o) && PyType_IsSubtype((PyTypeObject *)o, batch_type);
}

PyObject *rfp_batch_new(struct rfp_lease *l)
{
    struct rfp_trainer *t = l->trainer;
    struct batch *b = (struct batch *)t->batch_alloc((PyTypeObject *)t->batch_type, 0);
    if (!b) {
        rfp_lease_drop(l);
        return NULL;
    }
    b->lease = l;
    l->batch = (PyObject *)b;
    return (PyObject *)b;
}

static void batch_dealloc(PyObject *self)
{
    struct batch *b = (struct batch *)self;
    if (b->lease) {
        b->lease->batch = NULL;
        rfp_lease_drop(b->lease);
    }
    rfp_free_object(self);
}

/* The lease while there is memory to look at, else an exception. */
static struct rfp_lease *open_lease(PyObject *self)
{
    struct rfp_lease *l = ((struct batch *)self)->lease;
    if (l && !l->released && !l->shut)
        return l;
    if (l)
        PyErr_Format(
            PyExc_ValueError,
            "batch %llu of epoch %llu was released: its memory holds another batch now. Use it before, or keep "
            "a batch.copy()",
            (unsigned long long)l->b.batch, (unsigned long long)l->b.epoch);
    else
        PyErr_SetString(PyExc_ValueError, "a batch that no loader has given");
    return NULL;
}

static Py_ssize_t batch_length(PyObject *self)
{
    struct rfp_lease *l = ((struct batch *)self)->lease;
    return l ? (Py_ssize_t)l->b.n_samples : 0;
}

/* A view of a piece of the samples' memory, or NULL with an exception. */
static PyObject *piece(struct rfp_lease *l, uint64_t offset, uint64_t bytes, int writable)
{
    if (offset > l->b.data_bytes || bytes > l->b.data_bytes - offset || bytes > PY_SSIZE_T_MAX)
        return PyErr_Format(PyExc_IndexError, "%llu bytes at %llu do not lie in the batch's %llu",
                            (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)l->b.data_bytes);
    if (writable && l->b.resident)
        return PyErr_Format(PyExc_BufferError, "samples in the resident cache are everybody's: they cannot be written");
    if (writable && !l->trainer->writable && !l->own)
        return PyErr_Format(PyExc_BufferError, "this rank's memory was attached read-only");
    return rfp_view_new(l, l->b.data + offset, (Py_ssize_t)bytes, writable);
}

/* _view(offset, bytes, writable=False) */
static PyObject *batch_view(PyObject *self, PyObject *args)
{
    unsigned long long offset, bytes;
    int writable = 0;
    struct rfp_lease *l = open_lease(self);
    if (!l || !PyArg_ParseTuple(args, "KK|p", &offset, &bytes, &writable))
        return NULL;
    return piece(l, offset, bytes, writable);
}

/* _samples(writable): all of a batch of equal samples. */
static PyObject *batch_samples(PyObject *self, PyObject *writable)
{
    struct rfp_lease *l = open_lease(self);
    int write = PyObject_IsTrue(writable);
    if (!l || write < 0)
        return NULL;
    return piece(l, l->b.n_samples ? l->b.offsets[0] : 0, l->b.n_samples * l->b.fixed_bytes, write);
}

/* _array(name): one of the batch's arrays of numbers as a view, or None. */
static PyObject *batch_array(PyObject *self, PyObject *name)
{
    struct rfp_lease *l = open_lease(self);
    const rf_batch *b = l ? &l->b : NULL;
    if (!l)
        return NULL;
    const struct {
        const char *name;
        const void *at;
        size_t bytes; /* a sample */
    } arrays[] = {
        {"ids", b->ids, 8},
        {"labels", b->labels, 8},
        {"offsets", b->offsets, 8},
        {"lengths", b->lengths, 8},
        {"flags", b->flags, 1},
        {"field_offsets", b->field_offsets, 8 * (size_t)b->n_fields},
        {"field_lengths", b->field_lengths, 8 * (size_t)b->n_fields},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (PyUnicode_CompareWithASCIIString(name, arrays[i].name) != 0)
            continue;
        if (!arrays[i].at)
            Py_RETURN_NONE;
        return rfp_view_new(l, arrays[i].at, (Py_ssize_t)(b->n_samples * arrays[i].bytes), false);
    }
    PyErr_Format(PyExc_KeyError, "a batch has no array %R", name);
    return NULL;
}

static PyObject *batch_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct rfp_lease *l = ((struct batch *)self)->lease;
    if (l && !l->released && l->views > l->copies)
        return PyErr_Format(
            PyExc_BufferError,
            "batch %llu of epoch %llu cannot be released: %u arrays, tensors or memoryviews of it are still "
            "alive. Delete them (del), or keep a batch.copy() in their place",
            (unsigned long long)l->b.batch, (unsigned long long)l->b.epoch, l->views - l->copies);
    if (l && l->copies)
        l->shut = true;
    else if (l)
        rfp_lease_release(l);
    Py_RETURN_NONE;
}

/* release_after(event): the batch is held until `event` is done, whatever becomes of its views. */
static PyObject *batch_release_after(PyObject *self, PyObject *event)
{
    struct rfp_lease *l = open_lease(self);
    if (!l)
        return NULL;
    if (!PyObject_HasAttrString(event, "query") || !PyObject_HasAttrString(event, "synchronize"))
        return PyErr_Format(PyExc_TypeError,
                            "an event with query() and synchronize() is needed, as torch.cuda.Event, not %R",
                            (PyObject *)Py_TYPE(event));
    if (rfp_copies_add(l, event) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *batch_facts(PyObject *self, void *which)
{
    struct rfp_lease *l = ((struct batch *)self)->lease;
    if (!l)
        return PyErr_Format(PyExc_ValueError, "a batch that no loader has given");
    switch ((intptr_t)which) {
    case 0:
        return PyLong_FromUnsignedLongLong(l->b.epoch);
    case 1:
        return PyLong_FromUnsignedLongLong(l->b.batch);
    case 2:
        return PyLong_FromUnsignedLongLong(l->b.skipped);
    case 3:
        return PyLong_FromUnsignedLongLong(l->b.fixed_bytes);
    case 4:
        return PyLong_FromUnsignedLong(l->b.n_fields);
    case 5:
        return PyBool_FromLong(l->b.last != 0);
    case 6:
        return PyBool_FromLong(l->b.resident != 0);
    case 7:
        return PyBool_FromLong(l->released || l->shut);
    case 8:
        return PyBool_FromLong(l->b.labels != NULL);
    case 9:
        return PyLong_FromUnsignedLong(l->views);
    default:
        return Py_NewRef((PyObject *)l->trainer);
    }
}

/* ---- buffer protocol: a batch of equal samples is one array ---- */

static int batch_getbuffer(PyObject *self, Py_buffer *v, int flags)
{
    struct rfp_lease *l = open_lease(self);
    v->obj = NULL;
    if (!l)
        return -1;
    struct rfp_trainer *t = l->trainer;
    if (!l->b.fixed_bytes || l->b.n_fields > 1) {
        PyErr_SetString(PyExc_BufferError,
                        "the samples of this batch are not one array: they differ in size, or have several fields. Use "
                        "batch.data or batch.fields");
        return -1;
    }
    const unsigned char *at = l->b.n_samples ? l->b.data + l->b.offsets[0] : l->b.data;
    Py_ssize_t bytes = (Py_ssize_t)(l->b.n_samples * l->b.fixed_bytes);
    if (PyBuffer_FillInfo(v, self, (void *)(uintptr_t)at, bytes, 1, flags) < 0)
        return -1;
    l->refs++;
    l->views++;
    v->internal = NULL;
    if ((flags & PyBUF_ND) != PyBUF_ND)
        return 0;
    Py_ssize_t *dims = PyMem_Malloc(2 * t->n_dims * sizeof *dims);
    if (!dims) {
        PyBuffer_Release(v);
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t stride = t->item_bytes;
    for (uint32_t i = t->n_dims; i-- > 0;) {
        dims[i] = i ? t->shape[i] : (Py_ssize_t)l->b.n_samples;
        dims[t->n_dims + i] = stride;
        stride *= dims[i];
    }
    v->internal = dims;
    v->ndim = (int)t->n_dims;
    v->shape = dims;
    v->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? dims + t->n_dims : NULL;
    v->itemsize = t->item_bytes;
    v->format = (flags & PyBUF_FORMAT) == PyBUF_FORMAT ? t->format : NULL;
    return 0;
}

static void batch_releasebuffer(PyObject *self, Py_buffer *v)
{
    struct rfp_lease *l = ((struct batch *)self)->lease;
    PyMem_Free(v->internal);
    l->views--;
    rfp_lease_drop(l);
}

static PyMethodDef batch_methods[] = {
    {"_view", batch_view, METH_VARARGS, "_view(offset, bytes, writable=False)"},
    {"_samples", batch_samples, METH_O, "_samples(writable)"},
    {"_array", batch_array, METH_O, "_array(name)"},
    {"release", batch_release, METH_NOARGS, "Gives the batch's place in the ring back, now."},
    {"release_after", batch_release_after, METH_O,
     "release_after(event): what has begun to copy from this batch's memory ends with `event` (recorded, with query() "
     "and "
     "synchronize()); the place is not given back before, even when the batch is deleted or released."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef batch_getset[] = {
    {"epoch", batch_facts, NULL, "The epoch this batch is of.", (void *)0},
    {"step", batch_facts, NULL, "The batch's number in its epoch, from 0.", (void *)1},
    {"skipped", batch_facts, NULL, "Samples that could not be read and were left out (on_error='skip').", (void *)2},
    {"_fixed_bytes", batch_facts, NULL, NULL, (void *)3},
    {"_n_fields", batch_facts, NULL, NULL, (void *)4},
    {"last", batch_facts, NULL, "Whether this is the epoch's last batch.", (void *)5},
    {"resident", batch_facts, NULL, "Whether the samples lie in the cache that all ranks share.", (void *)6},
    {"released", batch_facts, NULL, "Whether release() was called.", (void *)7},
    {"_has_labels", batch_facts, NULL, NULL, (void *)8},
    {"_views", batch_facts, NULL, NULL, (void *)9},
    {"_trainer", batch_facts, NULL, NULL, (void *)10},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot batch_slots[] = {
    {Py_tp_doc, (void *)"A batch in the ring."},
    {Py_tp_dealloc, (void *)batch_dealloc},
    {Py_tp_methods, batch_methods},
    {Py_tp_getset, batch_getset},
    {Py_sq_length, (void *)batch_length},
    {Py_bf_getbuffer, (void *)batch_getbuffer},
    {Py_bf_releasebuffer, (void *)batch_releasebuffer},
    {0, NULL},
};

static PyType_Spec batch_spec = {"ringfeed._core.Batch", sizeof(struct batch), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, batch_slots};

int rfp_batch_init(PyObject *module)
{
    return rfp_add_type(module, &batch_spec, &batch_type);
}
