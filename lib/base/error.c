/* The one place where error texts are made. Must not allocate: errors are raised when memory is out. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local struct rfi_error thread_error;

int rfi_fail(struct rfi_error *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = -code;
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
    }
    return -code;
}

struct rfi_error *rfi_thread_error(void)
{
    return &thread_error;
}
