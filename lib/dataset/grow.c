/* See grow.h. Owns nothing but the mapping of each array. */
#include "dataset/grow.h"

#include "base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { FIRST_BYTES = 64 << 10 };

static int reserve(struct rfi_grow *g, size_t need)
{
    size_t cap = g->cap ? g->cap : FIRST_BYTES;
    while (cap < need)
        if (__builtin_mul_overflow(cap, (size_t)2, &cap))
            return -ENOMEM;
    void *p = g->data ? mremap(g->data, g->cap, cap, MREMAP_MAYMOVE)
                      : mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    g->data = p;
    g->cap = cap;
    return 0;
}

void *rfi_grow_take(struct rfi_grow *g, size_t bytes)
{
    size_t need;
    if (__builtin_add_overflow(g->used, bytes, &need))
        return NULL;
    if ((need > g->cap || !g->data) && reserve(g, need) < 0)
        return NULL;
    void *p = g->data + g->used;
    g->used = need;
    return p;
}

int rfi_grow_add(struct rfi_grow *g, const void *data, size_t bytes)
{
    void *p = rfi_grow_take(g, bytes);
    if (!p)
        return -ENOMEM;
    if (bytes)
        memcpy(p, data, bytes);
    return 0;
}

void rfi_grow_cut(struct rfi_grow *g, size_t used)
{
    assert(used <= g->used);
    if (g->used > used)
        memset(g->data + used, 0, g->used - used); /* what is taken next comes zeroed */
    g->used = used;
}

void rfi_grow_free(struct rfi_grow *g)
{
    if (g->data)
        munmap(g->data, g->cap);
    *g = (struct rfi_grow){0};
}
