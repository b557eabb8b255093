/* The array lives in private memory: what a dead worker had finished and not reaped dies with it, and
 * a synchronous read is over when the process that made it is reaped, so drain has nothing to wait
 * for. */
#include "reader/done.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct done {
    uint32_t head, n;
    struct rfi_completion items[];
};

int rfi_done_open(struct rfi_reader *r, uint32_t depth, struct rfi_error *err)
{
    struct done *d = calloc(1, sizeof *d + (size_t)depth * sizeof d->items[0]);
    if (!d)
        return rfi_fail(err, ENOMEM, "reader: no memory for a queue of %u reads. Free some memory", depth);
    r->state = d;
    return 0;
}

void rfi_done_push(struct rfi_reader *r, uint32_t tag, int32_t result)
{
    struct done *d = r->state;
    assert(r->in_flight < r->depth);
    d->items[(d->head + d->n) % r->depth] = (struct rfi_completion){.tag = tag, .result = result};
    d->n++;
    r->in_flight++;
}

int rfi_done_submit(struct rfi_reader *r)
{
    (void)r;
    return 0;
}

int rfi_done_reap(struct rfi_reader *r, struct rfi_completion *ret, uint32_t cap, uint64_t wait_ns)
{
    struct done *d = r->state;
    uint32_t n = 0;
    (void)wait_ns; /* whatever was queued is done: there is nothing to wait for */
    while (n < cap && d->n > 0) {
        ret[n++] = d->items[d->head];
        d->head = (d->head + 1) % r->depth;
        d->n--;
    }
    r->in_flight -= n;
    return (int)n;
}

int rfi_done_drain(struct rfi_reader *r, void (*seen)(void *ctx, uint32_t tag, int32_t result), void *ctx)
{
    struct done *d = r->state;
    (void)seen;
    (void)ctx;
    d->head = d->n = 0;
    r->in_flight = 0;
    return 1;
}

int rfi_done_drain_fd(const struct rfi_reader *r)
{
    (void)r;
    return -1;
}

void rfi_done_close(struct rfi_reader *r)
{
    free(r->state);
    r->state = NULL;
    r->in_flight = 0;
}
