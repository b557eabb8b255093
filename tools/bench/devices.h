/* The block devices under a dataset, and what the kernel counts for them. */
#pragma once

#include "dataset/dataset.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { BENCH_DEVICES_MOST = 16 };

struct bench_devices {
    dev_t numbers[BENCH_DEVICES_MOST]; /* partitions count by themselves */
    unsigned n; /* 0: no block device (tmpfs, a network file system), or one that the kernel does not show */
    bool more; /* some files lie on devices that are not counted */
    char filesystem[32]; /* of the first file */
};

struct bench_device_counters {
    uint64_t reads, bytes;
};

void bench_devices_find(const struct rfi_dataset *d, struct bench_devices *ret);
/* False: there is none to read. */
bool bench_devices_read(const struct bench_devices *d, struct bench_device_counters *ret);
/* "vda1": into `buf`; "?" where the kernel does not say. */
void bench_device_name(dev_t number, char *buf, size_t cap);
/* One line of a file of the device (or, for a partition, of its disk) in /sys; false: there is none. */
bool bench_device_fact(dev_t number, const char *file, char *buf, size_t cap);
