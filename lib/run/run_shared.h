/* What lies in the regions of a run's control object, besides the rings: the run's configuration, the
 * coordinator block, one record a worker and a rank, the in-flight tables and the flight recorder.
 *
 * Who writes: config and dataset at birth only; coordinator block and rank records: the parent; a
 * worker record: its worker (identity words: the parent, while no worker runs); in-flight entries:
 * the worker that owns the queue, or the parent after its death. Trainers map all of it read-only. */
#pragma once

#include "order/past.h"
#include "ring/ring_shared.h"

enum rfi_region_id {
    RFI_R_CONFIG,
    RFI_R_COORDINATOR,
    RFI_R_WORKERS,
    RFI_R_RANKS,
    RFI_R_INFLIGHT,
    RFI_R_RECORDER,
    RFI_R_RINGS,
    RFI_R_SLOTS,
    RFI_R_GENERATIONS,
    RFI_R_DESCRIPTORS,
    RFI_R_TRAINERS,
    RFI_R_BELLS,
    RFI_R_DATASET,
    RFI_R_MEMBERSHIP,
    RFI_R_ORIGIN,
    RFI_R_MOVES,
    RFI_R_FAULTS,
    RFI_R_HISTORY,
    RFI_R_CACHE,
    RFI_N_REGIONS
};

/* Fixed at birth. Numbers that an attacher uses for addressing are checked against the regions. */
struct rfi_config_shared {
    uint32_t world_size, first_rank, ranks, workers;
    uint32_t queues; /* io_urings: one a worker, and the spares */
    uint32_t queue_depth;
    uint32_t nodes;
    uint32_t depth; /* slots a ring */
    uint32_t prefetch; /* of them in use at first: batches that are read ahead */
    uint64_t batch; /* samples a batch at most */
    uint64_t epochs, start_epoch; /* epochs 0: for ever */
    uint64_t arena_bytes; /* of each rank */
    uint64_t lap_bytes; /* of an arena, in use at first */
    uint64_t arena_stride; /* distance of arenas in the data object; the first is at arena_first */
    uint64_t arena_first;
    uint64_t align; /* A */
    uint64_t descriptor_stride; /* bytes of a slot's arrays */
    uint64_t samples, fixed_bytes;
    uint32_t n_fields;
    uint32_t has_labels;
    uint32_t engine; /* rf_engine of the queue: uring, pread or null */
    uint32_t direct; /* O_DIRECT at first */
    uint32_t heartbeat_ms, timeout_ms, max_restarts;
    uint32_t generations_cap;
    uint32_t recorder_entries;
    uint32_t moves_cap; /* entries of the rebalance log */
    uint32_t gated; /* a ring stops at the end of each epoch until its log is closed */
    uint32_t replication; /* workers that read for a rank; 1: any may */
    uint32_t sweeps; /* block shuffle reads whole blocks (worker/sweep.h) */
    uint32_t staging_bytes; /* of each read in flight */
    uint32_t spares; /* io_urings that replace ones whose reads do not end */
    uint32_t arenas; /* one a rank, then `ranks` for each spare io_uring */
    uint32_t strategy, base, shuffle, tail, hash_key;
    uint64_t seed, block_samples, window_blocks, hash_partitions, hash_seed;
    uint64_t started_ns;
    uint32_t on_error; /* rf_on_error */
    uint32_t hedge_ms, mirrors; /* 0: none */
    uint32_t verify; /* checksums are compared on every read */
    uint64_t cache_samples; /* that the resident cache keeps; 0: there is none */
    uint64_t cache_unit; /* of its places; 0: fixed sizes */
    uint64_t cache_bytes; /* whole chunks, at cache_first of the data object */
    uint64_t cache_first;
    uint64_t faults_loaded; /* entries that the parent's part of the error log holds */
    char fingerprint[40];
    uint32_t depth_pinned, workers_pinned; /* by an option: not tuned */
    uint32_t cpu_budget; /* percent of the cores; 0: none */
};

/* Arrays of a slot's descriptor, in this order at descriptor_stride * (ring * depth + slot):
 * offsets u64[B], lengths u64[B], ids u64[B], labels i64[B] (has_labels), field offsets and field
 * lengths u64[B * n_fields] each (n_fields > 1), flags u8[B]. */

/* The coordinator's life:  STARTING -> READY -> DONE | STOPPING | FAILED.  `owner` is a robust mutex
 * that the parent holds for life: the kernel marks it when the parent dies, so that a trainer sees the
 * death with one load, without a syscall. */
enum rfi_run_state { RFI_RUN_STARTING, RFI_RUN_READY, RFI_RUN_STOPPING, RFI_RUN_DONE, RFI_RUN_FAILED };

/* Why the last look at the balance of an adaptive run ended as it did. */
enum rfi_balance_reason {
    RFI_BALANCE_OFF,
    RFI_BALANCE_MEASURING,
    RFI_BALANCE_BETWEEN_EPOCHS,
    RFI_BALANCE_EVEN,
    RFI_BALANCE_NOT_LONG_ENOUGH,
    RFI_BALANCE_TOO_SOON,
    RFI_BALANCE_NOTHING_MOVABLE,
    RFI_BALANCE_NO_GAIN,
    RFI_BALANCE_MOVED,
    RFI_N_BALANCE
};

struct rfi_coordinator_shared {
    alignas(128) _Atomic uint32_t state;
    _Atomic uint32_t stop; /* workers: finish what is in flight and leave */
    _Atomic uint64_t heartbeat_ns;
    _Atomic uint64_t restarts, rebalances, deaths;
    _Atomic uint32_t live_workers;
    _Atomic uint32_t spare_queues, spare_arenas; /* free now */
    _Atomic uint32_t retired; /* io_urings with reads that do not end */
    int64_t pid;
    _Atomic uint64_t fenced, moved; /* workers killed for a hang; moves of rings to a fresh arena */
    _Atomic uint64_t imbalance; /* 1 - slowest / median throughput, double bits */
    _Atomic uint32_t balance_reason; /* enum rfi_balance_reason */
    _Atomic uint32_t reading; /* how workers read now: bits of reader/choose.h */
    _Atomic uint64_t resting; /* workers that claim nothing: bits. They finish what they have */
    _Atomic uint32_t tuned; /* futex word: moves after each change of `resting` */
    _Atomic uint32_t depth; /* reads in flight a worker, at most; 0: as many as its queue holds */
    _Atomic uint64_t chosen_workers; /* active ones, but for pauses by the CPU budget */
    _Atomic uint32_t reading_why; /* enum rfi_choice_why */
    _Atomic uint64_t direct_ns, buffered_ns; /* measured latency of a read; 0: not compared */
    _Atomic uint64_t cpu; /* cores that the server used in the last half second, double bits */
    alignas(128) unsigned char owner[64]; /* pthread_mutex_t, robust, process-shared */
    char failure[448]; /* why the run FAILED, for its trainers: written before the state */
};

/* A worker's record. State: 0 none -> RUNNING (parent, after fork) -> DRAINING (parent, reaped) -> RUNNING ...
 * or GIVEN_UP (restarts exhausted) or STOPPED. */
enum rfi_worker_state {
    RFI_WORKER_ABSENT,
    RFI_WORKER_RUNNING,
    RFI_WORKER_DRAINING,
    RFI_WORKER_BACKOFF,
    RFI_WORKER_GIVEN_UP,
    RFI_WORKER_STOPPED
};

struct rfi_worker_shared {
    alignas(128) _Atomic uint32_t state; /* parent */
    _Atomic int32_t pid; /* parent */
    _Atomic uint64_t incarnation; /* parent */
    _Atomic uint64_t rate_samples; /* parent: samples/s, double bits */
    int32_t node, cpu; /* parent: os numbers; cpu -1: not pinned */
    uint32_t queue;
    _Atomic uint32_t status; /* parent: rf_status */
    uint64_t pad1[10];
    alignas(128) _Atomic uint64_t heartbeat_ns; /* worker */
    _Atomic uint64_t started_ns; /* of this incarnation: by the parent before the fork, then by the worker */
    _Atomic uint64_t batches, samples, bytes, reads, submits;
    _Atomic uint64_t busy_ns; /* time not asleep and not waiting for the device */
    _Atomic uint64_t load_ns; /* sum over published batches of claim -> publish */
    _Atomic uint64_t errors;
    _Atomic uint32_t jobs; /* batches claimed and not published */
    uint32_t pad2;
    _Atomic uint64_t completed_ns; /* when a read of this incarnation ended last; 0: none has */
    _Atomic uint64_t hedges, hedges_won; /* late reads asked for again; those whose second one came first */
    _Atomic uint64_t hot, cold; /* reads that were looked for in the page cache: found there, and not */
    alignas(128) _Atomic uint64_t cached; /* samples that came from the resident cache */
    _Atomic uint64_t latency_ns, lowest_ns; /* of its reads: the median of late, and the lowest; 0: none was measured */
    _Atomic uint64_t rounds, full_rounds; /* in which reads ended; with (nearly) as many in flight as may be */
    uint64_t pad3[11];
};
_Static_assert(sizeof(struct rfi_worker_shared) == 384, "worker record");

/* Batches an epoch of one rank, before moves: `len`, but for unfinished epochs that were dealt anew. */
struct rfi_epoch_lens {
    uint64_t len, first;
    uint64_t n; /* epochs [first, first + n) have unfinished[] */
    uint64_t unfinished[RFI_UNFINISHED_MAX];
};

/* Rebalance log: written by the parent, entry first, then n (release). Read by workers and checkpoints. */
struct rfi_moves_shared {
    alignas(128) _Atomic uint64_t n;
    uint64_t pad[15];
    struct rfi_move entries[]; /* [config.moves_cap] */
};
_Static_assert(sizeof(struct rfi_move) == 32 && sizeof(struct rfi_moves_shared) == 128, "rebalance log");

/* A read into the rank's arena does not end, and there is nothing to go on with. */
enum rfi_stuck { RFI_STUCK_NOT, RFI_STUCK_NO_QUEUE, RFI_STUCK_NO_ARENA, RFI_STUCK_NO_ROOM };

/* A rank's record, written by the parent. Attached: WATCHED by pidfd since the socket's accept. */
struct rfi_rank_shared {
    alignas(128) _Atomic int32_t pid; /* trainer; 0: nobody */
    _Atomic uint32_t incarnation; /* attaches so far */
    _Atomic uint64_t rate_samples, rate_bytes; /* a second, double bits */
    _Atomic uint64_t attached_ns;
    struct rfi_epoch_lens lens; /* fixed at birth */
    int32_t node; /* os number of the arena's node */
    _Atomic uint32_t died; /* the last trainer ended without a goodbye */
    uint64_t epoch_samples; /* delivered in an epoch, padding included; fixed at birth */
    uint64_t total_samples; /* to be delivered in this life; 0: for ever; fixed at birth */
    _Atomic uint64_t checkpoints; /* files written that this rank is in */
    _Atomic uint32_t failed; /* given up after its trainer died: its batches went to the others */
    _Atomic uint32_t stuck; /* enum rfi_stuck: why nobody can read on for it now */
    _Atomic uint32_t status; /* rf_status */
    _Atomic uint64_t keepers; /* workers that may claim for it: bits */
    uint8_t keeper[16]; /* [replication]: the primary, then the standbys; fixed at birth */
    /* A sample of the arena's pages: how many the kernel told the node of, and how many of these are on `node`. */
    _Atomic uint32_t pages_checked, pages_on_node;
    _Atomic uint64_t arena_held, arena_huge; /* bytes that are there, and of these in huge pages; 0 held: not known */
};

/* What became of a worker or a rank: a point a second, and one at each change of status. Workers first, then ranks.
 * Written by the parent alone; a reader drops what was overwritten while it read. */
enum { RFI_HISTORY_POINTS = 64 };

struct rfi_history_shared {
    alignas(128) _Atomic uint64_t next; /* point i is at i mod RFI_HISTORY_POINTS */
    uint64_t pad[15];
    struct {
        _Atomic uint64_t time_ns, status, rate; /* rf_status; samples/s, double bits */
    } points[RFI_HISTORY_POINTS];
};

/* One read that may be in flight. `active` is stored (release) before the submission and cleared after
 * the completion was reaped. user_data of the read = index in its queue's table. */
struct rfi_inflight_shared {
    _Atomic uint32_t active;
    uint32_t ring; /* local index */
    uint64_t ticket;
    uint64_t offset; /* in the file */
    uint32_t file;
    uint32_t bytes;
    uint64_t submitted_ns;
    uint32_t staged; /* lands in the queue's staging, never in an arena */
    uint32_t pad0;
    uint64_t pad[2];
};
_Static_assert(sizeof(struct rfi_inflight_shared) == 64, "in-flight entry");

/* Flight recorder: the last claims, for the inquest. Entry i of the run is at i mod entries. */
struct rfi_recorder_shared {
    alignas(128) _Atomic uint64_t next;
    uint64_t pad[15];
};

struct rfi_recorded {
    _Atomic uint64_t time_ns;
    _Atomic uint64_t ticket;
    _Atomic uint32_t ring, worker;
    _Atomic uint64_t data_offset;
};
