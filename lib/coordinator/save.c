/* Checkpoints on the way: every so many released samples, and at the end. Writing fails without ending the run:
 * training goes on, and the file of before is still there. */
#include "coordinator/internal.h"

#include "base/log.h"
#include "checkpoint/resume.h"

static uint64_t released_samples(const struct rfi_coordinator *c)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        n += atomic_load_explicit(&c->run.rings[i].tr->samples, memory_order_relaxed); /* a count, nothing more */
    return n;
}

static void save(struct rfi_coordinator *c, uint64_t samples)
{
    struct rfi_state state;
    struct rfi_error err = {0};
    int rc = rfi_state_capture(&c->run, &state, &err);
    c->saved_samples = samples; /* also after a failure: the next try is due as many samples later */
    if (rc == 0) {
        rc = rfi_state_write(&state, c->o->checkpoint, &err);
        rfi_state_fini(&state);
    }
    if (rc < 0) {
        rfi_log(RFI_LOG_WARNING, "%s. The run goes on; the checkpoint before is kept", err.text);
        return;
    }
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        atomic_fetch_add_explicit(&c->run.ranks[i].checkpoints, 1, memory_order_relaxed);
}

void rfi_save_step(struct rfi_coordinator *c)
{
    uint64_t samples;
    if (!c->o->checkpoint || !c->o->checkpoint_every)
        return;
    samples = released_samples(c);
    if (samples - c->saved_samples >= c->o->checkpoint_every)
        save(c, samples);
}

void rfi_save_last(struct rfi_coordinator *c)
{
    if (c->o->checkpoint)
        save(c, released_samples(c));
}
