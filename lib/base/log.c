/* The log callback. Owns nothing but the two process-wide words that rf_set_log stores. */
#include "base/log.h"

#include <ringfeed/ringfeed.h>

#include <stdarg.h>
#include <stdio.h>

static rf_log_fn log_fn;
static void *log_ctx;

void rf_set_log(rf_log_fn fn, void *ctx)
{
    log_fn = fn;
    log_ctx = ctx;
}

__attribute__((format(printf, 2, 0))) static void emit(int level, const char *fmt, va_list ap)
{
    char text[1024];
    if (!log_fn)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    log_fn(log_ctx, level, text);
}

void rfi_log(int level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit(level, fmt, ap);
    va_end(ap);
}

void rfi_log_once(int *flag, int level, const char *fmt, ...)
{
    if (*flag)
        return;
    *flag = 1;
    va_list ap;
    va_start(ap, fmt);
    emit(level, fmt, ap);
    va_end(ap);
}
