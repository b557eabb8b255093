/* Resolving --subset, --split and --use into members. */
#include "order/subset.h"

#include "order/numbers.h"
#include "order/split.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static int check_pair(uint64_t a, uint64_t b, struct rfi_error *err)
{
    if (a <= b)
        return 0;
    return rfi_fail(err, EINVAL, "--subset %" PRIu64 ":%" PRIu64 ": ends before it begins. Give A:B with A <= B", a, b);
}

int rfi_subset_validate(const rf_order_options *o, struct rfi_error *err)
{
    uint64_t a, b;
    struct rfi_split split;
    if (o->subset && !*o->subset)
        return rfi_fail(err, EINVAL, "--subset: empty. Give A:B, or a file with one index a line");
    if (o->subset && rfi_read_pair(o->subset, &a, &b) && check_pair(a, b, err) < 0)
        return -EINVAL;
    if (o->split && !o->use)
        return rfi_fail(err, EINVAL, "--split without --use: which split to deliver is not said. Add --use NAME");
    if (o->use && !o->split)
        return rfi_fail(err, EINVAL, "--use without --split: there are no splits. Add --split NAME:FRACTION,…");
    if (o->subset_sequence && (!o->subset || rfi_read_pair(o->subset, &a, &b)))
        return rfi_fail(err, EINVAL, "--subset-sequence: no file. Add --subset FILE, with one index a line");
    if (o->subset_sequence && o->split)
        return rfi_fail(err, EINVAL,
                        "--subset-sequence and --split: a split is one of a set. Write the sequence of one part");
    if (o->subset_sequence && o->strategy != RF_ROUND_ROBIN && o->strategy != RF_CONTIGUOUS)
        return rfi_fail(err, EINVAL,
                        "--subset-sequence: only strategies round-robin and contiguous deal a sequence. Choose one");
    return o->split ? rfi_split_parse(o->split, o->use, &split, err) : 0;
}

static int load_base(const rf_order_options *o, uint64_t samples, struct rfi_subset *s, struct rfi_error *err)
{
    uint64_t a, b;
    *s = (struct rfi_subset){.n = samples};
    if (!o->subset)
        return 0;
    if (!rfi_read_pair(o->subset, &a, &b)) {
        s->listed = true;
        return rfi_subset_read_file(o->subset, samples, o->subset_sequence != 0, &s->table, &s->n, err);
    }
    int rc = check_pair(a, b, err);
    if (rc < 0)
        return rc;
    if (b > samples)
        return rfi_fail(err, EINVAL,
                        "--subset %" PRIu64 ":%" PRIu64 ": out of bounds, there are %" PRIu64 " samples. End it at "
                        "%" PRIu64 " or before",
                        a, b, samples, samples);
    s->n = b - a;
    s->offset = a;
    return 0;
}

static int take_split(const struct rfi_split *split, struct rfi_subset *s, struct rfi_error *err)
{
    uint64_t n = rfi_split_count(split, s->n);
    uint32_t *members = malloc((n ? n : 1) * sizeof *members);
    if (!members)
        return rfi_fail(err, ENOMEM, "--split: no memory for %" PRIu64 " indices", n);
    int rc = rfi_split_members(split, s->n, members, err);
    if (rc < 0) {
        free(members);
        return rc;
    }
    for (uint64_t x = 0; x < n; x++)
        members[x] = s->listed ? s->table[members[x]] : (uint32_t)(s->offset + members[x]);
    free(s->table);
    *s = (struct rfi_subset){.n = n, .listed = true, .table = members};
    return 0;
}

static int load_split(const rf_order_options *o, uint64_t samples, bool with_table, struct rfi_subset *s,
                      struct rfi_error *err)
{
    struct rfi_split split;
    int rc = rfi_split_parse(o->split, o->use, &split, err);
    if (rc < 0)
        return rc;
    if (samples > (uint64_t)UINT32_MAX + 1)
        return rfi_fail(err, EINVAL,
                        "--split: %" PRIu64 " samples, but the table of a split holds indices up to 4294967295. Use "
                        "--subset A:B, which needs no table",
                        samples);
    if (with_table)
        return take_split(&split, s, err);
    s->n = rfi_split_count(&split, s->n);
    s->listed = true;
    return 0;
}

int rfi_subset_load(const rf_order_options *o, uint64_t samples, bool with_table, struct rfi_subset *ret,
                    struct rfi_error *err)
{
    int rc = load_base(o, samples, ret, err);
    if (rc == 0 && o->split)
        rc = load_split(o, samples, with_table, ret, err);
    if (rc < 0 || !with_table) {
        free(ret->table);
        ret->table = NULL;
    }
    return rc;
}

void rfi_subset_fini(struct rfi_subset *s)
{
    free(s->table);
    s->table = NULL;
}
