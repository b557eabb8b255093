/* rf_checkpoint_make: a checkpoint from what a program remembers, not from a run. */
#include "checkpoint/handle.h"

#include "base/bytes.h"
#include "plan/source.h"

#include <errno.h>
#include <stdlib.h>

/* The state in which a run with these options begins, and its order. */
static int begin(const rf_order_options *o, const struct rfi_state *from, const rf_dataset_info *info,
                 const struct rfi_order_source *source, struct rfi_state *state, struct rfi_order **ret_order,
                 struct rfi_error *err)
{
    if (from)
        return rfi_resume(from, o, info->fingerprint, source, ret_order, state, err);
    int rc = rfi_state_begin(o, info->fingerprint, info->samples, "made", "made", 0, state, err);
    if (rc < 0)
        return rc;
    rc = rfi_state_order(state, info->fingerprint, source, ret_order, err);
    if (rc < 0)
        rfi_state_fini(state);
    return rc;
}

static void place(struct rfi_state *s, const struct rfi_order *order, uint64_t epoch, uint64_t batch)
{
    struct rfi_stage_state *now = rfi_state_now(s);
    for (uint32_t r = 0; r < now->o.world_size; r++) {
        uint64_t len = rfi_order_len_in(order, epoch, r);
        now->at[r] = (struct rfi_position){epoch, rfi_min(batch, len)};
        now->known[r] = true;
    }
}

int rf_checkpoint_make(rf_dataset *d, const rf_order_options *o, const rf_checkpoint *from, uint64_t epoch,
                       uint64_t batch, rf_checkpoint **ret)
{
    struct rfi_error *err = rfi_thread_error();
    struct rfi_order_source source;
    rf_dataset_info info;
    struct rfi_order *order;
    if (!d || !o || !ret)
        return rfi_fail(err, EINVAL,
                        "rf_checkpoint_make: a null pointer. Pass a dataset, options and a place for the handle");
    if (o->strategy == RF_ADAPTIVE)
        return rfi_fail(
            err, ENOTSUP,
            "rf_checkpoint_make: the ranks of an adaptive run exchange batches, so a number of batches does "
            "not say where they stand. Take the checkpoint of the run (rf_checkpoint_take)");
    rf_checkpoint *c = calloc(1, sizeof *c);
    if (!c)
        return rfi_fail(err, ENOMEM, "checkpoint: no memory");
    rfi_order_source_of(rfi_dataset_of(d), &source);
    rfi_dataset_info(rfi_dataset_of(d), &info);
    int rc = begin(o, from ? &from->state : NULL, &info, &source, &c->state, &order, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    place(&c->state, order, epoch, batch);
    rfi_order_destroy(order);
    *ret = c;
    return RF_OK;
}

uint32_t rf_checkpoint_stages(const rf_checkpoint *c)
{
    return c ? c->state.n_stages : 0;
}

void rf_checkpoint_order(const rf_checkpoint *c, rf_order_options *ret)
{
    if (c && ret)
        *ret = rfi_state_last(&c->state)->o;
}
