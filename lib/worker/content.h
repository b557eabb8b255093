/* What a ticket of one ring contains, for the claim (footprints) and for the read (plan). Remembers the
 * footprints of the last few batches, because the place chain asks for each one several times. */
#pragma once

#include "dataset/dataset.h"
#include "order/order.h"
#include "plan/plan.h"
#include "ring/ring.h"

struct rfi_content {
    const struct rfi_dataset *dataset;
    struct rfi_view *view;
    uint32_t rank; /* global */
    uint64_t align, len; /* A; batches an epoch */
    uint64_t fixed_footprint; /* of a full batch of a fixed-size dataset; 0: variable */
    uint64_t *ids; /* [B] scratch */
    uint8_t *flags; /* [B] scratch */
    struct rfi_known_footprint {
        uint64_t epoch, batch, bytes;
    } * known; /* [known_cap], direct mapped; bytes 0: empty */
    uint32_t known_cap;
    struct rfi_error err;
};

int rfi_content_init(struct rfi_content *c, const struct rfi_dataset *d, const struct rfi_order *o, uint32_t rank,
                     uint64_t align, uint32_t depth);
void rfi_content_fini(struct rfi_content *c);

/* rfi_footprint_fn; ctx is the rfi_content. */
int rfi_content_footprint(void *ctx, const struct rfi_generation *g, uint64_t ticket, uint64_t *ret);

/* The batch of the rank's epoch that follows `batch`; the first follows the last. */
uint64_t rfi_content_after(const struct rfi_content *c, uint64_t epoch, uint64_t batch);

/* Ids and flags of a ticket into arrays of B; returns the count. */
uint64_t rfi_content_batch(struct rfi_content *c, uint64_t epoch, uint64_t batch, uint64_t *ids, uint8_t *flags);
