/* State of the parent process, private to this folder. */
#pragma once

#include "coordinator/serve.h"
#include "order/order.h"
#include "reader/reader.h"
#include "run/wire.h"
#include "topology/topology.h"
#include "worker/worker.h"

#include <sys/types.h>

/* Life of one worker as the parent sees it; the shared record's state follows.
 *   RUNNING --pidfd readable, reaped--> DRAINING --queue empty, claims freed--> BACKOFF --time--> RUNNING
 *                                                                        \--too many deaths--> GIVEN_UP
 *   RUNNING --asked to stop, exited--> STOPPED */
struct rfi_child {
    pid_t pid;
    int pidfd;
    enum rfi_worker_state state;
    uint32_t deaths_in_row;
    uint64_t batches_at_start; /* published by earlier incarnations */
    uint64_t start_at_ns; /* BACKOFF */
    int drain_fd; /* registered in epoll while DRAINING */
};

struct rfi_lease {
    int sock, pidfd; /* -1: nobody */
    pid_t pid;
    bool ever, goodbye; /* somebody was here at all; it detached in words */
};

enum { RFI_PENDING = 64 };

struct rfi_coordinator {
    const struct rfi_serve_options *o;
    struct rfi_serve_plan plan;
    struct rfi_topology topology;
    struct rfi_placement placement;
    struct rfi_run_view run;
    struct rfi_dataset *dataset; /* on the segment's image */
    const struct rfi_order *order; /* plan.order */
    struct rfi_reader *readers;
    unsigned char **staging;
    struct rfi_worker_setup setup; /* per fork: worker_node changes */
    struct rfi_child *children;
    struct rfi_lease *leases;
    int pending[RFI_PENDING]; /* connections that have not said who they are */
    uint32_t next_pending;
    int epfd, sigfd, listener, parent_pidfd;
    uint64_t rated_ns;
    uint64_t *rated; /* last counts: samples and bytes a rank, then samples a worker */
    bool stopping;
    bool owns; /* the owner mutex is locked */
    int failed; /* negative errno: the run cannot go on */
    struct rfi_error *err;
};

/* Sources in epoll: kind << 32 | index. */
enum rfi_event {
    RFI_EV_SIGNAL,
    RFI_EV_LISTEN,
    RFI_EV_PENDING,
    RFI_EV_SOCK,
    RFI_EV_TRAINER,
    RFI_EV_CHILD,
    RFI_EV_DRAIN,
    RFI_EV_PARENT
};
int rfi_watch(struct rfi_coordinator *c, int fd, enum rfi_event kind, uint32_t index);
void rfi_unwatch(struct rfi_coordinator *c, int fd);

/* birth.c */
int rfi_birth(struct rfi_coordinator *c);
void rfi_death(struct rfi_coordinator *c);

uint64_t rfi_end_ticket(const struct rfi_coordinator *c, uint32_t rank, uint64_t first_ticket, uint64_t epoch);

/* children.c */
int rfi_children_start(struct rfi_coordinator *c);
void rfi_child_exited(struct rfi_coordinator *c, uint32_t worker);
void rfi_children_step(struct rfi_coordinator *c); /* drains and due restarts */
bool rfi_children_busy(const struct rfi_coordinator *c); /* something to step soon */
void rfi_children_stop(struct rfi_coordinator *c);
bool rfi_children_gone(const struct rfi_coordinator *c);
void rfi_children_kill(struct rfi_coordinator *c);

/* leases.c */
int rfi_leases_open(struct rfi_coordinator *c);
void rfi_lease_accept(struct rfi_coordinator *c);
void rfi_lease_pending(struct rfi_coordinator *c, uint32_t index);
void rfi_lease_message(struct rfi_coordinator *c, uint32_t rank);
void rfi_lease_end(struct rfi_coordinator *c, uint32_t rank);
void rfi_lease_died(struct rfi_coordinator *c, uint32_t rank); /* the pidfd said so */
bool rfi_leases_done(const struct rfi_coordinator *c);
void rfi_leases_close(struct rfi_coordinator *c);

/* mirrors.c */
int rfi_mirrors_check(const struct rfi_dataset *d, const char *const *folders, uint32_t n, struct rfi_error *err);

/* rates.c */
void rfi_rates_step(struct rfi_coordinator *c);
