/* The memory of a rank that is registered with CUDA. A ring begins in one arena, and moves to another when a device hangs: each
 * is registered when the first batch from it is given out, which is also late enough for the program to have chosen its
 * GPU, and stays until the trainer detaches. Samples in the resident cache are not: that memory is everybody's. */
#include "core.h"

#include "cuda.h"

struct region {
    unsigned char *base;
    size_t bytes;
    int device; /* -1: it could not be registered, which was said */
};

struct rfp_pin {
    int device, fallback;
    bool warned;
    struct region *regions; /* newest last */
    size_t n;
};

int rfp_pin_ask(struct rfp_trainer *t, int device, int fallback)
{
    t->pin = PyMem_Calloc(1, sizeof *t->pin);
    if (!t->pin) {
        PyErr_NoMemory();
        return -1;
    }
    t->pin->device = device;
    t->pin->fallback = fallback;
    return 0;
}

static bool covered(const struct rfp_pin *p, const unsigned char *at)
{
    for (size_t i = p->n; i-- > 0;)
        if ((size_t)(at - p->regions[i].base) < p->regions[i].bytes)
            return true;
    return false;
}

static int warn(struct rfp_pin *p, const char *why)
{
    if (p->warned)
        return 0;
    p->warned = true;
    return PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                            "pin_memory=True: %s. Batches come as without it, and copies to a device are slower", why);
}

int rfp_pin_cover(struct rfp_trainer *t, const rf_batch *b)
{
    struct rfp_pin *p = t->pin;
    const void *base;
    uint64_t bytes;
    char why[400];
    if (b->resident || covered(p, b->data))
        return 0;
    int rc = rf_batch_arena(t->handle, b, &base, &bytes);
    if (rc < 0) {
        rfp_raise(rc, rf_trainer_error(t->handle));
        return -1;
    }
    struct region *grown = PyMem_Realloc(p->regions, (p->n + 1) * sizeof *grown);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    p->regions = grown;
    struct region *r = &grown[p->n++];
    *r = (struct region){.base = (unsigned char *)(uintptr_t)base, .bytes = bytes, .device = -1};
    if (rfp_cuda_register(r->base, r->bytes, p->device, p->fallback, &r->device, why, sizeof why) < 0)
        return warn(p, why);
    return 0;
}

PyObject *rfp_pin_list(const struct rfp_trainer *t)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && t->pin && i < t->pin->n; i++) {
        const struct region *r = &t->pin->regions[i];
        PyObject *entry =
            Py_BuildValue("(KKi)", (unsigned long long)(uintptr_t)r->base, (unsigned long long)r->bytes, r->device);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

void rfp_pin_end(struct rfp_trainer *t, bool ours)
{
    struct rfp_pin *p = t->pin;
    t->pin = NULL;
    if (!p)
        return;
    for (size_t i = 0; ours && i < p->n; i++)
        if (p->regions[i].device >= 0)
            rfp_cuda_unregister(p->regions[i].base, p->regions[i].device);
    PyMem_Free(p->regions);
    PyMem_Free(p);
}
