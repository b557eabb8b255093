/* The driver's library is loaded when the first memory is to be pinned, and never again. All calls are made with the device's
 * primary context current: that is the one which the CUDA runtime, and so torch, uses. */
#include "cuda.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

typedef void *context;

enum { PORTABLE = 1, ALREADY_REGISTERED = 712 };

static struct {
    int state; /* 0: not tried; 1: there; -1: not */
    char why[300];
    int (*init)(unsigned flags);
    int (*count)(int *ret);
    int (*device)(int *ret, int ordinal);
    int (*current_device)(int *ret);
    int (*primary_state)(int device, unsigned *flags, int *active);
    int (*retain)(context *ret, int device);
    int (*release)(int device);
    int (*push)(context c);
    int (*pop)(context *ret);
    int (*add)(void *base, size_t bytes, unsigned flags);
    int (*remove)(void *base);
    int (*error_name)(int code, const char **ret);
} cuda;

static int load(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(cuda.why, sizeof cuda.why, "there is no CUDA driver: %s", dlerror());
        return -1;
    }
    const struct {
        const char *name;
        void *to;
    } symbols[] = {
        {"cuInit", &cuda.init},
        {"cuDeviceGetCount", &cuda.count},
        {"cuDeviceGet", &cuda.device},
        {"cuCtxGetDevice", &cuda.current_device},
        {"cuDevicePrimaryCtxGetState", &cuda.primary_state},
        {"cuDevicePrimaryCtxRetain", &cuda.retain},
        {"cuDevicePrimaryCtxRelease_v2", &cuda.release},
        {"cuCtxPushCurrent_v2", &cuda.push},
        {"cuCtxPopCurrent_v2", &cuda.pop},
        {"cuMemHostRegister_v2", &cuda.add},
        {"cuMemHostUnregister", &cuda.remove},
        {"cuGetErrorName", &cuda.error_name},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        *(void **)symbols[i].to = dlsym(library, symbols[i].name);
        if (!*(void **)symbols[i].to) {
            snprintf(cuda.why, sizeof cuda.why, "libcuda.so.1 has no %s: the driver is too old", symbols[i].name);
            return -1;
        }
    }
    return 1;
}

static int failed(const char *call, int code, char *why, size_t cap)
{
    const char *name = NULL;
    if (cuda.error_name(code, &name) || !name)
        name = "an unknown error";
    snprintf(why, cap, "%s failed: %s (%d)", call, name, code);
    return -EIO;
}

/* A context costs memory on its device, so none is made where this process has none: the device of the current context, else
 * the first one whose primary context is in use, else the fallback. */
static int choose(int fallback, int n)
{
    int device, active;
    unsigned flags;
    if (cuda.current_device(&device) == 0)
        return device;
    for (int i = 0; i < n; i++)
        if (cuda.device(&device, i) == 0 && cuda.primary_state(device, &flags, &active) == 0 && active)
            return device;
    return cuda.device(&device, fallback % n) == 0 ? device : -1;
}

static int find_device(int ordinal, int fallback, char *why, size_t cap)
{
    int n = 0, device = -1, rc = cuda.init(0);
    if (rc)
        return failed("cuInit", rc, why, cap);
    rc = cuda.count(&n);
    if (rc || n < 1) {
        snprintf(why, cap, "the CUDA driver sees no device");
        return -ENODEV;
    }
    if (ordinal < 0)
        device = choose(fallback, n);
    else if (ordinal < n && cuda.device(&device, ordinal) != 0)
        device = -1;
    if (device >= 0)
        return device;
    snprintf(why, cap, "there is no CUDA device %d: the driver sees %d", ordinal, n);
    return -ENODEV;
}

int rfp_cuda_register(void *base, size_t bytes, int device, int fallback, int *ret_device, char *why, size_t cap)
{
    context c;
    if (!cuda.state)
        cuda.state = load();
    if (cuda.state < 0) {
        snprintf(why, cap, "%s", cuda.why);
        return -ENOSYS;
    }
    device = find_device(device, fallback, why, cap);
    if (device < 0)
        return device;
    int rc = cuda.retain(&c, device);
    if (rc)
        return failed("cuDevicePrimaryCtxRetain", rc, why, cap);
    rc = cuda.push(c);
    if (rc) {
        cuda.release(device);
        return failed("cuCtxPushCurrent", rc, why, cap);
    }
    rc = cuda.add(base, bytes, PORTABLE);
    cuda.pop(&c);
    if (rc == 0) { /* the context stays until rfp_cuda_unregister */
        *ret_device = device;
        return 0;
    }
    cuda.release(device);
    if (rc == ALREADY_REGISTERED) {
        snprintf(why, cap, "somebody else has registered it already");
        return -EEXIST;
    }
    return failed("cuMemHostRegister", rc, why, cap);
}

void rfp_cuda_unregister(void *base, int device)
{
    context c;
    if (cuda.retain(&c, device) == 0) {
        if (cuda.push(c) == 0) {
            cuda.remove(base);
            cuda.pop(&c);
        }
        cuda.release(device);
    }
    cuda.release(device);
}
