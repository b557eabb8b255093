/* What earlier stages left of their unfinished epochs. */
#include "order/past_private.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

void rfi_past_destroy(struct rfi_past *p)
{
    if (!p)
        return;
    for (uint64_t i = 0; i < p->n; i++)
        free(p->rests[i].spans);
    rfi_order_destroy(p->before);
    free(p);
}

void rfi_order_unfinished(const struct rfi_order *o, uint64_t *ret_first, uint64_t *ret_n)
{
    *ret_first = o->past ? o->past->first : 0;
    *ret_n = o->past ? o->past->n : 0;
}

const struct rfi_rest *rfi_order_rest(const struct rfi_order *o, uint64_t epoch)
{
    const struct rfi_past *p = o->past;
    return p && epoch >= p->first && epoch - p->first < p->n ? &p->rests[epoch - p->first] : NULL;
}

uint64_t rfi_order_rank_samples_in(const struct rfi_order *o, uint64_t epoch, uint32_t rank)
{
    const struct rfi_rest *rest = rfi_order_rest(o, epoch);
    if (!rest)
        return rfi_order_rank_samples(o, rank);
    if (rank >= o->world_size)
        return 0;
    return rest->samples / o->world_size + (rank < rest->samples % o->world_size);
}

uint64_t rfi_order_len_in(const struct rfi_order *o, uint64_t epoch, uint32_t rank)
{
    const struct rfi_rest *rest = rfi_order_rest(o, epoch);
    if (!rest)
        return rfi_order_len(o, rank);
    if (rank >= o->world_size)
        return 0;
    if (o->tail == RF_TAIL_DROP)
        return rest->samples / o->world_size / o->batch;
    if (o->tail == RF_TAIL_PAD)
        return rfi_div_up(rfi_div_up(rest->samples, o->world_size), o->batch);
    return rfi_div_up(rfi_order_rank_samples_in(o, epoch, rank), o->batch);
}

static bool add_span(struct rfi_rest *rest, uint32_t rank, uint64_t from, uint64_t to)
{
    if (from >= to)
        return true;
    if (rest->n_spans == rest->cap_spans) {
        uint64_t cap = rest->cap_spans ? 2 * rest->cap_spans : 16;
        struct rfi_rest_span *grown = realloc(rest->spans, cap * sizeof *grown);
        if (!grown)
            return false;
        rest->spans = grown;
        rest->cap_spans = cap;
    }
    rest->spans[rest->n_spans++] =
        (struct rfi_rest_span){.at = rest->samples, .from = from, .n = to - from, .rank = rank};
    rest->samples += to - from;
    return true;
}

/* Batches [first, first + n) of a rank's own epoch as positions, padding left out. */
static bool add_batches(struct rfi_rest *rest, const struct rfi_order *o, uint64_t epoch, uint32_t rank, uint64_t first,
                        uint64_t n)
{
    uint64_t samples = rfi_order_rank_samples_in(o, epoch, rank), len = rfi_order_len_in(o, epoch, rank);
    uint64_t end = len < UINT64_MAX / o->batch ? rfi_min(samples, len * o->batch) : samples;
    uint64_t last = rfi_min(first + n, len);
    return add_span(rest, rank, first * o->batch, last == len ? end : rfi_min(end, last * o->batch));
}

/* Everything of the rank's list behind its first `released` batches. */
static bool add_rank(struct rfi_rest *rest, const struct rfi_order *o, uint64_t epoch, uint32_t rank,
                     const struct rfi_list *list, uint64_t released)
{
    struct rfi_piece own = {.rank = rank, .n = rfi_order_len_in(o, epoch, rank)};
    const struct rfi_piece *pieces = list ? list->pieces : &own;
    uint32_t n = list ? list->n : 1;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t skip = rfi_min(released, pieces[i].n);
        released -= skip;
        if (!add_batches(rest, o, epoch, pieces[i].rank, pieces[i].first + skip, pieces[i].n - skip))
            return false;
    }
    return true;
}

static int make_rest(struct rfi_rest *rest, const struct rfi_order *o, uint64_t epoch, const struct rfi_position *at,
                     const struct rfi_move *moves, uint64_t n_moves, struct rfi_error *err)
{
    struct rfi_lists lists;
    int rc = rfi_lists_replay(&lists, o, epoch, moves, n_moves, err);
    for (uint32_t r = 0; r < o->world_size && rc == 0; r++) {
        const struct rfi_list *list = rfi_lists_find(&lists, r);
        uint64_t len = list ? list->batches : rfi_order_len_in(o, epoch, r), released = 0;
        if (at[r].epoch >= epoch)
            released = at[r].epoch > epoch ? len : at[r].batch;
        if (released > len)
            rc = rfi_fail(err, EINVAL,
                          "rank %" PRIu32 " cannot stand at batch %" PRIu64 " of epoch %" PRIu64 ", which has %" PRIu64
                          " for it",
                          r, at[r].batch, epoch, len);
        else if (!add_rank(rest, o, epoch, r, list, released))
            rc = rfi_fail(err, ENOMEM, "order: no memory for what is left of epoch %" PRIu64, epoch);
    }
    rfi_lists_fini(&lists);
    return rc;
}

/* The epochs that some rank has not finished and some rank has begun, now or in an earlier stage. */
static int find_unfinished(struct rfi_past *p, const struct rfi_position *at, struct rfi_error *err)
{
    const struct rfi_order *b = p->before;
    uint64_t first = UINT64_MAX, end = 0, before_first, before_n;
    for (uint32_t r = 0; r < b->world_size; r++) {
        first = rfi_min(first, at[r].epoch);
        end = rfi_max(end, at[r].epoch + (at[r].batch != 0));
    }
    rfi_order_unfinished(b, &before_first, &before_n);
    if (before_n)
        end = rfi_max(end, before_first + before_n);
    p->first = first;
    p->n = end > first ? end - first : 0;
    if (p->n <= RFI_UNFINISHED_MAX)
        return 0;
    uint64_t n = p->n;
    p->n = 0;
    return rfi_fail(err, EINVAL,
                    "the ranks are %" PRIu64 " epochs apart (epochs %" PRIu64 " to %" PRIu64
                    " are unfinished); at most %d can be dealt to another world size. Resume with the same "
                    "--world-size until they are closer",
                    n, first, end - 1, RFI_UNFINISHED_MAX);
}

int rfi_order_continue(struct rfi_order *o, struct rfi_order *before, const struct rfi_position *at,
                       const struct rfi_move *moves, uint64_t n_moves, struct rfi_error *err)
{
    struct rfi_past *p = calloc(1, sizeof *p);
    if (!p) {
        rfi_order_destroy(before);
        return rfi_fail(err, ENOMEM, "order: no memory");
    }
    p->before = before;
    int rc = find_unfinished(p, at, err);
    for (uint64_t i = 0; i < p->n && rc == 0; i++)
        rc = make_rest(&p->rests[i], before, p->first + i, at, moves, n_moves, err);
    if (rc < 0) {
        rfi_past_destroy(p);
        return rc;
    }
    o->past = p;
    return 0;
}

void rfi_order_set_moves(struct rfi_order *o, const struct rfi_move *log, uint64_t n)
{
    o->moves = log;
    o->n_moves = n;
}
