/* import ringfeed._core */
#include "core.h"

static PyObject *version(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(rf_version());
}

static PyObject *order_options(PyObject *module, PyObject *dict)
{
    struct rfp_options o;
    (void)module;
    if (rfp_options_read(dict, &o) < 0)
        return NULL;
    int rc = rf_order_validate(&o.order);
    PyObject *order = rc < 0 ? rfp_raise(rc, rf_last_error()) : rfp_order_dict(&o.order);
    rfp_options_free(&o);
    return order;
}

static PyObject *remove_dead(PyObject *module, PyObject *name)
{
    PyObject *text = PyUnicode_AsUTF8String(name);
    int rc = text ? rf_remove_dead(PyBytes_AsString(text)) : 0;
    (void)module;
    if (!text)
        return NULL;
    Py_DECREF(text);
    if (rc < 0)
        return rfp_raise(rc, rf_last_error());
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"version", version, METH_NOARGS, "version() -> str"},
    {"order_options", order_options, METH_O,
     "order_options(options) -> dict: those of the order, all of them, checked"},
    {"remove_dead", remove_dead, METH_O, "remove_dead(name): what a killed server left"},
    {"stat", rfp_stat, METH_O, "stat(name) -> dict: one reading of a running loader"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "ringfeed._core", "The C part of ringfeed.", -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *m = PyModule_Create(&definition);
    if (!m)
        return NULL;
    if (rfp_errors_init(m) < 0 || rfp_dataset_init(m) < 0 || rfp_server_init(m) < 0 || rfp_checkpoint_init(m) < 0 ||
        rfp_view_init(m) < 0 || rfp_batch_init(m) < 0 || rfp_epoch_init(m) < 0 || rfp_trainer_init(m) < 0) {
        Py_DECREF(m);
        return NULL;
    }
    return m;
}
