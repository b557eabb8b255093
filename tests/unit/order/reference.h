/* The order computed the slow, obvious way: whole lists, no seeking, no arithmetic shortcuts. Shares
 * with the library only the permutation of n values (tested by itself) and the partition of a hash. */
#pragma once

#include <ringfeed/ringfeed.h>
#include <stdint.h>

struct reference {
    uint32_t world_size;
    uint64_t *n; /* [world_size] */
    uint64_t **ids; /* [world_size][n[r]], the rank's sequence */
};

/* The made-up label of sample i in a dataset of these tests, and its key. */
int64_t test_label(uint64_t i);

/* Sequences of every rank in one epoch. Ranges must be given for RF_RANGE as "lo:hi,…". No subset. */
void reference_make(struct reference *ref, const rf_order_options *o, uint64_t samples, uint64_t epoch);
void reference_free(struct reference *ref);

/* One batch under the tail rule, from the lists; returns the count. */
uint64_t reference_batch(const struct reference *ref, const rf_order_options *o, uint32_t rank, uint64_t batch,
                         uint64_t *ids, uint8_t *flags);
uint64_t reference_len(const struct reference *ref, const rf_order_options *o, uint32_t rank);
