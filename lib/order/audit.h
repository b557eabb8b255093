/* Audit of delivered ids: was every sample delivered exactly once an epoch (padding apart), and, when
 * the order is known, was it delivered in exactly that order? Takes lines one at a time, in any order
 * of batches; lines of one batch come together. One bit a sample and epoch and 8 bytes a batch.
 *
 * A batch that comes again is a redelivery when it is identical (its trainer was killed between
 * writing the lines and releasing the batch), and a finding when not. */
#pragma once

#include "base/error.h"
#include "order/faults.h"
#include "order/id_line.h"
#include "order/order.h"

#include <stdbool.h>
#include <stdint.h>

enum rfi_finding_kind {
    RFI_FOUND_DOUBLE, /* a sample came before in this epoch */
    RFI_FOUND_CHANGED, /* a batch came again, with other content */
    RFI_FOUND_BROKEN, /* a batch's slots are not 0, 1, 2, … or it is short */
    RFI_FOUND_WRONG, /* another sample or flag than the order says */
    RFI_FOUND_UNEXPECTED, /* an epoch, rank, batch or index that does not exist */
    RFI_FOUND_MISSING_SAMPLES, /* first .. last of an epoch never came */
    RFI_FOUND_MISSING_BATCHES, /* first .. last of a rank never came */
    RFI_N_FOUND,
};

struct rfi_finding {
    enum rfi_finding_kind kind;
    struct rfi_id_line line; /* where; for missing ones epoch and rank */
    uint64_t first, last; /* missing */
    uint64_t expected; /* WRONG: the index due; BROKEN: the slot due, or samples due */
    char expected_flag;
    bool short_batch; /* BROKEN: too few lines */
};

struct rfi_audit_options {
    bool samples_known;
    uint64_t samples; /* of the dataset */
    const struct rfi_order *order; /* NULL: not compared */
    uint32_t first_rank, ranks; /* with order: whose lines are expected */
    const struct rfi_fault *faults; /* [n_faults] with order: samples that were left out or replaced; borrowed */
    uint64_t n_faults;
    bool repeats_allowed; /* overlapping ranges: a sample may come more than once */
    uint64_t first_epoch, n_epochs; /* n_epochs 0: the epochs that come, or the first if none does */
    void (*found)(void *ctx, const struct rfi_finding *f);
    void *ctx;
};

struct rfi_audit_counts {
    uint64_t lines, epochs, batches, samples, padding, substituted;
    uint64_t replaced; /* samples that did not come because another stands in their place, or the log leaves them out */
    uint64_t redelivered; /* batches */
    uint64_t missing, doubled; /* samples */
    uint64_t found[RFI_N_FOUND];
};

struct rfi_audit;

int rfi_audit_create(const struct rfi_audit_options *o, struct rfi_audit **ret, struct rfi_error *err);
void rfi_audit_destroy(struct rfi_audit *a);

/* -ENOMEM only; what is wrong with the delivery is found, not failed. */
int rfi_audit_line(struct rfi_audit *a, const struct rfi_id_line *line, struct rfi_error *err);

/* No further line belongs to the batch of the last one (the end of a file). */
int rfi_audit_break(struct rfi_audit *a, struct rfi_error *err);

/* Looks for what is missing. No lines after it. */
int rfi_audit_finish(struct rfi_audit *a, struct rfi_audit_counts *ret, struct rfi_error *err);
