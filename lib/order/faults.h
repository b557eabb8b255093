/* Decisions about samples that could not be read: which sample of a batch was left out, or which other one
 * stands in its place. Once made, a decision is part of what the batch contains. Pure: the worker that
 * delivers, `order` that predicts and `verify` that audits apply the same list by the same function. */
#pragma once

#include <stdint.h>

#define RFI_FAULT_SKIPPED UINT64_MAX

/* The key is (epoch, rank, batch, slot); `slot` counts in the undisturbed batch, before anything was left out. */
struct rfi_fault {
    uint64_t epoch, rank, batch, slot; /* rank: global */
    uint64_t sample; /* that could not be read */
    uint64_t substitute; /* in its place; RFI_FAULT_SKIPPED: none */
    uint64_t offset; /* in the file, of the first failure */
    uint32_t file;
    uint32_t error; /* errno; EILSEQ: a wrong checksum */
};
_Static_assert(sizeof(struct rfi_fault) == 64, "a line of the error log");

/* Applies the entries of one batch (all with its epoch, rank and batch; in any order) to its ids and flags:
 * substitutes take their place and get RF_FLAG_SUBSTITUTED, skipped ones are left out and those behind move
 * up. Returns how many samples are left. Of two entries for one slot the first counts; a slot outside the
 * batch means nothing. `moved` may be NULL: else [n], the undisturbed slot of each sample that is left.
 * `flags` may be NULL. */
uint64_t rfi_faults_apply(uint64_t *ids, uint8_t *flags, uint64_t n, const struct rfi_fault *entries,
                          uint64_t n_entries, uint32_t *moved);
