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

static PyMethodDef functions[] = {
    {"version", version, METH_NOARGS, "version() -> str"},
    {"order_options", order_options, METH_O,
     "order_options(options) -> dict: those of the order, all of them, checked"},
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
