/* What a trainer's handle knows of its run, for the command: read-only, valid until rf_detach. */
#pragma once

#include "dataset/dataset.h"
#include "run/run.h"

#include <ringfeed/ringfeed.h>
#include <signal.h>

const struct rfi_run_view *rfi_trainer_run(const rf_trainer *t);
const struct rfi_dataset *rfi_trainer_dataset(const rf_trainer *t);

/* `next` returns -EINTR soon after *flag becomes non-zero (set by a signal handler). */
void rfi_trainer_interrupt_by(rf_trainer *t, const volatile sig_atomic_t *flag);
