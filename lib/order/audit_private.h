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
};

static inline void rfi_audit_found(struct rfi_audit *a, const struct rfi_finding *f)
{
    a->counts.found[f->kind]++;
    if (a->o.found)
        a->o.found(a->o.ctx, f);
}

void rfi_audit_missing(struct rfi_audit *a);
