/* A trainer goes to a checkpoint, and asks for balance. */
#include "attach/trainer.h"

#include "attach/balance.h"
#include "checkpoint/compare.h"
#include "checkpoint/handle.h"
#include "run/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The checkpoint must be of this run's order, in this run's world. */
static int check(struct rf_trainer *t, const struct rfi_state *from)
{
    struct rfi_state now;
    const struct rfi_stage_state *was = rfi_state_last(from);
    int rc = rfi_state_capture(&t->run, &now, &t->err);
    if (rc < 0)
        return rc;
    const struct rfi_stage_state *is = rfi_state_last(&now);
    if (strcmp(from->fingerprint, now.fingerprint) != 0)
        rc = rfi_trainer_fail(t, EINVAL, "the checkpoint is of dataset %s, and run '%s' serves %s", from->fingerprint,
                              t->run.segment.name, now.fingerprint);
    else if (was->o.world_size != is->o.world_size || from->n_stages != now.n_stages)
        rc =
            rfi_trainer_fail(t, EINVAL,
                             "the checkpoint is of a world of %" PRIu32 " ranks (%" PRIu32 " stages), and run '%s' has "
                             "%" PRIu32 " (%" PRIu32 "). Start its server with --resume instead",
                             was->o.world_size, from->n_stages, t->run.segment.name, is->o.world_size, now.n_stages);
    else if ((rc = rfi_state_same_order(&was->o, &is->o, "the checkpoint", "the run", &t->err)) == 0 &&
             !was->known[t->ring.rank])
        rc =
            rfi_trainer_fail(t, ENOENT, "the checkpoint has no rank %" PRIu32 ": it is another server's", t->ring.rank);
    rfi_state_fini(&now);
    return rc;
}

int rf_restore(rf_trainer *t, const rf_checkpoint *c)
{
    int rc = rfi_trainer_check(t);
    if (rc == 0 && !c)
        rc = rfi_trainer_fail(t, EINVAL, "rf_restore: a null pointer. Pass a checkpoint");
    if (rc == 0)
        rc = check(t, &c->state);
    if (rc < 0)
        return rc;
    struct rfi_position at = rfi_state_last(&c->state)->at[t->ring.rank];
    uint64_t len = rfi_run_len(&t->lens, at.epoch);
    if (len && at.batch == len)
        at = (struct rfi_position){at.epoch + 1, 0};
    return rfi_trainer_seek(t, RFI_OP_RESTORE, at.epoch, at.batch);
}

int rf_seek(rf_trainer *t, uint64_t epoch, uint64_t batch)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    if (batch && batch >= rfi_run_len(&t->lens, epoch))
        return rfi_trainer_seek(t, RFI_OP_RESTORE, epoch + 1, 0);
    return rfi_trainer_seek(t, RFI_OP_RESTORE, epoch, batch);
}

int rf_rebalance(rf_trainer *t)
{
    uint64_t moved;
    int rc = rfi_trainer_check(t);
    if (rc == 0)
        rc = rfi_trainer_exchange(t, RFI_OP_REBALANCE, 0, 0, &moved);
    return rc < 0 ? rc : moved != 0;
}

const char *rf_rebalance_reason(const rf_trainer *t)
{
    return !t ? "unknown"
              : rfi_balance_word(atomic_load_explicit(&t->run.coordinator->balance_reason, memory_order_relaxed));
}
