/* See content.h. */
#include "worker/content.h"

#include "base/bytes.h"
#include "run/run.h"

#include <errno.h>
#include <stdlib.h>

int rfi_content_init(struct rfi_content *c, const struct rfi_dataset *d, const struct rfi_order *o, uint32_t rank,
                     uint64_t align, uint32_t depth)
{
    uint64_t batch = rfi_order_batch_samples(o);
    *c = (struct rfi_content){
        .dataset = d, .rank = rank, .align = align, .len = rfi_order_len(o, rank), .known_cap = 4 * depth};
    c->ids = malloc(batch * sizeof *c->ids);
    c->flags = malloc(batch);
    c->known = calloc(c->known_cap, sizeof *c->known);
    if (!c->ids || !c->flags || !c->known)
        return rfi_fail(&c->err, ENOMEM, "out of memory for the contents of rank %u", rank);
    return rfi_view_create(o, &c->view, &c->err);
}

void rfi_content_fini(struct rfi_content *c)
{
    rfi_view_destroy(c->view);
    free(c->ids);
    free(c->flags);
    free(c->known);
}

uint64_t rfi_content_batch(struct rfi_content *c, uint64_t epoch, uint64_t batch, uint64_t *ids, uint8_t *flags)
{
    rfi_view_seek(c->view, epoch, c->rank);
    return rfi_view_batch(c->view, batch, ids, flags);
}

uint64_t rfi_content_after(const struct rfi_content *c, uint64_t epoch, uint64_t batch)
{
    (void)epoch;
    return batch + 1 < c->len ? batch + 1 : 0;
}

int rfi_content_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    struct rfi_content *c = ctx;
    uint64_t epoch, batch;
    if (c->len == 0 || ticket >= g->end_ticket) {
        *ret = c->align;
        return 0;
    }
    rfi_run_content(g, ticket, c->len, &epoch, &batch);
    struct rfi_known_footprint *k = &c->known[(epoch * c->len + batch) % c->known_cap];
    if (k->bytes && k->epoch == epoch && k->batch == batch) {
        *ret = k->bytes;
        return 0;
    }
    uint64_t n = rfi_content_batch(c, epoch, batch, c->ids, c->flags);
    int rc = rfi_plan_footprint(c->dataset, c->align, c->ids, (uint32_t)n, ret, &c->err);
    if (rc == 0)
        *k = (struct rfi_known_footprint){.epoch = epoch, .batch = batch, .bytes = *ret};
    return rc;
}
