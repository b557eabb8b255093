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
 *   RUNNING --asked to stop, exited--> STOPPED
 * Killed for a hang and not reaped, or not drained, within the limit: its queue is retired (retire.c), it gets a
 * spare one and stays DRAINING until no ring has a claim of it, then BACKOFF as above. */
struct rfi_child {
    pid_t pid;
    int pidfd;
    enum rfi_worker_state state;
    uint32_t deaths_in_row;
    uint64_t batches_at_start; /* published by earlier incarnations */
    uint64_t start_at_ns; /* BACKOFF */
    int drain_fd; /* registered in epoll while DRAINING */
    uint64_t fenced_ns; /* killed for a hang at this time and not reaped yet; 0: not */
    uint64_t draining_ns; /* since then */
    bool retired; /* DRAINING: has a spare queue already, waits for rings to move */
    bool stuck; /* its queue should be retired and there is no spare */
};

struct rfi_lease {
    int sock, pidfd; /* -1: nobody */
    pid_t pid;
    bool ever, goodbye; /* somebody was here at all; it detached in words */
    bool settled; /* its ring does not grow: the trainer has told a device where it is */
    bool to_redistribute; /* given up, and what it left is not dealt yet */
};

/* What one ring has before it in its epoch, in batches. */
struct rfi_outlook {
    uint64_t epoch, released; /* a ticket */
    uint64_t left, movable; /* not released; not even claimed */
    uint64_t len; /* of the rank's epoch */
    bool over; /* the ring is behind its last epoch */
};

/* Throughput of one rank. */
struct rfi_measured {
    uint64_t since_ns, released, epoch; /* the window; since_ns 0: none is open */
    double rate; /* batches a second, smoothed; 0: not known */
};

enum { RFI_PENDING = 64 };

struct rfi_coordinator {
    const struct rfi_serve_options *o;
    struct rfi_serve_plan plan;
    struct rfi_topology topology;
    struct rfi_placement placement;
    uint32_t *keepers; /* [ranks][replication]: workers, the primary first */
    struct rfi_run_view run;
    struct rfi_dataset *dataset; /* on the segment's image */
    const struct rfi_order *order; /* plan.order */
    struct rfi_view *view; /* on it, once somebody asks where a sample is */
    struct rfi_reader *readers;
    unsigned char **staging;
    struct rfi_worker_setup setup; /* per fork: worker_node changes */
    struct rfi_child *children;
    struct rfi_engine *engine; /* engine.c */
    struct rfi_hang *hang; /* hang.c */
    struct rfi_tuner *tuner; /* tune.c */
    struct rfi_spares *spares; /* retire.c */
    struct rfi_growth *growth; /* [ranks]; grow.c */
    struct rfi_judge *judge; /* status.c */
    struct rfi_lease *leases;
    int pending[RFI_PENDING]; /* connections that have not said who they are */
    uint32_t next_pending;
    int epfd, sigfd, listener, parent_pidfd;
    uint64_t rated_ns;
    uint64_t *rated; /* last counts: samples and bytes a rank, then samples a worker */
    struct rfi_measured *measured; /* [ranks] */
    uint64_t looked_ns, moved_ns, moved_epoch; /* moved_epoch: the epoch after the one with the last move */
    uint32_t above; /* looks in a row that found the imbalance above the threshold */
    uint64_t saved_samples; /* released here when the last checkpoint was written */
    bool stopping;
    bool owns; /* the owner mutex is locked */
    bool bound; /* the arenas were bound to their nodes */
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
    RFI_EV_PARENT,
    RFI_EV_TRIAL
};
int rfi_watch(struct rfi_coordinator *c, int fd, enum rfi_event kind, uint32_t index);
void rfi_unwatch(struct rfi_coordinator *c, int fd);

/* birth.c */
int rfi_birth(struct rfi_coordinator *c);
void rfi_death(struct rfi_coordinator *c);

uint64_t rfi_end_ticket(const struct rfi_coordinator *c, uint32_t rank, uint64_t first_ticket, uint64_t epoch,
                        uint64_t batch);

/* children.c */
int rfi_children_start(struct rfi_coordinator *c);
void rfi_child_exited(struct rfi_coordinator *c, uint32_t worker);
void rfi_children_step(struct rfi_coordinator *c); /* drains and due restarts */
bool rfi_children_busy(const struct rfi_coordinator *c); /* something to step soon */
void rfi_children_stop(struct rfi_coordinator *c);
bool rfi_children_gone(const struct rfi_coordinator *c);
void rfi_children_kill(struct rfi_coordinator *c);

void rfi_child_fence(struct rfi_coordinator *c, uint32_t worker, const char *why); /* SIGKILL; reaped as any death */

void rfi_child_drained(struct rfi_coordinator *c, uint32_t worker); /* no ring has a claim of it any more */

/* retire.c: io_urings whose reads do not end, spares, moves of rings to fresh arenas */
int rfi_spares_open(struct rfi_coordinator *c);
void rfi_spares_close(struct rfi_coordinator *c);
/* A dead worker's queue is taken out of service; false: there is no spare one (said once, told to trainers). */
bool rfi_spares_retire(struct rfi_coordinator *c, uint32_t worker);
bool rfi_spares_moving(const struct rfi_coordinator *c, uint32_t worker); /* some ring still has its claims */
void rfi_spares_answered(struct rfi_coordinator *c, uint32_t worker); /* drained after all, without a spare */
/* The ring's arena as far as `bytes`, a part a call. 1: all there; 0: not yet; negative: no room, see *err. */
int rfi_spares_widen(struct rfi_coordinator *c, uint32_t ring, uint64_t bytes, struct rfi_error *err);
bool rfi_spares_calm(const struct rfi_coordinator *c); /* nothing that a step could further now */
void rfi_spares_step(struct rfi_coordinator *c);

/* engine.c: copies out of the page cache or not, O_DIRECT or not */
int rfi_engine_open(struct rfi_coordinator *c);
void rfi_engine_step(struct rfi_coordinator *c);
void rfi_engine_abandon(const struct rfi_coordinator *c); /* in a forked worker */
void rfi_engine_close(struct rfi_coordinator *c);

/* trial.c: latency of reads with O_DIRECT and without, compared while the run goes on */
struct rfi_trial;
struct rfi_trial *rfi_trial_open(struct rfi_coordinator *c); /* NULL: not to be had here */
bool rfi_trial_step(struct rfi_coordinator *c, struct rfi_trial *t); /* false: it is over */
uint64_t rfi_trial_median_ns(struct rfi_trial *t, bool direct); /* 0: too few reads ended */
void rfi_trial_abandon(const struct rfi_trial *t); /* in a forked worker */
void rfi_trial_close(struct rfi_coordinator *c, struct rfi_trial *t);

/* tune.c: how many workers are active, and the CPU budget */
int rfi_tune_open(struct rfi_coordinator *c);
void rfi_tune_step(struct rfi_coordinator *c);
bool rfi_tune_resting(const struct rfi_coordinator *c, uint32_t worker); /* may not claim now */
void rfi_tune_close(struct rfi_coordinator *c);

/* grow.c: how far each ring is read ahead */
int rfi_grow_open(struct rfi_coordinator *c);
void rfi_grow_step(struct rfi_coordinator *c);
void rfi_grow_close(struct rfi_coordinator *c);

/* hang.c: workers that live and do nothing */
int rfi_hang_open(struct rfi_coordinator *c);
void rfi_hang_step(struct rfi_coordinator *c);
void rfi_hang_started(struct rfi_coordinator *c, uint32_t worker); /* a new process: counts begin anew */
uint64_t rfi_hang_limit_ns(const struct rfi_coordinator *c, uint32_t worker);
void rfi_hang_abandon(struct rfi_coordinator *c); /* in a forked worker */
void rfi_hang_close(struct rfi_coordinator *c);

/* probe.c: one small read of the place where a worker waits, through an io_uring of the parent's own */
struct rfi_prober;
struct rfi_prober *rfi_prober_open(uint32_t workers, uint64_t align); /* NULL: none to be had here */
void rfi_prober_close(struct rfi_prober *p);
enum rfi_probe_state { RFI_PROBE_IDLE, RFI_PROBE_UNDER_WAY, RFI_PROBE_ANSWERED, RFI_PROBE_IMPOSSIBLE };
/* Begins a read; only when idle. `path` is looked at during the call alone. */
void rfi_prober_start(struct rfi_prober *p, uint32_t worker, const char *path, uint64_t offset);
void rfi_prober_step(struct rfi_prober *p); /* takes completions, never waits */
enum rfi_probe_state rfi_prober_state(const struct rfi_prober *p, uint32_t worker);
void rfi_prober_reset(struct rfi_prober *p, uint32_t worker); /* an answer was used: idle again */

/* leases.c */
int rfi_leases_open(struct rfi_coordinator *c);
void rfi_lease_accept(struct rfi_coordinator *c);
void rfi_lease_pending(struct rfi_coordinator *c, uint32_t index);
void rfi_lease_message(struct rfi_coordinator *c, uint32_t rank);
void rfi_lease_end(struct rfi_coordinator *c, uint32_t rank);
void rfi_lease_died(struct rfi_coordinator *c, uint32_t rank); /* the pidfd said so */
bool rfi_leases_done(const struct rfi_coordinator *c);
void rfi_leases_close(struct rfi_coordinator *c);

/* moves.c */
bool rfi_rank_failed(const struct rfi_coordinator *c, uint32_t ring);
void rfi_rank_died(struct rfi_coordinator *c, uint32_t ring); /* its trainer, without a goodbye */
void rfi_gates_step(struct rfi_coordinator *c);
void rfi_ring_outlook(const struct rfi_coordinator *c, uint32_t ring, struct rfi_outlook *ret);
/* All of one epoch, between rings of this server. 1: done; 0: not now (a claim is in the way, or the log full). */
int rfi_move_batches(struct rfi_coordinator *c, const struct rfi_move *moves, uint32_t n);

/* balance.c */
void rfi_balance_step(struct rfi_coordinator *c);
enum rfi_balance_reason rfi_balance_now(struct rfi_coordinator *c);

/* save.c */
void rfi_save_step(struct rfi_coordinator *c); /* writes the checkpoint when it is due */
void rfi_save_last(struct rfi_coordinator *c); /* at the end of the run */

/* mirrors.c */
int rfi_mirrors_check(const struct rfi_dataset *d, const char *const *folders, uint32_t n, struct rfi_error *err);

/* where.c: the nodes that memory is wanted on, and really is on */
void rfi_where_bind(struct rfi_coordinator *c, unsigned char *data); /* arenas and cache, before the first touch */
void rfi_where_bind_arena(struct rfi_coordinator *c, uint32_t ring, uint32_t arena);
void rfi_where_bind_staging(struct rfi_coordinator *c, uint32_t worker, void *staging, uint64_t bytes);
void rfi_where_check(struct rfi_coordinator *c); /* every ring's arena, when it is there */
void rfi_where_check_ring(struct rfi_coordinator *c, uint32_t ring, uint32_t arena);

/* rates.c */
void rfi_rates_step(struct rfi_coordinator *c);

/* status.c: active, idle, slow, failed, unknown; and their history */
int rfi_status_open(struct rfi_coordinator *c);
void rfi_status_step(struct rfi_coordinator *c);
/* Samples a second, by the trainer's own word of late; 0: it has said nothing. */
double rfi_reported_rate(const struct rfi_coordinator *c, uint32_t ring, uint64_t now);
void rfi_status_close(struct rfi_coordinator *c);
