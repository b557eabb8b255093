/* The state of a run out of its control object: what it began with, how far each rank of this server has come
 * since, and the moves made.
 *
 * The position is read before the log: a move made in between lies behind the position, while a log read first
 * could lack the move that a later position stands in. */
#include "checkpoint/resume.h"

#include "base/bytes.h"
#include "run/faults.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TRIES = 10 };

/* A cut may be under way in another process, or the parent may have died in the middle of one. */
static int position_of(const struct rfi_run_view *run, uint32_t i, struct rfi_position *ret, struct rfi_error *err)
{
    const struct rfi_ring *ring = &run->rings[i];
    for (int tries = 0; tries < TRIES; tries++) {
        struct rfi_generation g;
        uint64_t cuts = atomic_load_explicit(&ring->sh->cuts, memory_order_acquire);
        uint64_t released = atomic_load_explicit(&ring->tr->released, memory_order_acquire);
        if (!rfi_ring_generation_settled(ring, released, &g) ||
            atomic_load_explicit(&ring->sh->cuts, memory_order_acquire) != cuts)
            continue;
        rfi_run_content(&run->ranks[i].lens, &g, rfi_max(released, g.first_ticket), &ret->epoch, &ret->batch);
        return 0;
    }
    if (rfi_run_orphaned(run))
        return rfi_fail(err, EBADMSG,
                        "the server of run '%s' was killed while it moved rank %u: where that stands is not known. "
                        "Resume from a checkpoint file, or start without --resume",
                        run->segment.name, ring->rank);
    return rfi_fail(err, EAGAIN, "run '%s': the position of rank %u would not stand still. Try again",
                    run->segment.name, ring->rank);
}

static int read_moves(const struct rfi_run_view *run, struct rfi_stage_state *st, struct rfi_error *err)
{
    uint64_t n = atomic_load_explicit(&run->moves->n, memory_order_acquire); /* entries before their number */
    if (n > run->config.moves_cap)
        return rfi_fail(err, EPROTO, "the segment '%s' is damaged: %" PRIu64 " moves, room for %u", run->segment.name,
                        n, run->config.moves_cap);
    return rfi_state_set_moves(st, run->moves->entries, n, err);
}

static int read_faults(const struct rfi_run_view *run, struct rfi_stage_state *st, struct rfi_error *err)
{
    uint64_t n = rfi_faults_count(run), got = 0;
    struct rfi_fault *faults = malloc((n ? n : 1) * sizeof *faults);
    if (!faults)
        return rfi_fail(err, ENOMEM, "checkpoint: no memory for %" PRIu64 " decisions about samples", n);
    /* Parts grow meanwhile, and then entries shift: the count is of before, and each is whole. */
    while (got < n && rfi_faults_get(run, got, &faults[got]))
        got++;
    int rc = rfi_state_set_faults(st, faults, got, err);
    free(faults);
    return rc;
}

int rfi_state_capture(const struct rfi_run_view *run, struct rfi_state *ret, struct rfi_error *err)
{
    const char *origin = rfi_segment_region(&run->segment, RFI_R_ORIGIN);
    size_t bytes = strnlen(origin, run->segment.regions[RFI_R_ORIGIN].bytes);
    int rc = rfi_state_parse(origin, bytes, run->segment.name, ret, err);
    if (rc < 0)
        return rc;
    struct rfi_stage_state *st = rfi_state_now(ret);
    const struct rfi_config_shared *c = &run->config;
    if (st->o.world_size != c->world_size || strcmp(ret->fingerprint, c->fingerprint) != 0)
        rc = rfi_fail(err, EPROTO, "the segment '%s' is damaged: its origin is another run's", run->segment.name);
    ret->time_s = (int64_t)time(NULL);
    if (rc == 0)
        memset(st->known, 0, st->o.world_size * sizeof *st->known);
    for (uint32_t i = 0; i < c->ranks && rc == 0; i++) {
        uint32_t rank = c->first_rank + i;
        st->known[rank] = true;
        rc = position_of(run, i, &st->at[rank], err);
    }
    if (rc == 0)
        rc = read_moves(run, st, err);
    if (rc == 0)
        rc = read_faults(run, st, err);
    if (rc < 0)
        rfi_state_fini(ret);
    return rc;
}

int rfi_state_capture_dead(const char *name, struct rfi_state *ret, struct rfi_error *err)
{
    struct rfi_run_view run;
    int rc = rfi_run_attach(name, false, &run, err);
    if (rc < 0)
        return rc == -EAGAIN ? -ENOENT : rc;
    if (!rfi_run_orphaned(&run))
        rc = rfi_fail(err, ENOENT, "run '%s' has a living server", name);
    else
        rc = rfi_state_capture(&run, ret, err);
    rfi_run_close(&run);
    return rc;
}
