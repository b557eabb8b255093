/* Copies to a device that are under way. Each holds its batch until its event is done, like a view: the batch object and its
 * tensors may be gone by then. Events are anything with query() and synchronize(), as torch.cuda.Event has. They are
 * looked at whenever the next batch is asked for, oldest first, and waited for when there is no other way to make room and at
 * the end; never in a forked child, for which there is no device. */
#include "core.h"

struct rfp_copy {
    struct rfp_lease *lease; /* a reference */
    PyObject *event;
    struct rfp_copy *next;
};

int rfp_copies_add(struct rfp_lease *l, PyObject *event)
{
    struct rfp_trainer *t = l->trainer;
    struct rfp_copy *c = PyMem_Malloc(sizeof *c);
    if (!c) {
        PyErr_NoMemory();
        return -1;
    }
    *c = (struct rfp_copy){.lease = l, .event = Py_NewRef(event)};
    l->refs++;
    l->views++;
    if (l->copies++ == 0)
        t->copying++;
    *(t->copies ? &t->last_copy->next : &t->copies) = c;
    t->last_copy = c;
    return 0;
}

/* Out of the list first: an event's methods are Python, and may come back here. */
static struct rfp_copy *take_first(struct rfp_trainer *t)
{
    struct rfp_copy *c = t->copies;
    if (c)
        t->copies = c->next;
    return c;
}

static void put_back(struct rfp_trainer *t, struct rfp_copy *c)
{
    if (!t->copies)
        t->last_copy = c;
    c->next = t->copies;
    t->copies = c;
}

static void end(struct rfp_copy *c)
{
    struct rfp_lease *l = c->lease;
    l->views--;
    if (--l->copies == 0) {
        l->trainer->copying--;
        if (l->shut)
            rfp_lease_release(l);
    }
    rfp_lease_drop(l);
    Py_DECREF(c->event);
    PyMem_Free(c);
}

int rfp_copies_poll(struct rfp_trainer *t)
{
    struct rfp_copy *c;
    while (rfp_trainer_is_ours(t) && (c = take_first(t))) {
        PyObject *answer = PyObject_CallMethod(c->event, "query", NULL);
        int done = answer ? PyObject_IsTrue(answer) : -1;
        Py_XDECREF(answer);
        if (done == 0) {
            put_back(t, c);
            return 0;
        }
        end(c);
        if (done < 0)
            return -1;
    }
    return 0;
}

int rfp_copies_wait(struct rfp_trainer *t)
{
    struct rfp_copy *c = rfp_trainer_is_ours(t) ? take_first(t) : NULL;
    if (!c)
        return 0;
    PyObject *done = PyObject_CallMethod(c->event, "synchronize", NULL);
    Py_XDECREF(done);
    end(c);
    return done ? 1 : -1;
}

void rfp_copies_finish(struct rfp_trainer *t)
{
    PyObject *kind, *raised, *trace;
    PyErr_Fetch(&kind, &raised, &trace);
    while (t->copies && rfp_trainer_is_ours(t))
        if (rfp_copies_wait(t) < 0)
            PyErr_WriteUnraisable((PyObject *)t);
    PyErr_Restore(kind, raised, trace);
}
