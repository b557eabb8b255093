/* What an order depends on, compared item by item. `a_is` and `b_is` say in errors where each came from. */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>

int rfi_same_number(struct rfi_error *err, const char *what, uint64_t a, uint64_t b, const char *a_is,
                    const char *b_is);
int rfi_same_text(struct rfi_error *err, const char *what, const char *a, const char *b, const char *a_is,
                  const char *b_is);

/* -EINVAL names the first thing that the order depends on and that is not the same, with both values. The world
 * may differ. */
int rfi_state_same_order(const rf_order_options *a, const rf_order_options *b, const char *a_is, const char *b_is,
                         struct rfi_error *err);
