/* What a trainer's handle knows of its run, for the command: read-only, valid until rf_detach. */
#pragma once

#include "dataset/dataset.h"
#include "run/run.h"

#include <ringfeed/ringfeed.h>

const struct rfi_run_view *rfi_trainer_run(const rf_trainer *t);
const struct rfi_dataset *rfi_trainer_dataset(const rf_trainer *t);
