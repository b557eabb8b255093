/* A view: a piece of a batch's memory with the buffer protocol. It is what arrays and tensors have at the end of their
 * chain of bases, so it lives as long as any of them, and the batch as long as it. */
#include "core.h"

struct view {
    PyObject ob_base;
    struct rfp_lease *lease;
    const void *at;
    Py_ssize_t bytes;
    bool writable;
};

static PyTypeObject *view_type;

PyObject *rfp_view_new(struct rfp_lease *l, const void *at, Py_ssize_t bytes, bool writable)
{
    struct view *v = (struct view *)PyType_GenericAlloc(view_type, 0);
    if (!v)
        return NULL;
    static const char nothing[1];
    *v =
        (struct view){.ob_base = v->ob_base, .lease = l, .at = at ? at : nothing, .bytes = bytes, .writable = writable};
    l->refs++;
    l->views++;
    return (PyObject *)v;
}

static void view_dealloc(PyObject *self)
{
    struct view *v = (struct view *)self;
    if (v->lease) {
        v->lease->views--;
        rfp_lease_drop(v->lease);
    }
    rfp_free_object(self);
}

static int view_getbuffer(PyObject *self, Py_buffer *buffer, int flags)
{
    struct view *v = (struct view *)self;
    return PyBuffer_FillInfo(buffer, self, (void *)(uintptr_t)v->at, v->bytes, !v->writable, flags);
}

static Py_ssize_t view_length(PyObject *self)
{
    return ((struct view *)self)->bytes;
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, (void *)"A piece of a batch's memory in the ring. It keeps the batch from being released."},
    {Py_tp_dealloc, (void *)view_dealloc},
    {Py_bf_getbuffer, (void *)view_getbuffer},
    {Py_sq_length, (void *)view_length},
    {0, NULL},
};

static PyType_Spec view_spec = {"ringfeed._core.View", sizeof(struct view), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, view_slots};

int rfp_view_init(PyObject *module)
{
    return rfp_add_type(module, &view_spec, &view_type);
}
