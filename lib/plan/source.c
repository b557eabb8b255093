/* Glue between two siblings that must not know each other. */
#include "plan/source.h"

static _Bool label(void *ctx, uint64_t i, int64_t *ret)
{
    return rfi_dataset_label(ctx, i, ret);
}

static const char *key(void *ctx, uint64_t i, size_t *ret_bytes)
{
    return rfi_dataset_key(ctx, i, ret_bytes);
}

void rfi_order_source_of(struct rfi_dataset *d, struct rfi_order_source *ret)
{
    *ret = (struct rfi_order_source){
        .samples = rfi_dataset_samples(d),
        .mean_bytes = rfi_dataset_mean_bytes(d),
        .ctx = d,
        .label = rfi_dataset_has_labels(d) ? label : NULL,
        .key = rfi_dataset_has_keys(d) ? key : NULL,
    };
}
