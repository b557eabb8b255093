/* rf_checkpoint_*: taking, reading and saving where a run stands. */
#include "checkpoint/handle.h"

#include "base/bytes.h"
#include "plan/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static rf_checkpoint *blank(struct rfi_error *err)
{
    rf_checkpoint *c = calloc(1, sizeof *c);
    if (!c)
        rfi_fail(err, ENOMEM, "checkpoint: no memory");
    return c;
}

int rf_checkpoint_take(const char *name, rf_checkpoint **ret)
{
    struct rfi_error *err = rfi_thread_error();
    struct rfi_run_view run;
    if (!name || !ret)
        return rfi_fail(err, EINVAL, "rf_checkpoint_take: a null pointer. Pass a name and a place for the handle");
    rf_checkpoint *c = blank(err);
    if (!c)
        return -ENOMEM;
    int rc = rfi_run_attach(name, false, &run, err);
    if (rc == 0) {
        rc = rfi_state_capture(&run, &c->state, err);
        rfi_run_close(&run);
    }
    if (rc < 0) {
        free(c);
        return rc;
    }
    *ret = c;
    return RF_OK;
}

int rf_checkpoint_open(const char *path, rf_checkpoint **ret)
{
    struct rfi_error *err = rfi_thread_error();
    if (!path || !ret)
        return rfi_fail(err, EINVAL, "rf_checkpoint_open: a null pointer. Pass a path and a place for the handle");
    rf_checkpoint *c = blank(err);
    if (!c)
        return -ENOMEM;
    int rc = rfi_state_read(path, &c->state, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    *ret = c;
    return RF_OK;
}

int rf_checkpoint_save(const rf_checkpoint *c, const char *path)
{
    struct rfi_error *err = rfi_thread_error();
    if (!c || !path)
        return rfi_fail(err, EINVAL, "rf_checkpoint_save: a null pointer. Pass a checkpoint and a path");
    return rfi_state_write(&c->state, path, err);
}

void rf_checkpoint_close(rf_checkpoint *c)
{
    if (!c)
        return;
    rfi_view_destroy(c->view);
    rfi_order_destroy(c->order);
    rfi_state_fini(&c->state);
    free(c);
}

uint32_t rf_checkpoint_world_size(const rf_checkpoint *c)
{
    return c ? rfi_state_last(&c->state)->o.world_size : 0;
}

const char *rf_checkpoint_error(const rf_checkpoint *c)
{
    return c ? c->err.text : rf_last_error();
}

static int check_rank(const rf_checkpoint *c, uint32_t rank, struct rfi_error *err)
{
    const struct rfi_stage_state *now = rfi_state_last(&c->state);
    if (rank >= now->o.world_size)
        return rfi_fail(err, ERANGE, "rank %" PRIu32 ": the checkpoint has ranks 0 to %" PRIu32, rank,
                        now->o.world_size - 1);
    if (!now->known[rank])
        return rfi_fail(err, ENOENT, "rank %" PRIu32 ": another server's, and not in this checkpoint", rank);
    return 0;
}

int rf_checkpoint_rank(rf_checkpoint *c, uint32_t rank, rf_checkpoint_position *ret)
{
    if (!c || !ret)
        return rfi_fail(c ? &c->err : rfi_thread_error(), EINVAL,
                        "rf_checkpoint_rank: a null pointer. Pass a checkpoint and a place for the position");
    const struct rfi_stage_state *now = rfi_state_last(&c->state);
    int rc = check_rank(c, rank, &c->err);
    if (rc < 0)
        return rc;
    *ret = (rf_checkpoint_position){.rank = rank,
                                    .epoch = now->at[rank].epoch,
                                    .batch = now->at[rank].batch,
                                    .seed = now->o.seed,
                                    .time_s = c->state.time_s};
    return RF_OK;
}

static int make_view(rf_checkpoint *c, rf_dataset *d)
{
    struct rfi_order_source source;
    rf_dataset_info info;
    if (c->view)
        return 0;
    rfi_order_source_of(rfi_dataset_of(d), &source);
    rfi_dataset_info(rfi_dataset_of(d), &info);
    struct rfi_order *order;
    int rc = rfi_state_order(&c->state, info.fingerprint, &source, &order, &c->err);
    if (rc < 0)
        return rc;
    rc = rfi_view_create(order, &c->view, &c->err);
    if (rc < 0)
        rfi_order_destroy(order);
    else
        c->order = order;
    return rc;
}

/* Ids of one batch without padding, from `skip` on, at most `count`. */
static uint64_t take_ids(rf_checkpoint *c, uint64_t batch, uint64_t *skip, uint64_t count, uint64_t *ids)
{
    uint64_t from = 0, got = 0, n;
    uint64_t part[64];
    uint8_t flags[64];
    while (got < count && (n = rfi_view_batch_part(c->view, batch, from, 64, part, flags)) > 0) {
        for (uint64_t i = 0; i < n && got < count; i++) {
            if (flags[i] & RF_FLAG_PADDING)
                continue;
            if (*skip)
                --*skip;
            else
                ids[got++] = part[i];
        }
        from += n;
    }
    return got;
}

int64_t rf_checkpoint_processed(rf_checkpoint *c, rf_dataset *d, uint32_t rank, uint64_t from, uint64_t count,
                                uint64_t *ids)
{
    if (!c || !d || !ids)
        return rfi_fail(c ? &c->err : rfi_thread_error(), EINVAL,
                        "rf_checkpoint_processed: a null pointer. Pass a checkpoint, the dataset and an array");
    int rc = check_rank(c, rank, &c->err);
    if (rc == 0)
        rc = make_view(c, d);
    if (rc < 0)
        return rc;
    struct rfi_position at = rfi_state_last(&c->state)->at[rank];
    uint64_t got = 0, batch = 0, size = rfi_order_batch_samples(c->order);
    rfi_view_seek(c->view, at.epoch, rank);
    if (rfi_view_is_own(c->view)) { /* whole batches but for the last: no need to walk */
        batch = from / size;
        from %= size;
    }
    uint64_t end = rfi_min(at.batch, rfi_view_len(c->view)); /* the file may say anything */
    for (; batch < end && got < count; batch++)
        got += take_ids(c, batch, &from, count - got, ids + got);
    return (int64_t)got;
}
