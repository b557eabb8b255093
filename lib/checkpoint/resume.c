/* Building the order that goes on from a state. */
#include "checkpoint/resume.h"

#include "base/bytes.h"
#include "checkpoint/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The stages before number `i` as a chain that ends with its order. */
static int build(const struct rfi_state *s, uint32_t i, const rf_order_options *o, const struct rfi_order_source *src,
                 struct rfi_order **ret, struct rfi_error *err)
{
    struct rfi_order *before = NULL;
    int rc = 0;
    if (i > 0)
        rc = build(s, i - 1, &s->stages[i - 1].o, src, &before, err);
    if (rc == 0)
        rc = rfi_order_create(o, src, NULL, ret, err);
    if (rc < 0 || i == 0) {
        rfi_order_destroy(before);
        return rc;
    }
    const struct rfi_stage_state *st = &s->stages[i - 1];
    rc = rfi_order_continue(*ret, before, st->at, st->moves, st->n_moves, err);
    if (rc < 0) {
        rfi_order_destroy(*ret);
        *ret = NULL;
    }
    return rc;
}

int rfi_state_order(const struct rfi_state *s, const char *fingerprint, const struct rfi_order_source *src,
                    struct rfi_order **ret, struct rfi_error *err)
{
    const struct rfi_stage_state *now = rfi_state_last(s);
    int rc =
        rfi_same_text(err, "the dataset's fingerprint", s->fingerprint, fingerprint, "the checkpoint", "what is here");
    if (rc == 0)
        rc = build(s, s->n_stages - 1, &now->o, src, ret, err);
    if (rc < 0)
        return rc;
    rc = rfi_moves_check(*ret, now->moves, now->n_moves, err);
    if (rc < 0) {
        rfi_order_destroy(*ret);
        *ret = NULL;
        return rc;
    }
    rfi_order_set_moves(*ret, now->moves, now->n_moves);
    return 0;
}

/* What the logs say of epochs that every rank has finished is of no use any more. */
static void drop_finished(struct rfi_stage_state *st)
{
    uint64_t first = UINT64_MAX, n = 0;
    for (uint32_t r = 0; r < st->o.world_size; r++)
        if (st->known[r] && st->at[r].epoch < first)
            first = st->at[r].epoch;
    for (uint64_t i = 0; i < st->n_moves; i++)
        if (st->moves[i].epoch >= first)
            st->moves[n++] = st->moves[i];
    st->n_moves = n;
    n = 0;
    for (uint64_t i = 0; i < st->n_faults; i++)
        if (st->faults[i].epoch >= first)
            st->faults[n++] = st->faults[i];
    st->n_faults = n;
}

/* A rank at the end of an epoch stands at the beginning of the next one that has something for it: what a rank that
 * was given up would have had went to others. One that has no sample at all comes along as far as the others. */
static int settle_rank(const struct rfi_order *order, struct rfi_stage_state *st, uint32_t r, uint64_t furthest,
                       struct rfi_error *err)
{
    struct rfi_position *at = &st->at[r];
    uint64_t len = rfi_moves_len(order, at->epoch, r, st->moves, st->n_moves);
    if (at->batch > len)
        return rfi_fail(err, EINVAL,
                        "--resume: rank %" PRIu32 " stands at batch %" PRIu64 " of epoch %" PRIu64
                        " in the checkpoint, and has %" PRIu64 " batches there now. Was the dataset or the subset "
                        "changed? Start without --resume",
                        r, at->batch, at->epoch, len);
    while (at->batch == len && (rfi_order_len_in(order, at->epoch, r) > 0 || at->epoch < furthest)) {
        *at = (struct rfi_position){at->epoch + 1, 0};
        len = rfi_moves_len(order, at->epoch, r, st->moves, st->n_moves);
    }
    return 0;
}

static int settle(const struct rfi_order *order, struct rfi_stage_state *st, struct rfi_error *err)
{
    int rc = rfi_moves_check(order, st->moves, st->n_moves, err);
    uint64_t furthest = 0;
    for (int pass = 0; pass < 2; pass++) /* the second one for those without a sample */
        for (uint32_t r = 0; r < st->o.world_size && rc == 0; r++) {
            if (st->known[r])
                rc = settle_rank(order, st, r, furthest, err);
            furthest = rfi_max(furthest, st->at[r].epoch);
        }
    if (rc == 0)
        drop_finished(st);
    return rc;
}

/* Same world: the last stage goes on. */
static int same_world(const struct rfi_state *from, const rf_order_options *o, const struct rfi_order_source *src,
                      struct rfi_order **ret_order, struct rfi_state *ret, struct rfi_error *err)
{
    int rc = rfi_state_copy(from, ret, err);
    if (rc < 0)
        return rc;
    rc = build(ret, ret->n_stages - 1, o, src, ret_order, err);
    if (rc == 0) {
        rc = settle(*ret_order, rfi_state_now(ret), err);
        if (rc < 0) {
            rfi_order_destroy(*ret_order);
            *ret_order = NULL;
        }
    }
    if (rc < 0)
        rfi_state_fini(ret);
    return rc;
}

static void forget_stages(struct rfi_state *s)
{
    struct rfi_stage_state now = s->stages[s->n_stages - 1];
    s->n_stages--;
    rfi_state_fini(s);
    s->stages[0] = now;
    s->n_stages = 1;
}

/* No rank stands in an epoch that an earlier stage began: the last stage alone says where all are. */
static bool past_is_over(const struct rfi_order *order, const struct rfi_state *s)
{
    const struct rfi_stage_state *st = rfi_state_last(s);
    uint64_t first, n, least = UINT64_MAX;
    for (uint32_t r = 0; r < st->o.world_size; r++)
        least = rfi_min(least, st->at[r].epoch);
    rfi_order_unfinished(order, &first, &n);
    return s->n_stages > 1 && least >= first + n;
}

/* Another world: what is left is dealt anew, in a stage of its own. */
static int other_world(const struct rfi_state *from, const rf_order_options *o, const struct rfi_order_source *src,
                       struct rfi_order **ret_order, struct rfi_state *ret, struct rfi_error *err)
{
    struct rfi_order *order = NULL;
    struct rfi_state settled;
    uint64_t first, n;
    /* Positions are settled first: ranks at the end of an epoch do not make it unfinished. */
    int rc = same_world(from, &from->stages[from->n_stages - 1].o, src, &order, &settled, err);
    if (rc < 0)
        return rc;
    if (past_is_over(order, &settled))
        forget_stages(&settled);
    rfi_order_destroy(order);
    *ret = settled;
    rc = rfi_state_add_stage(ret, o, err);
    order = NULL;
    if (rc == 0)
        rc = build(ret, ret->n_stages - 1, o, src, &order, err);
    if (rc < 0) {
        rfi_state_fini(ret);
        return rc;
    }
    rfi_order_unfinished(order, &first, &n);
    struct rfi_stage_state *now = rfi_state_now(ret);
    for (uint32_t r = 0; r < o->world_size; r++) {
        now->known[r] = true;
        now->at[r] = (struct rfi_position){first, 0};
    }
    if (n == 0) { /* all stood at the beginning of one epoch: the past is over */
        rfi_order_destroy(order);
        forget_stages(ret);
        rc = rfi_order_create(o, src, NULL, &order, err);
        if (rc < 0)
            rfi_state_fini(ret);
    }
    *ret_order = order;
    return rc;
}

int rfi_resume(const struct rfi_state *from, const rf_order_options *o, const char *fingerprint,
               const struct rfi_order_source *src, struct rfi_order **ret_order, struct rfi_state *ret_birth,
               struct rfi_error *err)
{
    const rf_order_options *was = &from->stages[from->n_stages - 1].o;
    static const char in_checkpoint[] = "the checkpoint", now[] = "this command";
    bool partial = from->partial && was->world_size == o->world_size;
    int rc = partial ? 0 : rfi_state_complete(from, err);
    if (rc == 0)
        rc = rfi_same_text(err, "--resume: the dataset's fingerprint", from->fingerprint, fingerprint, in_checkpoint,
                           now);
    if (rc == 0)
        rc = rfi_same_number(err, "--resume: the number of samples", from->samples, src->samples, in_checkpoint, now);
    if (rc == 0)
        rc = rfi_state_same_order(was, o, in_checkpoint, now, err);
    if (rc < 0)
        return rc;
    if (was->world_size == o->world_size)
        return same_world(from, o, src, ret_order, ret_birth, err);
    return other_world(from, o, src, ret_order, ret_birth, err);
}

int rfi_state_begin(const rf_order_options *o, const char *fingerprint, uint64_t samples, const char *name,
                    const char *run, uint64_t start_epoch, struct rfi_state *ret, struct rfi_error *err)
{
    *ret = (struct rfi_state){.samples = samples, .start_epoch = start_epoch};
    snprintf(ret->fingerprint, sizeof ret->fingerprint, "%s", fingerprint);
    snprintf(ret->name, sizeof ret->name, "%s", name);
    snprintf(ret->run, sizeof ret->run, "%s", run);
    int rc = rfi_state_add_stage(ret, o, err);
    for (uint32_t r = 0; r < o->world_size && rc == 0; r++) {
        ret->stages[0].known[r] = true;
        ret->stages[0].at[r].epoch = start_epoch;
    }
    if (rc == 0)
        rc = rfi_state_set_moves(&ret->stages[0], NULL, 0, err);
    if (rc == 0)
        rc = rfi_state_set_faults(&ret->stages[0], NULL, 0, err);
    if (rc < 0)
        rfi_state_fini(ret);
    return rc;
}
