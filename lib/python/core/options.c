/* Keyword arguments into the library's option structs: one table row a field. */
#include "core.h"

#include <stddef.h>
#include <string.h>

enum kind { U64, U32, INT, BOOL, BOOL64, TEXT, WORD, REAL };

/* In the order of the public enums. */
static const char *const strategies[] = {"round-robin", "contiguous", "hash", "range", "stratified", "adaptive", NULL};
static const char *const shuffles[] = {"none", "full", "block", NULL};
static const char *const tails[] = {"uneven", "drop", "pad", NULL};
static const char *const hash_keys[] = {"index", "key", "label", NULL};
static const char *const engines[] = {"auto", "uring", "pread", "null", "mapped", NULL};
static const char *const on_errors[] = {"raise", "skip", "replace", NULL};
static const char *const switches[] = {"auto", "on", "off", NULL};

static const struct row {
    const char *name;
    enum kind kind;
    size_t at;
    const char *const *words;
} rows[] = {
#define DATASET(field) offsetof(struct rfp_options, dataset.field)
#define ORDER(field) offsetof(struct rfp_options, order.field)
#define SERVER(field) offsetof(struct rfp_options, server.field)
    {"format", TEXT, DATASET(format), NULL},
    {"record_bytes", U64, DATASET(record_bytes), NULL},
    {"header_bytes", U64, DATASET(header_bytes), NULL},
    {"labels", TEXT, DATASET(labels), NULL},
    {"label_field", TEXT, DATASET(label_field), NULL},
    {"world_size", U32, ORDER(world_size), NULL},
    {"batch", U64, ORDER(batch), NULL},
    {"strategy", WORD, ORDER(strategy), strategies},
    {"base", WORD, ORDER(base), strategies},
    {"shuffle", WORD, ORDER(shuffle), shuffles},
    {"tail", WORD, ORDER(tail), tails},
    {"seed", U64, ORDER(seed), NULL},
    {"block_samples", U64, ORDER(block_samples), NULL},
    {"window_blocks", U64, ORDER(window_blocks), NULL},
    {"hash_partitions", U64, ORDER(hash_partitions), NULL},
    {"hash_seed", U64, ORDER(hash_seed), NULL},
    {"hash_key", WORD, ORDER(hash_key), hash_keys},
    {"ranges", TEXT, ORDER(ranges), NULL},
    {"allow_gaps", BOOL, ORDER(allow_gaps), NULL},
    {"allow_overlap", BOOL, ORDER(allow_overlap), NULL},
    {"subset", TEXT, ORDER(subset), NULL},
    {"subset_sequence", BOOL64, ORDER(subset_sequence), NULL},
    {"split", TEXT, ORDER(split), NULL},
    {"use", TEXT, ORDER(use), NULL},
    {"classes", U64, ORDER(classes), NULL},
    {"repeat_order", BOOL64, ORDER(repeat_order), NULL},
    {"name", TEXT, SERVER(name), NULL},
    {"ranks", U32, SERVER(ranks), NULL},
    {"first_rank", U32, SERVER(first_rank), NULL},
    {"workers", U32, SERVER(workers), NULL},
    {"epochs", U64, SERVER(epochs), NULL},
    {"start_epoch", U64, SERVER(start_epoch), NULL},
    {"prefetch", U64, SERVER(prefetch), NULL},
    {"ring_bytes", U64, SERVER(ring_bytes), NULL},
    {"queue_depth", U32, SERVER(queue_depth), NULL},
    {"engine", WORD, SERVER(engine), engines},
    {"direct", WORD, SERVER(direct), switches},
    {"pin", WORD, SERVER(pin), switches},
    {"numa", WORD, SERVER(numa), switches},
    {"heartbeat_ms", U32, SERVER(heartbeat_ms), NULL},
    {"max_restarts", U32, SERVER(max_restarts), NULL},
    {"command", TEXT, SERVER(command), NULL},
    {"checkpoint", TEXT, SERVER(checkpoint), NULL},
    {"checkpoint_every", U64, SERVER(checkpoint_every), NULL},
    {"rebalance_threshold", REAL, SERVER(rebalance_threshold), NULL},
    {"rebalance_off", BOOL, SERVER(rebalance_off), NULL},
    {"redistribute", BOOL, SERVER(redistribute), NULL},
    {"hedge_ms", U32, SERVER(hedge_ms), NULL},
    {"on_error", WORD, SERVER(on_error), on_errors},
    {"spares", INT, SERVER(spares), NULL},
    {"replication", U32, SERVER(replication), NULL},
    {"slow_ratio", REAL, SERVER(slow_ratio), NULL},
    {"cache_bytes", U64, SERVER(cache_bytes), NULL},
    {"cpu_budget", U32, SERVER(cpu_budget), NULL},
};

/* A string or path, kept until the options are freed. */
static const char *text(struct rfp_options *o, PyObject *value, const char *name)
{
    PyObject *bytes = NULL;
    if (!PyUnicode_FSConverter(value, &bytes)) {
        PyErr_Format(PyExc_TypeError, "%s: a string or path is needed, not %R", name, value);
        return NULL;
    }
    int rc = PyList_Append(o->keep, bytes);
    Py_DECREF(bytes);
    return rc < 0 ? NULL : PyBytes_AsString(bytes);
}

static int word(PyObject *value, const struct row *row, int *ret)
{
    for (int i = 0; PyUnicode_Check(value) && row->words[i]; i++)
        if (PyUnicode_CompareWithASCIIString(value, row->words[i]) == 0) {
            *ret = i;
            return 0;
        }
    PyObject *list = PyList_New(0), *comma = PyUnicode_FromString(", "), *joined = NULL;
    for (int i = 0; list && row->words[i]; i++) {
        PyObject *w = PyUnicode_FromString(row->words[i]);
        if (!w || PyList_Append(list, w) < 0)
            Py_CLEAR(list);
        Py_XDECREF(w);
    }
    if (list && comma && (joined = PyUnicode_Join(comma, list)))
        PyErr_Format(PyExc_ValueError, "%s=%R: one of %U is needed", row->name, value, joined);
    Py_XDECREF(list);
    Py_XDECREF(comma);
    Py_XDECREF(joined);
    return -1;
}

static int number(PyObject *value, const struct row *row, uint64_t most, uint64_t *ret)
{
    PyObject *index = PyNumber_Index(value);
    if (index)
        *ret = PyLong_AsUnsignedLongLong(index);
    Py_XDECREF(index);
    if (!PyErr_Occurred() && *ret <= most)
        return 0;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s=%R: a whole number from 0 to %llu is needed", row->name, value,
                 (unsigned long long)most);
    return -1;
}

static int set(struct rfp_options *o, const struct row *row, PyObject *value)
{
    char *at = (char *)o + row->at;
    uint64_t n = 0;
    switch (row->kind) {
    case TEXT:
        return (*(const char **)(void *)at = text(o, value, row->name)) ? 0 : -1;
    case WORD:
        return word(value, row, (int *)(void *)at);
    case REAL:
        *(double *)(void *)at = PyFloat_AsDouble(value);
        return PyErr_Occurred() ? -1 : 0;
    case BOOL:
        return (*(int *)(void *)at = PyObject_IsTrue(value)) < 0 ? -1 : 0;
    case BOOL64:
        *(uint64_t *)(void *)at = PyObject_IsTrue(value) > 0;
        return PyErr_Occurred() ? -1 : 0;
    case INT:
        *(int *)(void *)at = (int)PyLong_AsLong(value);
        return PyErr_Occurred() ? -1 : 0;
    case U32:
        if (number(value, row, UINT32_MAX, &n) < 0)
            return -1;
        *(uint32_t *)(void *)at = (uint32_t)n;
        return 0;
    default:
        if (number(value, row, UINT64_MAX, &n) < 0)
            return -1;
        *(uint64_t *)(void *)at = n;
        return 0;
    }
}

/* A sequence of paths. */
static int list(struct rfp_options *o, PyObject *value, const char *name, const char ***ret, size_t *ret_n)
{
    PyObject *items = PySequence_List(value);
    Py_ssize_t n = items ? PyList_Size(items) : -1;
    *ret = n >= 0 ? PyMem_Calloc((size_t)n + 1, sizeof **ret) : NULL;
    for (Py_ssize_t i = 0; *ret && i < n; i++)
        if (!((*ret)[i] = text(o, PyList_GetItem(items, i), name))) {
            n = -1;
            break;
        }
    Py_XDECREF(items);
    if (n < 0 || !*ret)
        return -1;
    *ret_n = (size_t)n;
    return 0;
}

static int set_named(struct rfp_options *o, PyObject *key, PyObject *value)
{
    size_t n = 0;
    int rc;
    if (PyUnicode_CompareWithASCIIString(key, "paths") == 0) {
        rc = list(o, value, "paths", &o->paths, &n);
        o->dataset.paths = o->paths;
        o->dataset.n_paths = n;
        return rc;
    }
    if (PyUnicode_CompareWithASCIIString(key, "resume") == 0) {
        rc = list(o, value, "resume", &o->resume, &n);
        o->server.resume = o->resume;
        o->server.n_resume = n;
        return rc;
    }
    if (PyUnicode_CompareWithASCIIString(key, "mirrors") == 0) {
        rc = list(o, value, "mirrors", &o->mirrors, &n);
        o->server.mirrors = o->mirrors;
        o->server.n_mirrors = n;
        return rc;
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (PyUnicode_CompareWithASCIIString(key, rows[i].name) == 0)
            return set(o, &rows[i], value);
    PyErr_Format(PyExc_TypeError, "no option %R", key);
    return -1;
}

int rfp_options_read(PyObject *dict, struct rfp_options *o)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    *o = (struct rfp_options){.keep = PyList_New(0)};
    rf_dataset_options_init(&o->dataset);
    rf_order_options_init(&o->order);
    rf_server_options_init(&o->server);
    o->server.dataset = &o->dataset;
    o->server.order = &o->order;
    if (!o->keep)
        return -1;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "options are a dict");
        rfp_options_free(o);
        return -1;
    }
    while (PyDict_Next(dict, &at, &key, &value))
        if (value != Py_None && set_named(o, key, value) < 0) {
            rfp_options_free(o);
            return -1;
        }
    return 0;
}

void rfp_options_free(struct rfp_options *o)
{
    Py_CLEAR(o->keep);
    PyMem_Free(o->paths);
    PyMem_Free(o->resume);
    PyMem_Free(o->mirrors);
    o->paths = o->resume = o->mirrors = NULL;
}

PyObject *rfp_order_dict(const rf_order_options *o)
{
    struct rfp_options from = {.order = *o};
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        if (row->at < offsetof(struct rfp_options, order) || row->at >= offsetof(struct rfp_options, server))
            continue;
        const char *at = (const char *)&from + row->at;
        const char *const *string = (const char *const *)(const void *)at;
        PyObject *value = row->kind == TEXT     ? *string ? PyUnicode_DecodeFSDefault(*string) : Py_NewRef(Py_None)
                              : row->kind == WORD ? PyUnicode_FromString(row->words[*(const int *)(const void *)at])
                          : row->kind == BOOL   ? PyBool_FromLong(*(const int *)(const void *)at)
                          : row->kind == BOOL64 ? PyBool_FromLong(*(const uint64_t *)(const void *)at != 0)
                          : row->kind == U32    ? PyLong_FromUnsignedLong(*(const uint32_t *)(const void *)at)
                                                : PyLong_FromUnsignedLongLong(*(const uint64_t *)(const void *)at);
        if (!value || PyDict_SetItemString(dict, row->name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}
