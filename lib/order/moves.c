/* Moved batches: the log of an epoch replayed into one list of pieces a rank. */
#include "order/past_private.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static bool grow(void **items, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    uint32_t more = *cap ? 2 * *cap : 8;
    void *grown = realloc(*items, more * size);
    if (!grown)
        return false;
    *items = grown;
    *cap = more;
    return true;
}

static bool push(struct rfi_list *l, struct rfi_piece piece)
{
    if (!grow((void **)&l->pieces, l->n, &l->cap, sizeof *l->pieces))
        return false;
    l->pieces[l->n++] = piece;
    l->batches += piece.n;
    return true;
}

/* Index of the rank's list, which begins as its own epoch; -1: no memory. */
static int64_t list_of(struct rfi_lists *l, const struct rfi_order *o, uint64_t epoch, uint32_t rank)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->lists[i].rank == rank)
            return i;
    if (!grow((void **)&l->lists, l->n, &l->cap, sizeof *l->lists))
        return -1;
    struct rfi_list *list = &l->lists[l->n];
    *list = (struct rfi_list){.rank = rank};
    uint64_t len = rfi_order_len_in(o, epoch, rank);
    if (len && !push(list, (struct rfi_piece){.rank = rank, .n = len}))
        return -1;
    return l->n++;
}

/* The last `count` batches of `from` go to the end of `to`, in their order. */
static bool move_tail(struct rfi_list *from, struct rfi_list *to, uint64_t count)
{
    uint64_t before = from->batches - count, at = 0;
    uint32_t keep = 0;
    while (keep < from->n && at + from->pieces[keep].n <= before)
        at += from->pieces[keep++].n;
    for (uint32_t i = keep; i < from->n; i++) {
        struct rfi_piece p = from->pieces[i];
        uint64_t stay = before > at ? before - at : 0;
        at += p.n;
        if (!push(to, (struct rfi_piece){.rank = p.rank, .first = p.first + stay, .n = p.n - stay}))
            return false;
        if (stay) {
            from->pieces[i].n = stay;
            keep = i + 1;
        }
    }
    from->n = keep;
    from->batches = before;
    return true;
}

static int replay_one(struct rfi_lists *l, const struct rfi_order *o, const struct rfi_move *m, uint64_t entry,
                      struct rfi_error *err)
{
    uint32_t world = rfi_order_world_size(o);
    if (m->donor >= world || m->recipient >= world || m->donor == m->recipient)
        return rfi_fail(err, EINVAL,
                        "rebalance log: entry %" PRIu64 " moves batches from rank %" PRIu32 " to rank %" PRIu32
                        " in a world of %" PRIu32 ". The log is damaged",
                        entry, m->donor, m->recipient, world);
    int64_t donor = list_of(l, o, m->epoch, m->donor), recipient = list_of(l, o, m->epoch, m->recipient);
    if (donor < 0 || recipient < 0)
        return rfi_fail(err, ENOMEM, "rebalance log: no memory");
    uint64_t has = l->lists[donor].batches;
    if (m->count > has || m->cut != has - m->count)
        return rfi_fail(err, EINVAL,
                        "rebalance log: entry %" PRIu64 " takes %" PRIu64 " batches of rank %" PRIu32
                        " behind batch %" PRIu64 " of epoch %" PRIu64 ", which has %" PRIu64 ". The log is damaged",
                        entry, m->count, m->donor, m->cut, m->epoch, has);
    if (!move_tail(&l->lists[donor], &l->lists[recipient], m->count))
        return rfi_fail(err, ENOMEM, "rebalance log: no memory");
    return 0;
}

int rfi_lists_replay(struct rfi_lists *l, const struct rfi_order *o, uint64_t epoch, const struct rfi_move *log,
                     uint64_t n, struct rfi_error *err)
{
    *l = (struct rfi_lists){0};
    int rc = 0;
    for (uint64_t i = 0; i < n && rc == 0; i++)
        if (log[i].epoch == epoch)
            rc = replay_one(l, o, &log[i], i, err);
    if (rc < 0)
        rfi_lists_fini(l);
    return rc;
}

void rfi_lists_fini(struct rfi_lists *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        free(l->lists[i].pieces);
    free(l->lists);
    *l = (struct rfi_lists){0};
}

const struct rfi_list *rfi_lists_find(const struct rfi_lists *l, uint32_t rank)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->lists[i].rank == rank)
            return &l->lists[i];
    return NULL;
}

uint64_t rfi_moves_len(const struct rfi_order *o, uint64_t epoch, uint32_t rank, const struct rfi_move *log, uint64_t n)
{
    uint64_t len = rfi_order_len_in(o, epoch, rank);
    for (uint64_t i = 0; i < n; i++) {
        if (log[i].epoch != epoch)
            continue;
        if (log[i].donor == rank)
            len -= rfi_min(len, log[i].count);
        if (log[i].recipient == rank)
            len += log[i].count;
    }
    return len;
}

int rfi_moves_check(const struct rfi_order *o, const struct rfi_move *log, uint64_t n, struct rfi_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        struct rfi_lists lists;
        bool seen = false;
        for (uint64_t k = 0; k < i && !seen; k++)
            seen = log[k].epoch == log[i].epoch;
        if (seen)
            continue;
        int rc = rfi_lists_replay(&lists, o, log[i].epoch, log, n, err);
        if (rc < 0)
            return rc;
        rfi_lists_fini(&lists);
    }
    return 0;
}
