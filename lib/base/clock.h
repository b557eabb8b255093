/* CLOCK_MONOTONIC in nanoseconds: the only clock of the protocol, comparable between processes of
 * one machine. A vDSO call, no syscall. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t rfi_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
