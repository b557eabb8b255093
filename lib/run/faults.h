/* The error log in the segment: decisions about samples that could not be read. One part a queue, written
 * by the worker that owns the queue alone, and part 0, which the parent fills at birth with what a checkpoint
 * brought. Parts only grow: an entry is written first and then counted (release), so that what a dead worker
 * had counted is whole and what it had not is nothing. Whoever decides about a batch is its claimant, and it
 * looks here first: so nobody races for a decision. */
#pragma once

#include "order/faults.h"
#include "run/run.h"

/* Entries a queue; then the policy falls back to `raise`. */
enum { RFI_FAULTS_PER_QUEUE = 1024, RFI_FAULTS_LOADED_MAX = 1 << 20 };

struct rfi_fault_part {
    alignas(128) _Atomic uint64_t count;
    _Atomic uint64_t wrong_copies; /* reads that came back with a wrong checksum */
    _Atomic uint64_t repaired; /* samples that came from another copy than the first */
    uint64_t pad[13];
    /* followed by its entries */
};
_Static_assert(sizeof(struct rfi_fault_part) == 128, "head of a part of the error log");

/* Bytes of the region: (queues + 1) parts, the parent's of `loaded` entries. */
uint64_t rfi_faults_bytes(const struct rfi_config_shared *c);

/* Entries in all parts, and entry i of them (false: not there). Entries keep their number only within a part. */
uint64_t rfi_faults_count(const struct rfi_run_view *r);
bool rfi_faults_get(const struct rfi_run_view *r, uint64_t i, struct rfi_fault *ret);

/* The entries of one batch into `ret` (at most cap); returns how many there are. */
uint64_t rfi_faults_find(const struct rfi_run_view *r, uint64_t epoch, uint64_t rank, uint64_t batch,
                         struct rfi_fault *ret, uint64_t cap);

/* The worker that owns `queue`: one decision more. -ENOSPC: its part is full. */
int rfi_faults_append(struct rfi_run_view *r, uint32_t queue, const struct rfi_fault *entry);

/* The parent at birth, before any worker: part 0. -ENOSPC: more than config.faults_loaded. */
int rfi_faults_load(struct rfi_run_view *r, const struct rfi_fault *entries, uint64_t n);

struct rfi_fault_part *rfi_faults_part(const struct rfi_run_view *r, uint32_t part);
