/* A dataset in this process, without a server: facts of samples, and their bytes by plain pread. */
#include "core.h"

#include <errno.h>

struct dataset {
    PyObject ob_base;
    rf_dataset *handle;
    rf_dataset_info info;
};

static PyTypeObject *dataset_type;

static PyObject *dataset_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *dict;
    struct rfp_options o;
    int rc;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O", &dict) || rfp_options_read(dict, &o) < 0)
        return NULL;
    struct dataset *d = (struct dataset *)PyType_GenericAlloc(type, 0);
    if (!d) {
        rfp_options_free(&o);
        return NULL;
    }
    PyThreadState *saved = PyEval_SaveThread();
    rc = rf_dataset_open(&o.dataset, &d->handle);
    PyEval_RestoreThread(saved);
    rfp_options_free(&o);
    if (rc < 0) {
        rfp_raise(rc, rf_last_error());
        Py_DECREF((PyObject *)d);
        return NULL;
    }
    rf_dataset_get_info(d->handle, &d->info);
    return (PyObject *)d;
}

static void dataset_dealloc(PyObject *self)
{
    rf_dataset_close(((struct dataset *)self)->handle);
    rfp_free_object(self);
}

rf_dataset *rfp_dataset_handle(PyObject *o)
{
    if (Py_TYPE(o) != dataset_type && !PyType_IsSubtype(Py_TYPE(o), dataset_type)) {
        PyErr_SetString(PyExc_TypeError, "a Dataset is needed");
        return NULL;
    }
    struct dataset *d = (struct dataset *)o;
    if (!d->handle)
        PyErr_SetString(PyExc_ValueError, "this dataset was closed");
    return d->handle;
}

PyObject *rfp_dataset_dict(const rf_dataset_info *i, PyObject *field_names)
{
    PyObject *shape = PyTuple_New((Py_ssize_t)i->n_dims);
    for (uint32_t d = 0; shape && d < i->n_dims; d++) {
        PyObject *size = PyLong_FromUnsignedLongLong(i->shape[d]);
        if (!size || PyTuple_SetItem(shape, (Py_ssize_t)d, size) < 0)
            Py_CLEAR(shape);
    }
    if (!shape)
        return NULL;
    return Py_BuildValue("{s:s,s:K,s:K,s:K,s:K,s:K,s:d,s:K,s:K,s:K,s:K,s:s,s:N,s:s,s:O}", "format", i->format, "files",
                         (unsigned long long)i->files, "samples", (unsigned long long)i->samples, "bytes",
                         (unsigned long long)i->bytes, "min_bytes", (unsigned long long)i->min_bytes, "max_bytes",
                         (unsigned long long)i->max_bytes, "mean_bytes", i->mean_bytes, "fixed_bytes",
                         (unsigned long long)i->fixed_bytes, "classes", (unsigned long long)i->classes, "unlabeled",
                         (unsigned long long)i->unlabeled, "index_bytes", (unsigned long long)i->index_bytes, "dtype",
                         i->dtype, "shape", shape, "fingerprint", i->fingerprint, "fields", field_names);
}

static PyObject *dataset_info(PyObject *self, PyObject *unused)
{
    struct dataset *d = (struct dataset *)self;
    (void)unused;
    if (!rfp_dataset_handle(self))
        return NULL;
    PyObject *names = PyTuple_New((Py_ssize_t)d->info.n_fields);
    for (uint32_t i = 0; names && i < d->info.n_fields; i++) {
        PyObject *name = PyUnicode_FromString(rf_dataset_field_name(d->handle, i));
        if (!name || PyTuple_SetItem(names, (Py_ssize_t)i, name) < 0)
            Py_CLEAR(names);
    }
    PyObject *dict = names ? rfp_dataset_dict(&d->info, names) : NULL;
    Py_XDECREF(names);
    return dict;
}

static Py_ssize_t dataset_length(PyObject *self)
{
    return (Py_ssize_t)((struct dataset *)self)->info.samples;
}

static PyObject *fields_of(rf_dataset *h, uint64_t i, uint32_t n)
{
    rf_field *fields = PyMem_Calloc(n + 1, sizeof *fields);
    PyObject *list = fields ? PyList_New(0) : PyErr_NoMemory();
    int have = list ? rf_dataset_sample_fields(h, i, fields, n) : 0;
    for (int k = 0; list && k < have && (uint32_t)k < n; k++) {
        PyObject *field = Py_BuildValue("(sKK)", fields[k].name, (unsigned long long)fields[k].offset,
                                        (unsigned long long)fields[k].bytes);
        if (!field || PyList_Append(list, field) < 0)
            Py_CLEAR(list);
        Py_XDECREF(field);
    }
    PyMem_Free(fields);
    return list;
}

/* sample(i) -> where it lies, its label, key and fields */
static PyObject *dataset_sample(PyObject *self, PyObject *args)
{
    unsigned long long i;
    rf_sample s;
    rf_dataset *h = rfp_dataset_handle(self);
    if (!h || !PyArg_ParseTuple(args, "K", &i))
        return NULL;
    int rc = rf_dataset_sample(h, i, &s);
    if (rc < 0)
        return rfp_raise(rc, rf_dataset_error(h));
    PyObject *fields = fields_of(h, i, s.n_fields);
    PyObject *file = fields ? PyUnicode_DecodeFSDefault(s.file) : NULL;
    PyObject *label = !file ? NULL : s.has_label ? PyLong_FromLongLong(s.label) : Py_NewRef(Py_None);
    if (!label) {
        Py_XDECREF(fields);
        Py_XDECREF(file);
        return NULL;
    }
    return Py_BuildValue("{s:K,s:N,s:K,s:K,s:K,s:N,s:z,s:N}", "index", i, "file", file, "offset",
                         (unsigned long long)s.offset, "bytes", (unsigned long long)s.bytes, "payload_bytes",
                         (unsigned long long)s.payload_bytes, "label", label, "key", s.key, "fields", fields);
}

/* read(i, field=None, writable=False) -> bytes, or bytearray */
static PyObject *dataset_read(PyObject *self, PyObject *args)
{
    unsigned long long i;
    const char *field = NULL;
    int writable = 0;
    size_t bytes = 0;
    rf_dataset *h = rfp_dataset_handle(self);
    if (!h || !PyArg_ParseTuple(args, "K|zp", &i, &field, &writable))
        return NULL;
    int rc = rf_dataset_read(h, i, field, NULL, 0, &bytes);
    if (rc < 0 && rc != -ENOSPC)
        return rfp_raise(rc, rf_dataset_error(h));
    PyObject *data = writable ? PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)bytes)
                              : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (!data || !bytes)
        return data;
    /* The handle is one thread's: the GIL stays. */
    rc = rf_dataset_read(h, i, field, writable ? PyByteArray_AsString(data) : PyBytes_AsString(data), bytes, &bytes);
    if (rc >= 0)
        return data;
    Py_DECREF(data);
    return rfp_raise(rc, rf_dataset_error(h));
}

static PyObject *dataset_close(PyObject *self, PyObject *unused)
{
    struct dataset *d = (struct dataset *)self;
    (void)unused;
    rf_dataset_close(d->handle);
    d->handle = NULL;
    Py_RETURN_NONE;
}

static PyMethodDef dataset_methods[] = {
    {"info", dataset_info, METH_NOARGS, "info() -> dict"},
    {"sample", dataset_sample, METH_VARARGS, "sample(i) -> dict: where sample i lies"},
    {"read", dataset_read, METH_VARARGS, "read(i, field=None, writable=False) -> bytes or bytearray"},
    {"close", dataset_close, METH_NOARGS, "Closes its files."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot dataset_slots[] = {
    {Py_tp_doc, (void *)"A dataset, opened by this process."},
    {Py_tp_new, (void *)dataset_new},
    {Py_tp_dealloc, (void *)dataset_dealloc},
    {Py_tp_methods, dataset_methods},
    {Py_sq_length, (void *)dataset_length},
    {0, NULL},
};

static PyType_Spec dataset_spec = {"ringfeed._core.Dataset", sizeof(struct dataset), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, dataset_slots};

int rfp_dataset_init(PyObject *module)
{
    return rfp_add_type(module, &dataset_spec, &dataset_type);
}
