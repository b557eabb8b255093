/* The CUDA driver, as far as memory of ours is pinned with it. It is looked for at run time: nothing is linked. */
#pragma once

#include <stddef.h>

/* Registers memory for copies by the device. `device` -1: the one this process uses, else `fallback` counted round. A negative
 * errno, with a text, where that cannot be; *ret_device is what rfp_cuda_unregister needs. */
int rfp_cuda_register(void *base, size_t bytes, int device, int fallback, int *ret_device, char *why, size_t cap);
/* After the last copy, before the memory is unmapped. An error of the driver is of no use to anybody by then. */
void rfp_cuda_unregister(void *base, int device);
