/* The dataset as the order sees it: a few callbacks. */
#pragma once

#include "dataset/dataset.h"
#include "order/order.h"

/* Borrows d for as long as the source is used. */
void rfi_order_source_of(struct rfi_dataset *d, struct rfi_order_source *ret);
