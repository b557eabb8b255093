/* The trainer's handle, private to this folder. */
#pragma once

#include "base/error.h"
#include "dataset/dataset.h"
#include "run/run.h"

#include <ringfeed/ringfeed.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct rf_trainer {
    struct rfi_run_view run;
    struct rfi_ring ring; /* of our rank, with our page and the bell mapped writable */
    struct rfi_dataset *dataset; /* on the segment's image: names in messages */
    uint32_t local; /* index of our rank on this server */
    uint32_t incarnation;
    int sock;
    uint64_t sock_inode; /* a program may close what it does not know, and the number is somebody else's then */
    uint32_t seq; /* of the last request */
    int exchange_ms; /* how long the server may take to answer */
    bool left; /* the rank was given up, the memory is kept */
    bool broken; /* a request's outcome is unknown: the handle can only be detached */
    const volatile sig_atomic_t *interrupt; /* non-zero: `next` gives up waiting; may be NULL */
    int (*on_wait)(void *ctx); /* asked between slices of a wait; may be NULL */
    void *on_wait_ctx;
    pid_t pid; /* who attached, for messages */
    uint32_t *mark; /* 1 in that process, 0 in its forked children, which may not use the handle */
    uint64_t next; /* ticket that `next` takes */
    uint64_t released; /* every ticket below has been given back */
    struct rfi_epoch_lens lens; /* private copy */
    uint64_t end_ticket, cuts; /* of the newest generation, and at how many cuts it was looked up */
    uint64_t epoch; /* of the last batch taken, or the start epoch */
    bool *given_back; /* [depth] by ticket mod depth: released out of order */
    bool settled; /* the ring does not grow: asked for */
    void *tr_page, *bell_page;
    unsigned char *arena; /* base of our first arena: read-only, or our own writable mapping */
    bool writable; /* asked for: arenas are mapped once more, by us alone */
    void **arena_maps; /* [arenas] our own writable mappings, to unmap; NULL: read-only */
    struct rfi_error err;
};

/* The failure of a handle, for rf_next and friends: keeps the text. */
__attribute__((format(printf, 3, 4))) int rfi_trainer_fail(struct rf_trainer *t, int code, const char *fmt, ...);

/* -EPERM in a forked child, else 0. */
int rfi_trainer_check(struct rf_trainer *t);

/* One exchange with the server: the ring goes to `batch` of `epoch` (SEEK, RESTORE), or another request. *ret_ticket:
 * the reply's ticket; of SEEK and RESTORE the first one of the new content. */
int rfi_trainer_exchange(struct rf_trainer *t, uint32_t op, uint64_t epoch, uint64_t batch, uint64_t *ret_ticket);

/* Goes to `batch` of `epoch` unless the next ticket stands there. */
int rfi_trainer_seek(struct rf_trainer *t, uint32_t op, uint64_t epoch, uint64_t batch);

/* Base of an arena as this handle maps it; a ring leaves its first one when a device hangs. NULL: the error is in
 * the handle. */
unsigned char *rfi_trainer_arena(struct rf_trainer *t, uint32_t arena);

/* Asks the server whether samples are in our sequence of `epoch`; at most RFI_WIRE_INDICES. */
int rfi_trainer_register(struct rf_trainer *t, uint64_t epoch, const uint64_t *indices, size_t n);

/* Connects and asks for the rank. */
int rfi_trainer_connect(struct rf_trainer *t, uint32_t rank, struct rfi_error *err);

/* Whether the number still is our connection. */
bool rfi_trainer_connected(const struct rf_trainer *t);

/* Tells the server that this is a detach and no death. */
void rfi_trainer_goodbye(struct rf_trainer *t);

/* Why the run is over, as an error (the state says it). */
int rfi_trainer_over(struct rf_trainer *t);
