/* What a ticket of one ring contains, for the claim (footprints) and for the read (plan). Remembers the
 * footprints of the last few batches, because the place chain asks for each one several times. */
#pragma once

#include "dataset/dataset.h"
#include "order/order.h"
#include "plan/plan.h"
#include "ring/ring.h"
#include "run/run.h"

struct rfi_content {
    const struct rfi_dataset *dataset;
    struct rfi_view *view;
    const struct rfi_epoch_lens *lens;
    uint32_t rank; /* global */
    uint64_t align; /* A */
    uint64_t *ids; /* [B] scratch */
    uint8_t *flags; /* [B] scratch */
    struct rfi_filled {
        uint64_t epoch, batch, moves;
        uint32_t n; /* 0: nothing, or an empty batch */
    } filled; /* what the scratch arrays hold */
    struct rfi_known_footprint {
        uint64_t epoch, batch, moves, bytes;
    } * known; /* [known_cap], direct mapped; bytes 0: empty */
    uint32_t known_cap;
    struct {
        bool is; /* all samples are of one size */
        uint32_t n;
        uint64_t bytes; /* footprint of n of them; 0: not known */
    } dense;
    struct rfi_error err;
};

int rfi_content_init(struct rfi_content *c, const struct rfi_dataset *d, const struct rfi_order *o, uint32_t rank,
                     const struct rfi_epoch_lens *lens, uint64_t align, uint32_t depth);
void rfi_content_fini(struct rfi_content *c);

/* rfi_footprint_fn; ctx is the rfi_content. */
int rfi_content_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret);

/* One ticket: where it stands, and its ids and flags in the scratch arrays. */
struct rfi_content_batch {
    uint64_t epoch, batch;
    uint32_t n_samples;
    bool last; /* of its epoch, as far as the log goes */
};
int rfi_content_batch(struct rfi_content *c, const struct rfi_generation *g, uint64_t ticket,
                      struct rfi_content_batch *ret);

/* The same of any batch of the rank's epoch, with the first `moves` entries of the log; returns the count, 0 where
 * there is no such batch. */
uint64_t rfi_content_at(struct rfi_content *c, uint64_t epoch, uint64_t batch, uint64_t moves);

/* The batch of the rank's epoch that follows `batch`, which rfi_content_at looked at last; the first follows the
 * last. */
uint64_t rfi_content_after(const struct rfi_content *c, uint64_t batch);

/* Batches from `ticket`'s to the end of its window of blocks, itself included (block shuffle). */
uint64_t rfi_content_window_left(struct rfi_content *c, const struct rfi_ring *r, uint64_t ticket);
