/* Block shuffle reads blocks, not samples. The batches of a window are claimed together; what all of them need is sorted
 * by its place in the files, so that whole blocks are read one after the other, in large pieces, each once. What a
 * piece brings is scattered to the batches that wait for it.
 *
 * A sweep is a worker's private matter: claims, places and publication are those of any batch, and who takes over
 * after a death claims and sweeps anew. A piece that cannot be read accuses nobody: its batches are then read in the
 * usual way, with everything that belongs to a failed read. */
#pragma once

#include "plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct rfi_jobs;
struct rfi_job;
struct rfi_flight;

struct rfi_sweep_entry {
    uint64_t offset;
    uint64_t bytes;
    unsigned char *place; /* of the byte at `offset` */
    struct rfi_job *job;
    uint32_t file;
};

enum { RFI_SWEEPS = 2 }; /* a ring: one being read, one to follow it at once */

/* n 0: none is under way. */
struct rfi_sweep {
    struct rfi_sweep_entry *entries; /* [n], by file and offset */
    struct rfi_sweep_entry *spare; /* to sort into */
    uint64_t n, cap;
    uint64_t next; /* the first entry with bytes that were not asked for */
    uint64_t at; /* and the file offset that was come to, when in the middle of it */
    uint32_t flights; /* out */
};

/* Claims what one sweep of this ring should hold, when the time has come, and begins it: 1, 0 or negative. */
int rfi_sweep_claim(struct rfi_jobs *j, uint32_t ring);

/* Queues pieces while there is room. */
void rfi_sweep_issue(struct rfi_jobs *j);

/* The piece has brought its file up to `to`. */
void rfi_sweep_scatter(const struct rfi_flight *f, uint64_t to);

/* Before the flight lands, and after: takes it from its batches. `failed`: they are read again, one by one. */
void rfi_sweep_settle(struct rfi_jobs *j, const struct rfi_flight *f, bool failed);
