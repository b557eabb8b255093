/* Comparing a state with what is asked for, and building the order that goes on from it. */
#include "checkpoint/resume.h"

#include "checkpoint/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int differs(struct rfi_error *err, const char *what, const char *have, const char *want)
{
    return rfi_fail(err, EINVAL,
                    "--resume: %s was %s in the checkpoint and is %s now. Give the same %s, or start without --resume",
                    what, have, want, what);
}

static int same_number(struct rfi_error *err, const char *what, uint64_t have, uint64_t want)
{
    char a[24], b[24];
    if (have == want)
        return 0;
    snprintf(a, sizeof a, "%" PRIu64, have);
    snprintf(b, sizeof b, "%" PRIu64, want);
    return differs(err, what, a, b);
}

static int same_text(struct rfi_error *err, const char *what, const char *have, const char *want)
{
    have = have ? have : "none";
    want = want ? want : "none";
    return strcmp(have, want) == 0 ? 0 : differs(err, what, have, want);
}

int rfi_state_same_order(const rf_order_options *a, const rf_order_options *b, struct rfi_error *err)
{
    int rc = same_number(err, "--batch", a->batch, b->batch);
    if (rc == 0)
        rc = same_text(err, "--strategy", rfi_strategy_names[a->strategy], rfi_strategy_names[b->strategy]);
    if (rc == 0)
        rc = same_text(err, "--base", rfi_strategy_names[a->base], rfi_strategy_names[b->base]);
    if (rc == 0)
        rc = same_text(err, "--shuffle", rfi_shuffle_names[a->shuffle], rfi_shuffle_names[b->shuffle]);
    if (rc == 0)
        rc = same_number(err, "--seed", a->seed, b->seed);
    if (rc == 0)
        rc = same_text(err, "--tail", rfi_tail_names[a->tail], rfi_tail_names[b->tail]);
    if (rc == 0)
        rc = same_number(err, "--block-samples", a->block_samples, b->block_samples);
    if (rc == 0)
        rc = same_number(err, "--window-blocks", a->window_blocks, b->window_blocks);
    if (rc == 0)
        rc = same_number(err, "--hash-partitions", a->hash_partitions, b->hash_partitions);
    if (rc == 0)
        rc = same_number(err, "--hash-seed", a->hash_seed, b->hash_seed);
    if (rc == 0)
        rc = same_text(err, "--hash-key", rfi_hash_key_names[a->hash_key], rfi_hash_key_names[b->hash_key]);
    if (rc == 0)
        rc = same_text(err, "--subset", a->subset, b->subset);
    if (rc == 0)
        rc = same_text(err, "--split", a->split, b->split);
    if (rc == 0)
        rc = same_text(err, "--use", a->use, b->use);
    if (rc == 0 && a->world_size == b->world_size)
        rc = same_text(err, "--ranges", a->ranges, b->ranges);
    return rc;
}

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
    int rc = same_text(err, "the dataset's fingerprint", s->fingerprint, fingerprint);
    if (rc == 0)
        rc = build(s, s->n_stages - 1, &now->o, src, ret, err);
    if (rc < 0)
        return rc;
    rc = rfi_moves_check(*ret, now->moves, now->n_moves, err);
    if (rc < 0) {
        rfi_order_destroy(*ret);
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
 * was given up would have had went to others. */
static int settle_rank(const struct rfi_order *order, struct rfi_stage_state *st, uint32_t r, struct rfi_error *err)
{
    struct rfi_position *at = &st->at[r];
    uint64_t len = rfi_moves_len(order, at->epoch, r, st->moves, st->n_moves);
    if (at->batch > len)
        return rfi_fail(err, EINVAL,
                        "--resume: rank %" PRIu32 " stands at batch %" PRIu64 " of epoch %" PRIu64
                        " in the checkpoint, and has %" PRIu64 " batches there now. Was the dataset or the subset "
                        "changed? Start without --resume",
                        r, at->batch, at->epoch, len);
    while (at->batch == len && rfi_order_len_in(order, at->epoch, r) > 0) {
        *at = (struct rfi_position){at->epoch + 1, 0};
        len = rfi_moves_len(order, at->epoch, r, st->moves, st->n_moves);
    }
    return 0;
}

static int settle(const struct rfi_order *order, struct rfi_stage_state *st, struct rfi_error *err)
{
    int rc = rfi_moves_check(order, st->moves, st->n_moves, err);
    for (uint32_t r = 0; r < st->o.world_size && rc == 0; r++)
        if (st->known[r])
            rc = settle_rank(order, st, r, err);
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
        if (rc < 0)
            rfi_order_destroy(*ret_order);
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

/* Another world: what is left is dealt anew, in a stage of its own. */
static int other_world(const struct rfi_state *from, const rf_order_options *o, const struct rfi_order_source *src,
                       struct rfi_order **ret_order, struct rfi_state *ret, struct rfi_error *err)
{
    struct rfi_order *order = NULL;
    struct rfi_state settled;
    uint64_t first, n;
    /* Positions are settled first: ranks at the end of an epoch do not make it unfinished. */
    int rc = same_world(from, &from->stages[from->n_stages - 1].o, src, &order, &settled, err);
    rfi_order_destroy(rc == 0 ? order : NULL);
    if (rc < 0)
        return rc;
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
    bool partial = from->partial && was->world_size == o->world_size;
    int rc = partial ? 0 : rfi_state_complete(from, err);
    if (rc == 0)
        rc = same_text(err, "the dataset's fingerprint", from->fingerprint, fingerprint);
    if (rc == 0)
        rc = same_number(err, "the number of samples", from->samples, src->samples);
    if (rc == 0)
        rc = rfi_state_same_order(was, o, err);
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
