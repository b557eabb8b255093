/* See compare.h. */
#include "checkpoint/compare.h"
#include "order/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int rfi_same_text(struct rfi_error *err, const char *what, const char *a, const char *b, const char *a_is,
                  const char *b_is)
{
    a = a ? a : "none";
    b = b ? b : "none";
    if (strcmp(a, b) == 0)
        return 0;
    return rfi_fail(
        err, EINVAL,
        "%s is %s in %s and %s in %s. Give the same %s to both, or start at the beginning (without --resume)", what, a,
        a_is, b, b_is, what);
}

int rfi_same_number(struct rfi_error *err, const char *what, uint64_t a, uint64_t b, const char *a_is, const char *b_is)
{
    char x[24], y[24];
    snprintf(x, sizeof x, "%" PRIu64, a);
    snprintf(y, sizeof y, "%" PRIu64, b);
    return rfi_same_text(err, what, x, y, a_is, b_is);
}

int rfi_state_same_order(const rf_order_options *a, const rf_order_options *b, const char *a_is, const char *b_is,
                         struct rfi_error *err)
{
    const struct {
        const char *what;
        uint64_t a, b;
    } numbers[] = {
        {"--batch", a->batch, b->batch},
        {"--seed", a->seed, b->seed},
        {"--repeat-order", a->repeat_order != 0, b->repeat_order != 0},
        {"--subset-sequence", a->subset_sequence != 0, b->subset_sequence != 0},
        {"--block-samples", a->block_samples, b->block_samples},
        {"--window-blocks", a->window_blocks, b->window_blocks},
        {"--hash-partitions", a->hash_partitions, b->hash_partitions},
        {"--hash-seed", a->hash_seed, b->hash_seed},
    };
    const struct {
        const char *what, *a, *b;
    } texts[] = {
        {"--strategy", rfi_strategy_names[a->strategy], rfi_strategy_names[b->strategy]},
        {"--base", rfi_strategy_names[a->base], rfi_strategy_names[b->base]},
        {"--shuffle", rfi_shuffle_names[a->shuffle], rfi_shuffle_names[b->shuffle]},
        {"--tail", rfi_tail_names[a->tail], rfi_tail_names[b->tail]},
        {"--hash-key", rfi_hash_key_names[a->hash_key], rfi_hash_key_names[b->hash_key]},
        {"--subset", a->subset, b->subset},
        {"--split", a->split, b->split},
        {"--use", a->use, b->use},
        {"--ranges", a->ranges, a->world_size == b->world_size ? b->ranges : a->ranges},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && rc == 0; i++)
        rc = rfi_same_text(err, texts[i].what, texts[i].a, texts[i].b, a_is, b_is);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && rc == 0; i++)
        rc = rfi_same_number(err, numbers[i].what, numbers[i].a, numbers[i].b, a_is, b_is);
    return rc;
}
