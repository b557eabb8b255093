/* Memory of a state, and several servers' states joined. */
#include "checkpoint/compare.h"
#include "checkpoint/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct rfi_error *err)
{
    return rfi_fail(err, ENOMEM, "checkpoint: no memory");
}

/* A copy of a string that may be absent. False: no memory. */
static bool own(const char **text)
{
    const char *given = *text;
    *text = given ? strdup(given) : NULL;
    return !given || *text;
}

int rfi_state_add_stage(struct rfi_state *s, const rf_order_options *o, struct rfi_error *err)
{
    if (s->n_stages == RFI_STAGES_MAX)
        return rfi_fail(err, E2BIG,
                        "checkpoint: the world size changed %d times within unfinished epochs, and no more can be "
                        "kept. Resume with --world-size %" PRIu32 " until an epoch ends",
                        RFI_STAGES_MAX - 1, s->stages[s->n_stages - 1].o.world_size);
    struct rfi_stage_state *st = &s->stages[s->n_stages];
    *st = (struct rfi_stage_state){.o = *o};
    s->n_stages++; /* what there is of it is freed by fini */
    bool owned = own(&st->o.ranges);
    owned = own(&st->o.subset) && owned;
    owned = own(&st->o.split) && owned;
    owned = own(&st->o.use) && owned;
    if (!owned)
        return no_memory(err);
    st->at = calloc(o->world_size, sizeof *st->at);
    st->known = calloc(o->world_size, sizeof *st->known);
    return st->at && st->known ? 0 : no_memory(err);
}

/* A copy of n items, or NULL: no memory. */
static void *copy_of(const void *items, uint64_t n, size_t size)
{
    void *copy = n <= SIZE_MAX / 64 / size ? malloc((n ? n : 1) * size) : NULL;
    if (copy && n)
        memcpy(copy, items, n * size);
    return copy;
}

int rfi_state_set_moves(struct rfi_stage_state *st, const struct rfi_move *moves, uint64_t n, struct rfi_error *err)
{
    struct rfi_move *copy = copy_of(moves, n, sizeof *copy);
    if (!copy)
        return no_memory(err);
    free(st->moves);
    st->moves = copy;
    st->n_moves = n;
    return 0;
}

int rfi_state_set_faults(struct rfi_stage_state *st, const struct rfi_fault *faults, uint64_t n, struct rfi_error *err)
{
    struct rfi_fault *copy = copy_of(faults, n, sizeof *copy);
    if (!copy)
        return no_memory(err);
    free(st->faults);
    st->faults = copy;
    st->n_faults = n;
    return 0;
}

int rfi_state_copy(const struct rfi_state *from, struct rfi_state *ret, struct rfi_error *err)
{
    *ret = *from;
    ret->n_stages = 0;
    for (uint32_t i = 0; i < from->n_stages; i++) {
        const struct rfi_stage_state *st = &from->stages[i];
        int rc = rfi_state_add_stage(ret, &st->o, err);
        if (rc == 0)
            rc = rfi_state_set_moves(&ret->stages[i], st->moves, st->n_moves, err);
        if (rc == 0)
            rc = rfi_state_set_faults(&ret->stages[i], st->faults, st->n_faults, err);
        if (rc < 0) {
            rfi_state_fini(ret);
            return rc;
        }
        memcpy(ret->stages[i].at, st->at, st->o.world_size * sizeof *st->at);
        memcpy(ret->stages[i].known, st->known, st->o.world_size * sizeof *st->known);
    }
    return 0;
}

void rfi_state_fini(struct rfi_state *s)
{
    for (uint32_t i = 0; i < s->n_stages; i++) {
        struct rfi_stage_state *st = &s->stages[i];
        free((void *)(uintptr_t)st->o.ranges);
        free((void *)(uintptr_t)st->o.subset);
        free((void *)(uintptr_t)st->o.split);
        free((void *)(uintptr_t)st->o.use);
        free(st->at);
        free(st->known);
        free(st->moves);
        free(st->faults);
    }
    s->n_stages = 0;
}

static bool same_move(const struct rfi_move *a, const struct rfi_move *b)
{
    return a->epoch == b->epoch && a->donor == b->donor && a->recipient == b->recipient && a->cut == b->cut &&
           a->count == b->count;
}

static bool same_fault(const struct rfi_fault *a, const struct rfi_fault *b)
{
    return a->epoch == b->epoch && a->rank == b->rank && a->batch == b->batch && a->slot == b->slot;
}

static int append(void **items, uint64_t *n, const void *more, uint64_t n_more, size_t size, struct rfi_error *err)
{
    void *grown = n_more ? realloc(*items, (*n + n_more) * size) : *items;
    if (n_more && !grown)
        return no_memory(err);
    if (n_more)
        memcpy((char *)grown + *n * size, more, n_more * size);
    *items = grown;
    *n += n_more;
    return 0;
}

/* Both logs begin with what their servers were started with; behind that each has its own ranks' only. */
static int append_logs(struct rfi_stage_state *st, const struct rfi_stage_state *more, struct rfi_error *err)
{
    void *moves = st->moves, *faults = st->faults;
    uint64_t m = 0, f = 0;
    while (m < st->n_moves && m < more->n_moves && same_move(&st->moves[m], &more->moves[m]))
        m++;
    while (f < st->n_faults && f < more->n_faults && same_fault(&st->faults[f], &more->faults[f]))
        f++;
    int rc = append(&moves, &st->n_moves, more->moves + m, more->n_moves - m, sizeof *st->moves, err);
    st->moves = moves;
    if (rc == 0)
        rc = append(&faults, &st->n_faults, more->faults + f, more->n_faults - f, sizeof *st->faults, err);
    st->faults = faults;
    return rc;
}

/* Servers that go on together had the same stages behind them. */
static int same_past(const struct rfi_state *s, const struct rfi_state *more, struct rfi_error *err)
{
    for (uint32_t i = 0; i < s->n_stages; i++) {
        const struct rfi_stage_state *a = &s->stages[i], *b = &more->stages[i];
        if (a->o.world_size != b->o.world_size)
            return rfi_fail(err, EINVAL,
                            "--resume: the files have world sizes %" PRIu32 " and %" PRIu32
                            ". Give the files of one run",
                            a->o.world_size, b->o.world_size);
        int rc = rfi_state_same_order(&a->o, &b->o, "one of the files", "another", err);
        for (uint32_t r = 0; r < a->o.world_size && rc == 0 && i + 1 < s->n_stages; r++)
            if (a->at[r].epoch != b->at[r].epoch || a->at[r].batch != b->at[r].batch)
                rc = rfi_fail(err, EINVAL,
                              "--resume: the files go on from different places: rank %" PRIu32 " of %" PRIu32
                              " stood at epoch %" PRIu64 " batch %" PRIu64 " and at epoch %" PRIu64 " batch %" PRIu64
                              ". Give the files of one run",
                              r, a->o.world_size, a->at[r].epoch, a->at[r].batch, b->at[r].epoch, b->at[r].batch);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int rfi_state_merge(struct rfi_state *s, const struct rfi_state *more, struct rfi_error *err)
{
    if (strcmp(s->fingerprint, more->fingerprint) != 0)
        return rfi_fail(err, EINVAL,
                        "--resume: the files are of different datasets: fingerprint %s and %s. Give the files of one "
                        "run",
                        s->fingerprint, more->fingerprint);
    if (s->n_stages != more->n_stages)
        return rfi_fail(err, EINVAL,
                        "--resume: the files are of different runs: one has %" PRIu32 " stages, the other %" PRIu32
                        ". Give the files of one run",
                        s->n_stages, more->n_stages);
    struct rfi_stage_state *a = rfi_state_now(s);
    const struct rfi_stage_state *b = rfi_state_last(more);
    int rc = same_past(s, more, err);
    if (rc < 0)
        return rc;
    for (uint32_t r = 0; r < a->o.world_size; r++) {
        if (!b->known[r])
            continue;
        if (a->known[r])
            return rfi_fail(err, EINVAL,
                            "--resume: rank %" PRIu32 " is in two of the files: at epoch %" PRIu64 " batch %" PRIu64
                            " and at epoch %" PRIu64 " batch %" PRIu64 ". Give one file a server",
                            r, a->at[r].epoch, a->at[r].batch, b->at[r].epoch, b->at[r].batch);
        a->known[r] = true;
        a->at[r] = b->at[r];
    }
    if (more->time_s > s->time_s)
        s->time_s = more->time_s;
    return append_logs(a, b, err);
}

int rfi_state_complete(const struct rfi_state *s, struct rfi_error *err)
{
    const struct rfi_stage_state *st = rfi_state_last(s);
    for (uint32_t r = 0; r < st->o.world_size; r++)
        if (!st->known[r])
            return rfi_fail(err, EINVAL,
                            "--resume: no file has rank %" PRIu32 " of %" PRIu32
                            ". Give the file of every server (--resume may repeat)",
                            r, st->o.world_size);
    return 0;
}
