/* A CUDA driver for tests: no device, but everything that memory registration may and may not do is checked and counted. Built
 * by test_pinned.py as libcuda.so.1; what a test asks it for begins with fake_. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    DEVICES = 3,
    REGIONS = 16,
    INVALID_VALUE = 1,
    NOT_INITIALIZED = 3,
    INVALID_CONTEXT = 201,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713
};

static int ready, current[8], n_current, retained[DEVICES], used_by_program[DEVICES], fail_code;
static char fail_call[64], wrong[400];
static struct {
    char *base;
    size_t bytes;
} regions[REGIONS];
static int n_regions, total_registered;

static int fails(const char *call)
{
    return fail_code && strcmp(call, fail_call) == 0 ? fail_code
           : !ready && strcmp(call, "cuInit") != 0   ? NOT_INITIALIZED
                                                     : 0;
}

static int is_mapped(const char *base, size_t bytes)
{
    static unsigned char pages[1 << 20];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size_t)base % page == 0 && bytes / page < sizeof pages && mincore((void *)(size_t)base, bytes, pages) == 0;
}

#define CALL(name)              \
    do {                        \
        int code = fails(name); \
        if (code)               \
            return code;        \
    } while (0)

int cuInit(unsigned flags)
{
    CALL("cuInit");
    ready = 1;
    return flags ? INVALID_VALUE : 0;
}

int cuDeviceGetCount(int *ret)
{
    CALL("cuDeviceGetCount");
    *ret = DEVICES;
    return 0;
}

int cuDeviceGet(int *ret, int ordinal)
{
    CALL("cuDeviceGet");
    *ret = ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? 0 : 101;
}

int cuCtxGetDevice(int *ret)
{
    CALL("cuCtxGetDevice");
    if (!n_current)
        return INVALID_CONTEXT;
    *ret = current[n_current - 1];
    return 0;
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active)
{
    CALL("cuDevicePrimaryCtxGetState");
    *flags = 0;
    *active = retained[device] > 0 || used_by_program[device];
    return 0;
}

int cuDevicePrimaryCtxRetain(void **ret, int device)
{
    CALL("cuDevicePrimaryCtxRetain");
    retained[device]++;
    *ret = (void *)(size_t)(0x1000 + device);
    return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
    if (retained[device]-- <= 0)
        snprintf(wrong, sizeof wrong, "context of device %d released too often", device);
    return 0;
}

int cuCtxPushCurrent_v2(void *context)
{
    CALL("cuCtxPushCurrent_v2");
    current[n_current++] = (int)((size_t)context - 0x1000);
    return 0;
}

int cuCtxPopCurrent_v2(void **ret)
{
    if (!n_current)
        return INVALID_CONTEXT;
    *ret = (void *)(size_t)(0x1000 + current[--n_current]);
    return 0;
}

int cuMemHostRegister_v2(void *base, size_t bytes, unsigned flags)
{
    CALL("cuMemHostRegister_v2");
    char *from = base;
    if (!n_current)
        return INVALID_CONTEXT;
    if (flags != 1 || !bytes || !is_mapped(from, bytes)) {
        snprintf(wrong, sizeof wrong, "registered what cannot be: %p, %zu bytes, flags %u", base, bytes, flags);
        return INVALID_VALUE;
    }
    for (int i = 0; i < n_regions; i++)
        if (from < regions[i].base + regions[i].bytes && regions[i].base < from + bytes)
            return ALREADY_REGISTERED;
    regions[n_regions].base = from;
    regions[n_regions++].bytes = bytes;
    total_registered++;
    return 0;
}

int cuMemHostUnregister(void *base)
{
    CALL("cuMemHostUnregister");
    if (!n_current)
        return INVALID_CONTEXT;
    for (int i = 0; i < n_regions; i++) {
        if (regions[i].base != base)
            continue;
        if (!is_mapped(base, regions[i].bytes))
            snprintf(wrong, sizeof wrong, "%p was unmapped before it was unregistered", base);
        regions[i] = regions[--n_regions];
        return 0;
    }
    snprintf(wrong, sizeof wrong, "unregistered what was not registered: %p", base);
    return NOT_REGISTERED;
}

int cuGetErrorName(int code, const char **ret)
{
    *ret = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : NULL;
    return *ret ? 0 : INVALID_VALUE;
}

/* ---- for tests ---- */

void fake_fail(const char *call, int code)
{
    snprintf(fail_call, sizeof fail_call, "%s", call);
    fail_code = code;
}

void fake_program_uses(int device, int uses)
{
    used_by_program[device] = uses;
}

/* Whether [at, at + bytes) lies in registered memory. */
int fake_is_pinned(const char *at, size_t bytes)
{
    for (int i = 0; i < n_regions; i++)
        if (at >= regions[i].base && at + bytes <= regions[i].base + regions[i].bytes)
            return 1;
    return 0;
}

int fake_regions(void)
{
    return n_regions;
}

int fake_total_registered(void)
{
    return total_registered;
}

int fake_contexts(int device)
{
    return retained[device];
}

const char *fake_wrong(void)
{
    return wrong;
}
