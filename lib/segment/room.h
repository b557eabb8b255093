/* Is there room? Asked before anything is allocated: beyond a memory cgroup's limit an allocation is a
 * SIGKILL, and beyond /dev/shm's size a SIGBUS, not an error. */
#pragma once

#include "base/error.h"

#include <stdint.h>

/* Bytes this process's memory cgroup (v2 or v1) still allows; UINT64_MAX: no limit. */
uint64_t rfi_room_cgroup(void);

/* The kernel's estimate of what can be had without swapping; UINT64_MAX: not known. */
uint64_t rfi_room_available(void);

/* Bytes free in /dev/shm, and its size. */
int rfi_room_shm(uint64_t *ret_free, uint64_t *ret_size, struct rfi_error *err);

/* -ENOSPC with both numbers when `shm_bytes` do not fit in /dev/shm, or `memory_bytes` (all that will be
 * allocated, those included) in this control group or in what the machine has available. */
int rfi_room_check(uint64_t shm_bytes, uint64_t memory_bytes, struct rfi_error *err);
