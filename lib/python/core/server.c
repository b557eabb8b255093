/* A loader that was started from here: `ringfeed serve` in a process of its own. */
#include "core.h"

#include <errno.h>
#include <unistd.h>

struct server {
    PyObject ob_base;
    rf_server *handle;
    pid_t pid; /* who started it: only there it is stopped */
};

static PyTypeObject *server_type;

/* Called by rf_server_start without the GIL. */
static int on_wait(void *ctx)
{
    PyThreadState **saved = ctx;
    PyEval_RestoreThread(*saved);
    int stop = PyErr_CheckSignals() < 0;
    *saved = PyEval_SaveThread();
    return stop;
}

/* Server(options, timeout_ms) */
static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *dict;
    int timeout_ms, rc;
    struct rfp_options o;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "Oi", &dict, &timeout_ms) || rfp_options_read(dict, &o) < 0)
        return NULL;
    struct server *s = (struct server *)PyType_GenericAlloc(type, 0);
    if (!s) {
        rfp_options_free(&o);
        return NULL;
    }
    s->pid = getpid();
    PyThreadState *saved = PyEval_SaveThread();
    o.server.on_wait = on_wait;
    o.server.on_wait_ctx = &saved;
    rc = rf_server_start(&o.server, timeout_ms, &s->handle);
    PyEval_RestoreThread(saved);
    rfp_options_free(&o);
    if (rc >= 0)
        return (PyObject *)s;
    rfp_raise(rc, rf_last_error());
    Py_DECREF((PyObject *)s);
    return NULL;
}

static int stop(struct server *s)
{
    rf_server *handle = s->handle;
    int rc = 0;
    s->handle = NULL;
    if (!handle || s->pid != getpid()) /* a forked child's copy is not its to stop */
        return 0;
    PyThreadState *saved = PyEval_SaveThread();
    rc = rf_server_stop(handle);
    PyEval_RestoreThread(saved);
    return rc;
}

static PyObject *server_stop(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(stop((struct server *)self));
}

/* alive() -> whether it still runs */
static PyObject *server_alive(PyObject *self, PyObject *unused)
{
    struct server *s = (struct server *)self;
    int status;
    (void)unused;
    return PyBool_FromLong(s->handle && s->pid == getpid() && rf_server_wait(s->handle, 0, &status) == -ETIMEDOUT);
}

static PyObject *server_pid(PyObject *self, void *unused)
{
    struct server *s = (struct server *)self;
    (void)unused;
    return PyLong_FromLong(s->handle ? rf_server_pid(s->handle) : 0);
}

static void server_dealloc(PyObject *self)
{
    stop((struct server *)self);
    rfp_free_object(self);
}

static PyMethodDef server_methods[] = {
    {"stop", server_stop, METH_NOARGS, "stop() -> exit status"},
    {"alive", server_alive, METH_NOARGS, "alive() -> bool"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef server_getset[] = {
    {"pid", server_pid, NULL, "its process; 0: stopped", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_doc, (void *)"A running `ringfeed serve`; it ends with this object and with this process."},
    {Py_tp_new, (void *)server_new},
    {Py_tp_dealloc, (void *)server_dealloc},
    {Py_tp_methods, server_methods},
    {Py_tp_getset, server_getset},
    {0, NULL},
};

static PyType_Spec server_spec = {"ringfeed._core.Server", sizeof(struct server), 0, Py_TPFLAGS_DEFAULT, server_slots};

int rfp_server_init(PyObject *module)
{
    return rfp_add_type(module, &server_spec, &server_type);
}
