/* ringfeed._core: what its files share. The extension knows the public header and Python's stable ABI, nothing else; it
 * moves no bytes. Everything here runs with the GIL held unless it says so: the GIL is what makes a trainer's handle
 * "for one thread". */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <ringfeed/ringfeed.h>
#include <stdbool.h>
#include <sys/types.h>

/* ---- errors.c ---- */

int rfp_errors_init(PyObject *module);
/* Raises the exception of a negative errno with the library's text; returns NULL. */
PyObject *rfp_raise(int code, const char *text);
/* A place in Python code. Noting one costs a fraction of what finding its line does, which is for messages. */
struct rfp_place {
    PyObject *code, *instruction; /* owned, or NULL */
};

void rfp_place_note(struct rfp_place *p); /* where Python stands now */
void rfp_place_forget(struct rfp_place *p);
/* "FILE:LINE", or "an unknown place". */
void rfp_place_text(const struct rfp_place *p, char *buf, size_t cap);

/* ---- options.c ---- */

struct rfp_options {
    rf_dataset_options dataset;
    rf_order_options order;
    rf_server_options server;
    PyObject *keep; /* list: what the pointers above lead into */
    const char **paths, **resume, **mirrors;
};

/* From a dict of keyword arguments, named as the fields of the structs. -1: an exception is set. */
int rfp_options_read(PyObject *dict, struct rfp_options *o);
void rfp_options_free(struct rfp_options *o);
/* What an order depends on, as a dict that rfp_options_read takes. */
PyObject *rfp_order_dict(const rf_order_options *o);

/* ---- dataset.c ---- */

int rfp_dataset_init(PyObject *module);
PyObject *rfp_dataset_dict(const rf_dataset_info *info, PyObject *field_names);
rf_dataset *rfp_dataset_handle(PyObject *dataset); /* NULL: TypeError or ValueError is set */

/* ---- server.c, state.c, stat.c ---- */

int rfp_server_init(PyObject *module);
int rfp_checkpoint_init(PyObject *module);
rf_checkpoint *rfp_checkpoint_handle(PyObject *checkpoint);
PyObject *rfp_stat(PyObject *module, PyObject *name);

/* ---- trainer.c, next.c ---- */

struct rfp_lease;
struct rfp_copy;
struct rfp_pin;
struct rfp_left;

/* A rank's handle, how far its batches were returned to the user, and what of them is still out. */
struct rfp_trainer {
    PyObject ob_base;
    rf_trainer *handle; /* NULL: detached */
    rf_trainer_info info;
    rf_dataset_info dataset;
    char format[8]; /* of a sample's elements, as in struct; "B": bytes */
    uint32_t n_dims; /* of a whole batch, with the leading one */
    Py_ssize_t shape[17], item_bytes; /* shape[0] is a batch's own */
    PyObject *batch_type;
    allocfunc batch_alloc;
    pid_t pid; /* who attached */
    int timeout_ms;
    bool closed; /* by the user; the handle goes with the last lease */
    bool waiting; /* somebody waits without the GIL: the handle is in use */
    bool warned;
    int wait_rounds;
    PyThreadState *saved; /* of who waits */
    struct rfp_lease *pending; /* given back while somebody waited */
    struct rfp_lease *spare; /* free list */
    uint32_t leases, held; /* alive; of these, not released */
    struct rfp_copy *copies, *last_copy; /* to a device, under way; oldest first */
    uint32_t copying; /* batches that they hold */
    struct rfp_pin *pin; /* NULL: not asked for */
    uint64_t serial; /* of the newest iterator */
    uint64_t epoch, step; /* the next batch that the user gets */
    bool ended; /* the epoch's last batch was returned */
    struct rfp_lease *ahead; /* a batch of a later epoch: this one was shorter than it seemed */
    int writable;
    PyObject *layout; /* how samples look, for ringfeed/_batch.py */
    struct rfp_lease *newest; /* list of the leases that are alive, newest first */
};

int rfp_trainer_init(PyObject *module);
struct rfp_trainer *rfp_trainer_of(PyObject *o);
bool rfp_trainer_is_ours(const struct rfp_trainer *t); /* not a forked child's copy */
/* Makes t->handle, with the GIL let go of while it waits. `busy`: somebody has the rank who is about to leave it. -1: an
 * exception is set. */
int rfp_trainer_attach(struct rfp_trainer *t, const char *name, unsigned rank, int timeout_ms, bool busy);
/* The handle is in use without the GIL: nobody else may use it meanwhile, give batches back through it, or free it. */
PyThreadState *rfp_trainer_let_go(struct rfp_trainer *t);
/* -1: an exception is set, of what was called or because the loader was closed meanwhile. */
int rfp_trainer_take_back(struct rfp_trainer *t, PyThreadState *saved, int rc);
/* Detaches once nobody needs the mapping any more. */
void rfp_trainer_settle(struct rfp_trainer *t);
int rfp_epoch_init(PyObject *module);
/* `owner` lives as long as the iterator. */
PyObject *rfp_epoch_new(struct rfp_trainer *t, uint64_t epoch, PyObject *owner);

/* ---- copies.c ---- */

/* `event` says when a copy from the batch's memory is done; until then the batch is held. */
int rfp_copies_add(struct rfp_lease *l, PyObject *event);
/* Ends what is done. -1: an event's exception is set. */
int rfp_copies_poll(struct rfp_trainer *t);
/* Waits for the oldest. 0: there is none; 1: done; -1: its exception is set. Other threads may have been here meanwhile. */
int rfp_copies_wait(struct rfp_trainer *t);
/* Waits for all, whatever they say. */
void rfp_copies_finish(struct rfp_trainer *t);

/* ---- pin.c ---- */

/* From now on what the trainer gives out lies in memory that is registered with CUDA. `device` -1: chosen, as cuda.h says. */
int rfp_pin_ask(struct rfp_trainer *t, int device, int fallback);
/* Before the batch is given out. Where there is no CUDA: one warning. -1: an exception is set. */
int rfp_pin_cover(struct rfp_trainer *t, const rf_batch *b);
PyObject *rfp_pin_list(const struct rfp_trainer *t); /* [(address, bytes, device)] */
void rfp_pin_end(struct rfp_trainer *t, bool ours); /* not ours: a forked child's copy */

/* ---- renew.c ---- */

/* Makes room in the ring although views lead into held batches: their memory becomes private, and the rank is attached to
 * anew. 1: done; 0: not possible here; -1: an exception is set. */
int rfp_trainer_renew(struct rfp_trainer *t);
void rfp_left_drop(struct rfp_left *left); /* by each of its leases */

/* ---- batch.c, view.c ---- */

/* A batch that was taken, shared by the batch object and all views into it. */
struct rfp_lease {
    uint32_t refs;
    uint32_t views; /* that lead into its memory, copies included */
    uint32_t copies; /* to a device, under way */
    bool released;
    bool shut; /* by the user: given back when the copies are done */
    struct rfp_trainer *trainer; /* owned */
    struct rfp_lease *next; /* in a free list or the pending one */
    struct rfp_lease *older, *newer;
    struct rfp_place taken; /* for messages about who holds what */
    PyObject *batch; /* borrowed; NULL: only views are left */
    void *own; /* memory it was moved to: it no longer has a place in the ring */
    struct rfp_left *left; /* the same: its memory is private, and mapped by a handle that was left */
    rf_batch b;
};

int rfp_batch_init(PyObject *module);
bool rfp_batch_is_type(PyObject *o); /* _core.Batch, or a subclass of it */
struct rfp_lease *rfp_lease_new(struct rfp_trainer *t, const rf_batch *b);
void rfp_lease_drop(struct rfp_lease *l);
/* Gives the batch back, now or when the one who waits has the GIL. */
void rfp_lease_release(struct rfp_lease *l);
/* Makes room in the ring: moves the oldest held batch to memory of its own. 1: done; 0: views lead into it, or nothing is
 * held; -1: an exception is set. */
int rfp_lease_move_oldest(struct rfp_trainer *t);
/* The oldest batch that has a place in the ring and is not given back; NULL: none. */
struct rfp_lease *rfp_lease_oldest(const struct rfp_trainer *t);
/* What was given back while somebody waited. */
void rfp_lease_flush(struct rfp_trainer *t);
PyObject *rfp_batch_new(struct rfp_lease *l); /* takes the reference over, also on failure */

int rfp_view_init(PyObject *module);
PyObject *rfp_view_new(struct rfp_lease *l, const void *at, Py_ssize_t bytes, bool writable);

/* ---- small things ---- */

static inline int rfp_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret)
{
    PyObject *type = PyType_FromSpec(spec);
    if (!type)
        return -1;
    *ret = (PyTypeObject *)type;
    return PyModule_AddType(module, *ret);
}

/* The end of every tp_dealloc here: types are heap types. */
static inline void rfp_free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}
