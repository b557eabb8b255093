/* Other loaders beside a run: which there are, and one run of one of them. */
#pragma once

#include "base/error.h"

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct bench_peer {
    const char *name; /* what --compare calls it */
    const char *program;
    const char *first; /* its first argument, before the folder; NULL: none */
};

extern const struct bench_peer bench_peers[]; /* ends with a NULL name */

/* NULL: there is no such peer. */
const struct bench_peer *bench_peer_find(const char *name, size_t n);

struct bench_peer_job {
    const char *folder; /* of bench/peers/peer.py */
    uint32_t first_rank, ranks;
    uint64_t batch;
    unsigned threads; /* of each rank's process */
    double seconds; /* 0: the whole order */
    uint64_t step_ns;
    const volatile sig_atomic_t *interrupted;
};

struct bench_peer_result {
    double samples, bytes, seconds; /* over the ranks; seconds of the longest */
    double cpu_seconds, cpu_bytes;
    char version[96];
};

/* A process a rank, started together. 0; 1: it cannot be used here, and err says why; a negative errno. */
int bench_peer_run(const struct bench_peer *p, const struct bench_peer_job *job, struct bench_peer_result *ret,
                   struct rfi_error *err);
