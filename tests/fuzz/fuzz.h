/* A fuzz target gets bytes as a file. Under clang libFuzzer calls it; everywhere else replay.c feeds
 * it the seeds and simple mutations of them. A broken promise aborts. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(what)                                                               \
    do {                                                                               \
        if (!(what)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                                   \
        }                                                                              \
    } while (0)

/* A descriptor of a file that holds exactly these bytes; the same one at each call. */
int fuzz_file(const uint8_t *data, size_t size);
