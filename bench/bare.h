/* The least that reading can cost: an io_uring loop and nothing else. It makes the reads of a list in order
 * (same sizes, same queue depth, into memory of the same kind as ringfeed's arenas) without batches, rings or
 * trainers. `bare_loop` is its program; `ringfeed bench` divides by it. */
#pragma once

#include "reads.h"

enum { BARE_DEPTH_MAX = 4096 };

struct bare_options {
    uint32_t depth; /* reads in flight, 1 .. BARE_DEPTH_MAX */
    uint64_t buffer_bytes; /* memory that reads land in, used in a circle; at least two pieces */
    bool direct;
    bool fixed_buffers, fixed_files; /* registered with the io_uring; buffers where that is allowed */
    uint64_t n; /* reads to make; the list is gone through again where it is shorter. 0: once through */
    /* With a runtime: measure so long, once so much time has passed and so many bytes are read; `n` does not count. */
    uint64_t ramp_ns, ramp_bytes, runtime_ns;
};

struct bare_result {
    uint64_t reads, bytes; /* bytes: of the extents asked for, without rounding to A */
    uint64_t syscalls;
    double seconds, cpu_seconds;
};

struct bare_loop;

/* Opens the files, maps and touches the memory, makes the io_uring: all that is not to be measured. Both
 * arguments are borrowed until destroy. */
int bare_create(const struct reads *reads, const struct bare_options *o, struct bare_loop **ret, struct rfi_error *err);
int bare_run(struct bare_loop *l, struct bare_result *ret, struct rfi_error *err);
void bare_destroy(struct bare_loop *l);
