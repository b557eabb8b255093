/* Bare loops in processes of their own, several at once, started together: the reference that a run is divided by,
 * and the probes of what the device can do. */
#pragma once

#include "../bench/bare.h"

#include <signal.h>

/* One loop for each list. Adds up; seconds are the longest's. -EINTR when *interrupted. No thread of this process may
 * be running: it forks. */
int bench_beside(const struct reads *lists, unsigned n, const struct bare_options *o,
                 const volatile sig_atomic_t *interrupted, struct bare_result *ret, struct rfi_error *err);
