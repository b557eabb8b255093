/* See mixing.h. */
#include "order/mixing.h"

#include "base/bytes.h"
#include "order/classes.h"

#include <errno.h>
#include <stdlib.h>

enum { LOOKED_MOST = 1 << 18, PARTS_MOST = 64, PAIRS = 256 };

/* What was looked at: samples of whole batches, batch after batch. */
struct looked {
    uint64_t *ids;
    int64_t *kinds; /* of each sample: its part, or its label */
    uint64_t *ends; /* [batches] */
    uint64_t n, batches;
};

/* Sum over batches of squared deviations from the shares in all of them, over what a draw from `whole` would give. Of a
 * batch only the kinds that it has are visited. */
static double deviations(const struct looked *l, struct rfi_classes *c, uint64_t *counts, uint64_t whole)
{
    double found = 0, expected = 0, squares = 0;
    for (uint64_t k = 0; k < c->n; k++) {
        double share = (double)c->list[k].count / (double)l->n;
        squares += share * share;
    }
    for (uint64_t b = 0, at = 0; b < l->batches; at = l->ends[b++]) {
        double size = (double)(l->ends[b] - at), x, own = 0;
        for (uint64_t i = at; i < l->ends[b]; i++)
            counts[rfi_classes_find(c, l->kinds[i]) - c->list]++;
        for (uint64_t i = at; i < l->ends[b]; i++) {
            struct rfi_class *k = rfi_classes_find(c, l->kinds[i]);
            x = (double)counts[k - c->list];
            own += x * x - 2 * x * size * (double)k->count / (double)l->n; /* once a kind: then it is 0 */
            counts[k - c->list] = 0;
        }
        found += own + size * size * squares;
        expected += size * (1 - squares) * ((double)whole - size) / ((double)whole - 1);
    }
    return expected > 1e-9 ? found / expected : -1;
}

/* Of the kinds that stand in l->kinds. */
static int measure_make_up(const struct looked *l, uint64_t whole, double *ret, struct rfi_error *err)
{
    struct rfi_classes c;
    int rc = 0;
    rfi_classes_init(&c);
    for (uint64_t i = 0; rc == 0 && i < l->n; i++)
        rc = rfi_classes_count(&c, l->kinds[i], err);
    if (rc == 0 && c.n > 1 && whole > 1) {
        uint64_t *counts = calloc(c.n, sizeof *counts);
        if (counts)
            *ret = deviations(l, &c, counts, whole);
        else
            rc = rfi_fail(err, ENOMEM, "out of memory for counting %llu kinds of samples", (unsigned long long)c.n);
        free(counts);
    }
    rfi_classes_fini(&c);
    return rc;
}

/* Batches of all these ranks, evenly spaced when they are too many. */
static void look(struct rfi_view *v, const struct rfi_order *o, uint64_t epoch, uint32_t first, uint32_t ranks,
                 uint64_t each, struct looked *l)
{
    uint64_t batch = rfi_order_batch_samples(o);
    for (uint32_t r = first; r < first + ranks; r++) {
        uint64_t len = rfi_order_len(o, r), n = rfi_min(len, each);
        rfi_view_seek(v, epoch, r);
        for (uint64_t i = 0; i < n && l->n + batch <= LOOKED_MOST; i++) {
            uint64_t got = rfi_view_batch(v, i * len / n, l->ids + l->n, NULL);
            l->n += got;
            l->ends[l->batches++] = l->n;
        }
    }
}

static double apart(double a, double b)
{
    return a < b ? b - a : a - b;
}

/* Places of `index` and of its neighbour. */
static void measure_places(struct rfi_view *v, const struct rfi_order *o, uint64_t samples, uint64_t epoch,
                           struct rfi_mixing *ret)
{
    uint64_t found = 0, pairs = 0;
    double displaced = 0, distance = 0;
    for (uint64_t i = 0, n = rfi_min(PAIRS, samples); i < n; i++) {
        uint64_t index = i * samples / n, at, next;
        uint32_t rank, other;
        if (rfi_view_locate(v, epoch, index, &rank, &at) < 0)
            continue;
        double whole = (double)rfi_order_rank_samples(o, rank);
        displaced += apart(((double)at + 0.5) / whole, ((double)index + 0.5) / (double)samples);
        found++;
        if (index + 1 >= samples || rfi_view_locate(v, epoch, index + 1, &other, &next) < 0)
            continue;
        distance += apart(((double)at + 0.5) / whole, ((double)next + 0.5) / (double)rfi_order_rank_samples(o, other));
        pairs++;
    }
    ret->displacement = found ? 3 * displaced / (double)found : -1;
    ret->neighbours = pairs ? 3 * distance / (double)pairs : -1;
}

static int measure_kinds(struct looked *l, const struct rfi_order *o, const struct rfi_order_source *labels,
                         uint64_t samples, struct rfi_mixing *ret, struct rfi_error *err)
{
    uint64_t whole = rfi_order_samples(o);
    bool labelled = labels && labels->label && l->n;
    ret->parts = (uint32_t)rfi_min(PARTS_MOST, samples);
    for (uint64_t i = 0; i < l->n; i++)
        l->kinds[i] = (int64_t)((double)l->ids[i] / (double)samples * ret->parts);
    int rc = measure_make_up(l, whole, &ret->by_part, err);
    for (uint64_t i = 0; labelled && i < l->n; i++)
        labelled = labels->label(labels->ctx, l->ids[i], &l->kinds[i]);
    return rc == 0 && labelled ? measure_make_up(l, whole, &ret->by_class, err) : rc;
}

int rfi_mixing_measure(const struct rfi_order *o, const struct rfi_order_source *labels, uint64_t dataset_samples,
                       uint64_t epoch, uint32_t first, uint32_t ranks, struct rfi_mixing *ret, struct rfi_error *err)
{
    uint64_t batch = rfi_order_batch_samples(o);
    uint64_t each = batch <= LOOKED_MOST ? rfi_max(1, LOOKED_MOST / batch / rfi_max(1, ranks)) : 0;
    struct looked l = {.ids = malloc(LOOKED_MOST * sizeof *l.ids),
                       .kinds = malloc(LOOKED_MOST * sizeof *l.kinds),
                       .ends = malloc((each * ranks + 1) * sizeof *l.ends)};
    struct rfi_view *v = NULL;
    int rc = l.ids && l.kinds && l.ends ? rfi_view_create(o, &v, err)
                                        : rfi_fail(err, ENOMEM, "out of memory for measuring how the order mixes");
    *ret = (struct rfi_mixing){.by_part = -1, .by_class = -1, .displacement = -1, .neighbours = -1};
    if (rc == 0 && dataset_samples) {
        look(v, o, epoch, first, ranks, each, &l);
        rc = measure_kinds(&l, o, labels, dataset_samples, ret, err);
        measure_places(v, o, dataset_samples, epoch, ret);
        ret->batches = l.batches;
        ret->samples = l.n;
    }
    rfi_view_destroy(v);
    free(l.ids);
    free(l.kinds);
    free(l.ends);
    return rc;
}
