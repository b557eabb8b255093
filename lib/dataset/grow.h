/* An array of bytes that grows without a copy: anonymous pages moved by mremap. A scan of ten million
 * samples keeps its tables in these, and untouched capacity costs nothing. */
#pragma once

#include <stddef.h>

struct rfi_grow {
    unsigned char *data; /* NULL while empty */
    size_t used, cap;
};

/* Room for `bytes` more, zeroed; NULL when memory is out. Moves earlier bytes: keep offsets. */
void *rfi_grow_take(struct rfi_grow *g, size_t bytes);
/* Appends; 0 or -ENOMEM. */
int rfi_grow_add(struct rfi_grow *g, const void *data, size_t bytes);
/* Gives the bytes behind `used` back to zero use. */
void rfi_grow_cut(struct rfi_grow *g, size_t used);
void rfi_grow_free(struct rfi_grow *g);
