/* See content.h. */
#include "worker/content.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

int rfi_content_init(struct rfi_content *c, const struct rfi_dataset *d, const struct rfi_order *o, uint32_t rank,
                     const struct rfi_epoch_lens *lens, uint64_t align, uint32_t depth)
{
    uint64_t batch = rfi_order_batch_samples(o);
    *c = (struct rfi_content){.dataset = d, .lens = lens, .rank = rank, .align = align, .known_cap = 4 * depth};
    c->ids = malloc(batch * sizeof *c->ids);
    c->flags = malloc(batch);
    c->dense.is = rfi_dataset_fixed_bytes(d) > 0;
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

/* Into the scratch arrays, unless it is there: footprint, claim and plan ask for the same one. The view stands there
 * afterwards. */
static int fill(struct rfi_content *c, uint64_t epoch, uint64_t batch, uint64_t moves, uint32_t *ret_n)
{
    struct rfi_filled *f = &c->filled;
    int rc = rfi_view_seek_moved(c->view, epoch, c->rank, moves, &c->err);
    if (rc < 0)
        return rc;
    if (!f->n || f->epoch != epoch || f->batch != batch || f->moves != moves) {
        uint32_t n = (uint32_t)rfi_view_batch(c->view, batch, c->ids, c->flags);
        *f = (struct rfi_filled){.epoch = epoch, .batch = batch, .moves = moves, .n = n};
    }
    *ret_n = f->n;
    return 0;
}

int rfi_content_batch(struct rfi_content *c, const struct rfi_generation *g, uint64_t ticket,
                      struct rfi_content_batch *ret)
{
    rfi_run_content(c->lens, g, ticket, &ret->epoch, &ret->batch);
    int rc = fill(c, ret->epoch, ret->batch, g->log_length, &ret->n_samples);
    if (rc == 0)
        ret->last = ret->batch + 1 == rfi_view_len(c->view);
    return rc;
}

uint64_t rfi_content_at(struct rfi_content *c, uint64_t epoch, uint64_t batch, uint64_t moves)
{
    uint32_t n;
    return fill(c, epoch, batch, moves, &n) < 0 ? 0 : n;
}

uint64_t rfi_content_after(const struct rfi_content *c, uint64_t batch)
{
    return batch + 1 < rfi_view_len(c->view) ? batch + 1 : 0;
}

/* Samples of one size: which they are does not matter to a footprint, only how many. */
static int dense_footprint(struct rfi_content *c, uint64_t epoch, uint64_t batch, uint64_t moves, uint64_t *ret)
{
    int rc = rfi_view_seek_moved(c->view, epoch, c->rank, moves, &c->err);
    if (rc < 0)
        return rc;
    uint32_t n = (uint32_t)rfi_view_batch_size(c->view, batch);
    if (!c->dense.bytes || n != c->dense.n) {
        rc = rfi_plan_footprint(c->dataset, c->align, c->ids, n, &c->dense.bytes, &c->err);
        if (rc < 0)
            return rc;
        c->dense.n = n;
    }
    *ret = c->dense.bytes;
    return 0;
}

int rfi_content_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret)
{
    struct rfi_content *c = ctx;
    uint64_t epoch, batch;
    uint32_t n;
    if (ticket >= g->end_ticket) {
        *ret = c->align;
        return 0;
    }
    rfi_run_content(c->lens, g, ticket, &epoch, &batch);
    if (c->dense.is)
        return dense_footprint(c, epoch, batch, g->log_length, ret);
    struct rfi_known_footprint *k = &c->known[(epoch * c->lens->len + batch) % c->known_cap];
    if (k->bytes && k->epoch == epoch && k->batch == batch && k->moves == g->log_length) {
        *ret = k->bytes;
        return 0;
    }
    int rc = fill(c, epoch, batch, g->log_length, &n);
    if (rc == 0)
        rc = rfi_plan_footprint(c->dataset, c->align, c->ids, n, ret, &c->err);
    if (rc == 0)
        *k = (struct rfi_known_footprint){.epoch = epoch, .batch = batch, .moves = g->log_length, .bytes = *ret};
    return rc;
}

uint64_t rfi_content_window_left(struct rfi_content *c, const struct rfi_ring *r, uint64_t ticket)
{
    struct rfi_generation g;
    uint64_t epoch, batch;
    rfi_ring_generation(r, ticket, &g);
    if (ticket >= g.end_ticket)
        return 1;
    rfi_run_content(c->lens, &g, ticket, &epoch, &batch);
    if (rfi_view_seek_moved(c->view, epoch, c->rank, g.log_length, &c->err) < 0)
        return 1;
    return rfi_view_window_left(c->view, batch);
}
