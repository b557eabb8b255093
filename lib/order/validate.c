/* Everything about the options that can be judged without a dataset. Texts name the command's option;
 * the fields of rf_order_options have the same names. */
#include "order/order_private.h"

#include "base/bytes.h"
#include "order/subset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define MAX_WORLD 1000000u
#define MAX_PARTITIONS ((uint64_t)1 << 24) /* 16 a rank for the largest world */
#define MAX_SAMPLES ((uint64_t)1 << 63)

uint64_t rfi_order_partitions(const rf_order_options *o)
{
    return o->hash_partitions ? o->hash_partitions : rfi_max(1024, 16 * (uint64_t)o->world_size);
}

static int check_struct(const rf_order_options *o, struct rfi_error *err)
{
    if (!o)
        return rfi_fail(err, EINVAL, "order options: a null pointer. Pass a struct set up by rf_order_options_init");
    if (o->size != sizeof *o)
        return rfi_fail(err, EINVAL,
                        "order options: size is %zu, not %zu. Call rf_order_options_init first, and build against the "
                        "header of this library",
                        o->size, sizeof *o);
    for (size_t i = 0; i < sizeof o->reserved / sizeof *o->reserved; i++)
        if (o->reserved[i])
            return rfi_fail(err, EINVAL, "order options: a reserved field is not 0. Call rf_order_options_init first");
    return 0;
}

static int check_choice(const char *option, int value, int n, struct rfi_error *err)
{
    if (value >= 0 && value < n)
        return 0;
    return rfi_fail(err, EINVAL, "%s: %d is none of its values (0 to %d). Use the constants of ringfeed.h", option,
                    value, n - 1);
}

static int check_choices(const rf_order_options *o, struct rfi_error *err)
{
    if (check_choice("--strategy", (int)o->strategy, RF_ADAPTIVE + 1, err) < 0 ||
        check_choice("--shuffle", (int)o->shuffle, RF_SHUFFLE_BLOCK + 1, err) < 0 ||
        check_choice("--tail", (int)o->tail, RF_TAIL_PAD + 1, err) < 0 ||
        check_choice("--hash-key", (int)o->hash_key, RF_HASH_LABEL + 1, err) < 0 ||
        check_choice("--base", (int)o->base, RF_ADAPTIVE, err) < 0)
        return -EINVAL;
    if (o->strategy != RF_ADAPTIVE && o->base != RF_ROUND_ROBIN)
        return rfi_fail(err, EINVAL,
                        "--base: only strategy adaptive has one. Add --strategy adaptive, or leave it out");
    return 0;
}

static int check_sizes(const rf_order_options *o, struct rfi_error *err)
{
    if (o->world_size == 0 || o->world_size > MAX_WORLD)
        return rfi_fail(err, EINVAL,
                        "--world-size %" PRIu32 ": there are 1 to %u ranks. Give the number of all ranks of the run",
                        o->world_size, MAX_WORLD);
    if (o->batch == 0 || o->batch > UINT32_MAX)
        return rfi_fail(err, EINVAL,
                        "--batch %" PRIu64 ": a batch has 1 to %" PRIu32 " samples. Give the samples of one batch",
                        o->batch, UINT32_MAX);
    if (o->samples > MAX_SAMPLES)
        return rfi_fail(err, EINVAL, "--samples %" PRIu64 ": at most %" PRIu64 " samples can be ordered. Give fewer",
                        o->samples, MAX_SAMPLES);
    return 0;
}

static rf_strategy deals_as(const rf_order_options *o)
{
    return o->strategy == RF_ADAPTIVE ? o->base : o->strategy;
}

static int check_partitions(const rf_order_options *o, struct rfi_error *err)
{
    if (deals_as(o) != RF_HASH)
        return 0;
    uint64_t p = rfi_order_partitions(o);
    if (p < o->world_size)
        return rfi_fail(err, EINVAL,
                        "--hash-partitions %" PRIu64 ": fewer than the %" PRIu32
                        " ranks, so some would stay empty. Give at "
                        "least %" PRIu32 ", better 16 a rank",
                        p, o->world_size, o->world_size);
    if (p > MAX_PARTITIONS)
        return rfi_fail(err, EINVAL, "--hash-partitions %" PRIu64 ": at most %" PRIu64 " are possible. Give fewer", p,
                        MAX_PARTITIONS);
    return 0;
}

static int check_ranges(const rf_order_options *o, struct rfi_error *err)
{
    struct rfi_range *ranges;
    if (deals_as(o) != RF_RANGE)
        return o->ranges ? rfi_fail(err, EINVAL,
                                    "--ranges: only strategy range has them. Add --strategy range, or leave "
                                    "them out")
                         : 0;
    if (!o->ranges)
        return rfi_fail(err, EINVAL, "--strategy range: no ranges. Add --ranges LO:HI,LO:HI,… with one range a rank");
    int rc = rfi_ranges_parse(o->ranges, o->world_size, &ranges, err);
    if (rc < 0)
        return rc;
    rc = rfi_ranges_check_overlap(ranges, o->world_size, o->allow_overlap, err);
    free(ranges);
    return rc;
}

int rfi_order_validate(const rf_order_options *o, struct rfi_error *err)
{
    int rc = check_struct(o, err);
    if (rc == 0)
        rc = check_choices(o, err);
    if (rc == 0)
        rc = check_sizes(o, err);
    if (rc == 0)
        rc = check_partitions(o, err);
    if (rc == 0)
        rc = check_ranges(o, err);
    return rc == 0 ? rfi_subset_validate(o, err) : rc;
}
