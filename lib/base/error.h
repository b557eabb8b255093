/* Errors as values: every function that can fail returns 0 or a negative errno and leaves one
 * sentence for people in a caller-owned struct. The library never prints and never exits. */
#pragma once

#include <stddef.h>

struct rfi_error {
    int code; /* negative errno, 0: none */
    char text[1024]; /* "WHAT: WHY. WHAT TO DO" */
};

/* Records the text and returns -code (code is a positive errno). `err` may be NULL. */
__attribute__((format(printf, 3, 4))) int rfi_fail(struct rfi_error *err, int code, const char *fmt, ...);

/* The thread's own struct behind rf_last_error(). */
struct rfi_error *rfi_thread_error(void);
