/* Checkpoints: what state_dict and load_state_dict are made of. */
#include "core.h"

struct checkpoint {
    PyObject ob_base;
    rf_checkpoint *handle;
};

static PyTypeObject *checkpoint_type;

static PyObject *adopt(rf_checkpoint *c)
{
    struct checkpoint *o = (struct checkpoint *)PyType_GenericAlloc(checkpoint_type, 0);
    if (!o) {
        rf_checkpoint_close(c);
        return NULL;
    }
    o->handle = c;
    return (PyObject *)o;
}

rf_checkpoint *rfp_checkpoint_handle(PyObject *o)
{
    if (Py_TYPE(o) == checkpoint_type)
        return ((struct checkpoint *)o)->handle;
    PyErr_SetString(PyExc_TypeError, "a Checkpoint is needed");
    return NULL;
}

static void checkpoint_dealloc(PyObject *self)
{
    rf_checkpoint_close(((struct checkpoint *)self)->handle);
    rfp_free_object(self);
}

static PyObject *taken(int rc, rf_checkpoint *c)
{
    return rc < 0 ? rfp_raise(rc, rf_last_error()) : adopt(c);
}

/* Checkpoint.take(name): of a running loader. */
static PyObject *checkpoint_take(PyObject *type, PyObject *args)
{
    const char *name;
    rf_checkpoint *c = NULL;
    int rc;
    (void)type;
    if (!PyArg_ParseTuple(args, "s", &name))
        return NULL;
    PyThreadState *saved = PyEval_SaveThread();
    rc = rf_checkpoint_take(name, &c);
    PyEval_RestoreThread(saved);
    return taken(rc, c);
}

/* Checkpoint.make(dataset, order, before, epoch, step) */
static PyObject *checkpoint_make(PyObject *type, PyObject *args)
{
    PyObject *dataset, *order, *before;
    unsigned long long epoch, step;
    struct rfp_options o;
    rf_checkpoint *c = NULL, *from = NULL;
    (void)type;
    if (!PyArg_ParseTuple(args, "OOOKK", &dataset, &order, &before, &epoch, &step))
        return NULL;
    rf_dataset *d = rfp_dataset_handle(dataset);
    if (!d || (before != Py_None && !(from = rfp_checkpoint_handle(before))) || rfp_options_read(order, &o) < 0)
        return NULL;
    int rc = rf_order_validate(&o.order);
    if (rc == 0)
        rc = rf_checkpoint_make(d, &o.order, from, epoch, step, &c);
    rfp_options_free(&o);
    return taken(rc, c);
}

static PyObject *checkpoint_save(PyObject *self, PyObject *args)
{
    PyObject *path = NULL;
    int rc;
    rf_checkpoint *c = rfp_checkpoint_handle(self);
    if (!PyArg_ParseTuple(args, "O&", PyUnicode_FSConverter, &path))
        return NULL;
    PyThreadState *saved = PyEval_SaveThread();
    rc = rf_checkpoint_save(c, PyBytes_AsString(path));
    PyEval_RestoreThread(saved);
    Py_DECREF(path);
    if (rc < 0)
        return rfp_raise(rc, rf_last_error());
    Py_RETURN_NONE;
}

static PyObject *checkpoint_order(PyObject *self, PyObject *unused)
{
    rf_order_options o;
    (void)unused;
    rf_checkpoint_order(rfp_checkpoint_handle(self), &o);
    return rfp_order_dict(&o);
}

/* rank(r) -> (epoch, step) */
static PyObject *checkpoint_rank(PyObject *self, PyObject *args)
{
    rf_checkpoint_position at;
    rf_checkpoint *c = rfp_checkpoint_handle(self);
    unsigned rank;
    if (!PyArg_ParseTuple(args, "I", &rank))
        return NULL;
    int rc = rf_checkpoint_rank(c, rank, &at);
    if (rc < 0)
        return rfp_raise(rc, rf_checkpoint_error(c));
    return Py_BuildValue("(KK)", (unsigned long long)at.epoch, (unsigned long long)at.batch);
}

static PyObject *checkpoint_stages(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(rf_checkpoint_stages(rfp_checkpoint_handle(self)));
}

static PyMethodDef checkpoint_methods[] = {
    {"take", checkpoint_take, METH_VARARGS | METH_STATIC, "take(name): where a run stands"},
    {"make", checkpoint_make, METH_VARARGS | METH_STATIC,
     "make(dataset, order, before, epoch, step): as if every rank had done so many batches"},
    {"save", checkpoint_save, METH_VARARGS, "save(path): atomically"},
    {"rank", checkpoint_rank, METH_VARARGS, "rank(r) -> (epoch, step)"},
    {"order", checkpoint_order, METH_NOARGS, "order() -> dict of the order's options"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef checkpoint_getset[] = {
    {"stages", checkpoint_stages, NULL, "how many world sizes it has seen that still count", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot checkpoint_slots[] = {
    {Py_tp_doc, (void *)"Where a run stands."},
    {Py_tp_dealloc, (void *)checkpoint_dealloc},
    {Py_tp_methods, checkpoint_methods},
    {Py_tp_getset, checkpoint_getset},
    {0, NULL},
};

static PyType_Spec checkpoint_spec = {"ringfeed._core.Checkpoint", sizeof(struct checkpoint), 0,
                                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, checkpoint_slots};

int rfp_checkpoint_init(PyObject *module)
{
    return rfp_add_type(module, &checkpoint_spec, &checkpoint_type);
}
