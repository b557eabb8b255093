/* The inside of an audit: audit.c takes lines, audit_missing.c looks for what never came. */
#pragma once

#include "order/audit.h"
#include "order/pages.h"

enum { RFI_AUDIT_EXPECTED = 4096 };

struct rfi_audit {
    struct rfi_audit_options o;
    struct rfi_audit_counts counts;
    struct rfi_view *view; /* with an order */
    struct rfi_pages seen; /* (epoch, index / 4096, 0): a bit a sample */
    struct rfi_pages digests; /* (epoch, rank, batch / 64): a word a batch, 0: never came */
    uint64_t *epochs; /* that came, in order of appearance */
    size_t n_epochs, epochs_cap;

    bool open; /* a batch is being read: */
    struct rfi_id_line head; /* its first line */
    uint64_t next_slot;
    uint64_t digest;
    bool again; /* it came before */
    bool expected; /* it is one of the order's */
    uint64_t *due; /* [RFI_AUDIT_EXPECTED] ids due from slot due_from on */
    uint8_t *due_flags;
    uint64_t due_from, n_due;
    uint64_t *patched; /* [B] the open batch with the log applied; NULL until one has entries */
    uint8_t *patched_flags;
    uint64_t n_patched;
    bool is_patched;
};

static inline void rfi_audit_found(struct rfi_audit *a, const struct rfi_finding *f)
{
    a->counts.found[f->kind]++;
    if (a->o.found)
        a->o.found(a->o.ctx, f);
}

/* Word 1 of the page that note_epoch keeps: substituted lines of the epoch. */
static inline struct rfi_page_key rfi_audit_epoch_key(uint64_t epoch)
{
    return (struct rfi_page_key){epoch, UINT64_MAX, 1};
}

/* How many entries the log has for a batch. */
uint64_t rfi_audit_faults(const struct rfi_audit *a, uint64_t epoch, uint32_t rank, uint64_t batch,
                          uint64_t *ret_skipped);

void rfi_audit_missing(struct rfi_audit *a);
