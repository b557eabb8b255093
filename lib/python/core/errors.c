/* Negative errnos as Python exceptions. Each is an OSError with the errno, a RuntimeError, and what Python's own code
 * would expect for that errno. */
#include "core.h"

#include <errno.h>
#include <stdio.h>

static PyObject *general, *timeout, *value, *not_found;

static int add(PyObject *module, const char *name, const char *doc, PyObject *a, PyObject *b, PyObject **ret)
{
    char full[64];
    snprintf(full, sizeof full, "ringfeed.%s", name);
    PyObject *bases = PyTuple_Pack(2, a, b);
    *ret = bases ? PyErr_NewExceptionWithDoc(full, doc, bases, NULL) : NULL;
    Py_XDECREF(bases);
    return *ret ? PyModule_AddObjectRef(module, name, *ret) : -1;
}

int rfp_errors_init(PyObject *m)
{
    if (add(m, "RingfeedError", "Something ringfeed could not do. `errno` and `strerror` say what.", PyExc_OSError,
            PyExc_RuntimeError, &general) < 0)
        return -1;
    if (add(m, "RingfeedTimeout", "A wait was over; the text names who was waited for.", general, PyExc_TimeoutError,
            &timeout) < 0)
        return -1;
    if (add(m, "RingfeedValueError", "Options that cannot be, or a checkpoint of something else.", general,
            PyExc_ValueError, &value) < 0)
        return -1;
    return add(m, "RingfeedNotFound", "No such dataset, or no such run.", general, PyExc_FileNotFoundError, &not_found);
}

PyObject *rfp_raise(int code, const char *text)
{
    int number = code < 0 ? -code : EIO;
    PyObject *type = number == ETIMEDOUT                                       ? timeout
                     : number == ENOENT                                        ? not_found
                     : number == EINVAL || number == ERANGE || number == E2BIG ? value
                                                                               : general;
    if (PyErr_Occurred()) /* of a callback of ours, which ended the call */
        return NULL;
    PyObject *error = PyObject_CallFunction(type, "is", number, text && *text ? text : "ringfeed failed");
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

void rfp_place_note(struct rfp_place *p)
{
    static PyObject *f_lasti;
    PyFrameObject *frame = PyEval_GetFrame();
    if (!f_lasti)
        f_lasti = PyUnicode_InternFromString("f_lasti");
    if (!frame || !f_lasti)
        return;
    p->code = (PyObject *)PyFrame_GetCode(frame);
    p->instruction = PyObject_GetAttr((PyObject *)frame, f_lasti);
    if (!p->instruction)
        PyErr_Clear();
}

void rfp_place_forget(struct rfp_place *p)
{
    Py_CLEAR(p->code);
    Py_CLEAR(p->instruction);
}

/* The line of an instruction, from the code's own table of (first, end, line). */
static long line_of(PyObject *code, long instruction)
{
    long first, end, line = 0, found = 0;
    PyObject *lines = PyObject_CallMethod(code, "co_lines", NULL), *entry;
    while (lines && !found && (entry = PyIter_Next(lines))) {
        PyObject *number = PyTuple_GetItem(entry, 2);
        first = PyLong_AsLong(PyTuple_GetItem(entry, 0));
        end = PyLong_AsLong(PyTuple_GetItem(entry, 1));
        line = number && number != Py_None ? PyLong_AsLong(number) : line;
        if (first <= instruction && instruction < end)
            found = line;
        Py_DECREF(entry);
    }
    Py_XDECREF(lines);
    return found;
}

void rfp_place_text(const struct rfp_place *p, char *buf, size_t cap)
{
    PyObject *kind, *raised, *trace;
    PyErr_Fetch(&kind, &raised, &trace);
    PyObject *file = p->code ? PyObject_GetAttrString(p->code, "co_filename") : NULL;
    const char *name = file && PyUnicode_Check(file) ? PyUnicode_AsUTF8AndSize(file, NULL) : NULL;
    if (name && p->instruction)
        snprintf(buf, cap, "%s:%ld", name, line_of(p->code, PyLong_AsLong(p->instruction)));
    else
        snprintf(buf, cap, "an unknown place");
    Py_XDECREF(file);
    PyErr_Restore(kind, raised, trace);
}
