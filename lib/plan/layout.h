/* The layout rules of plan.h as a walk over the samples of one batch. The walk is one piece of code for
 * the full plan and for the bare footprint, so that the two cannot disagree. */
#pragma once

#include "base/bytes.h"
#include "plan/plan.h"

/* Where the next run goes. */
struct rfi_cursor {
    uint64_t align; /* A */
    uint64_t at; /* bytes of the region used so far */
};

/* Gives the run [offset, offset+bytes) of a file its place and moves the cursor behind it. 0, or
 * -EOVERFLOW when the region would pass 2^63 bytes. */
int rfi_cursor_place(struct rfi_cursor *c, uint64_t offset, uint64_t bytes, uint64_t *ret_place, bool *ret_in_place);

/* What the cursor stands for: a multiple of A and at least A. */
static inline uint64_t rfi_cursor_footprint(const struct rfi_cursor *c)
{
    return rfi_max(c->align, rfi_align_up(c->at, c->align));
}
