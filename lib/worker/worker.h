/* A worker process: claims batches of the rings, reads them, publishes. Everything it needs was made by
 * the parent before the fork; it owns one reader's queue, one staging area and nothing else in the
 * segment but its record. Must not know: trainers' identity, restarts, other workers' health. */
#pragma once

#include "dataset/dataset.h"
#include "order/order.h"
#include "reader/reader.h"
#include "run/run.h"

/* One read through staging is at most this long (rounded reads of small or fixed-size samples). */
enum { RFI_STAGING_BYTES = 128 << 10 };

/* But where whole blocks are read, they are read in pieces of this size. */
enum { RFI_SWEPT_PIECE_BYTES = 512 << 10 };

/* A read in place is cut into pieces of this size, so that one large sample cannot hold the queue. */
enum { RFI_PIECE_BYTES = 1 << 20 };

/* With --hedge-ms every read goes through staging, rounded outwards by less than two blocks. */
enum { RFI_HEDGED_BYTES = RFI_STAGING_BYTES / 2 };

struct rfi_worker_setup {
    struct rfi_run_view *run;
    struct rfi_dataset *dataset;
    const struct rfi_order *order;
    struct rfi_reader *readers; /* [queues] */
    unsigned char **staging; /* [queues] queue_depth * config.staging_bytes, shared mappings; NULL: buffered */
    const uint32_t *ring_node; /* [ranks] node index of the ring's arena */
    uint32_t worker_node; /* node index of this worker */
    const char *const *mirrors; /* [config.mirrors] folders with copies of the files */
};

/* Runs until told to stop (returns 0) or until something is wrong with the process itself (returns 1).
 * The caller exits with the result. */
int rfi_worker_main(const struct rfi_worker_setup *setup, uint32_t worker);
