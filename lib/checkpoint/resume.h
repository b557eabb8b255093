/* From a state to a run that goes on: the same one, or one with another world size. */
#pragma once

#include "checkpoint/state.h"
#include "run/run.h"

/* The order of a run with options `o` over `src` (whose dataset has `fingerprint`) that goes on from `from`,
 * which must be complete. *ret_order: as from rfi_order_create, with the past that it needs. *ret_birth: the
 * state it begins with; the last stage's positions are where each rank starts and its moves are in effect.
 * Everything is compared: -EINVAL names what differs, with both values. */
int rfi_resume(const struct rfi_state *from, const rf_order_options *o, const char *fingerprint,
               const struct rfi_order_source *src, struct rfi_order **ret_order, struct rfi_state *ret_birth,
               struct rfi_error *err);

/* The order of the state's last stage, past and moves included. Borrows the moves. */
int rfi_state_order(const struct rfi_state *s, const char *fingerprint, const struct rfi_order_source *src,
                    struct rfi_order **ret, struct rfi_error *err);

/* The state of a run that begins. `run`: its identity. */
int rfi_state_begin(const rf_order_options *o, const char *fingerprint, uint64_t samples, const char *name,
                    const char *run, uint64_t start_epoch, struct rfi_state *ret, struct rfi_error *err);

/* Where a run stands, alive or dead: batches released, moves made. Looks at the control object only. */
int rfi_state_capture(const struct rfi_run_view *run, struct rfi_state *ret, struct rfi_error *err);

/* The same of the run that has `name`, when its owner is dead. -ENOENT: none, or it lives. */
int rfi_state_capture_dead(const char *name, struct rfi_state *ret, struct rfi_error *err);
