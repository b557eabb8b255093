/* What the verbs order and verify share: an order over a dataset or over N virtual samples. */
#pragma once

#include "cli.h"
#include "order/order.h"
#include "plan/source.h"

#include <errno.h>

/* `d` NULL: virtual, a->samples of them. 0, or an exit code after a message. */
static inline int order_open(const struct cli_order_args *a, rf_dataset *d, struct rfi_order **ret)
{
    struct rfi_order_source source = {.samples = a->samples, .mean_bytes = 1};
    struct rfi_error err = {0};
    if (d)
        rfi_order_source_of(rfi_dataset_of(d), &source);
    int rc = rfi_order_create(&a->o, &source, NULL, ret, &err);
    if (rc == -EINVAL || rc == -ENOTSUP)
        return cli_usage("%s", err.text);
    return rc < 0 ? cli_fail(err.text) : CLI_OK;
}
