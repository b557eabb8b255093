/* The public handle, for the layers above. */
#pragma once

#include "checkpoint/resume.h"

struct rf_checkpoint {
    struct rfi_state state;
    struct rfi_order *order; /* made when ids are asked for */
    struct rfi_view *view;
    struct rfi_error err;
};
