/* Open addressing with linear probing over class numbers, kept at most half full. */
#include "order/classes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void rfi_classes_init(struct rfi_classes *c)
{
    *c = (struct rfi_classes){0};
}

void rfi_classes_fini(struct rfi_classes *c)
{
    free(c->list);
    free(c->slots);
    *c = (struct rfi_classes){0};
}

static uint32_t *slot_of(const struct rfi_classes *c, int64_t label)
{
    uint64_t h = (uint64_t)label * UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t i = (h ^ h >> 32) & (c->n_slots - 1);; i = (i + 1) & (c->n_slots - 1)) {
        uint32_t at = c->slots[i];
        if (at == 0 || c->list[at - 1].label == label)
            return &c->slots[i];
    }
}

static void fill_slots(struct rfi_classes *c)
{
    memset(c->slots, 0, c->n_slots * sizeof *c->slots);
    for (uint64_t i = 0; i < c->n; i++)
        *slot_of(c, c->list[i].label) = (uint32_t)i + 1;
}

static int grow(struct rfi_classes *c, struct rfi_error *err)
{
    uint64_t cap = c->cap ? c->cap * 2 : 64;
    struct rfi_class *list = cap < UINT32_MAX ? realloc(c->list, cap * sizeof *list) : NULL;
    if (list)
        c->list = list;
    uint32_t *slots = list ? malloc(cap * 2 * sizeof *slots) : NULL;
    if (!slots)
        return rfi_fail(err, ENOMEM, "labels: no memory for more than %" PRIu64 " classes", c->n);
    free(c->slots);
    c->slots = slots;
    c->n_slots = cap * 2;
    c->cap = cap;
    fill_slots(c);
    return 0;
}

int rfi_classes_count(struct rfi_classes *c, int64_t label, struct rfi_error *err)
{
    if (c->n == c->cap) {
        int rc = grow(c, err);
        if (rc < 0)
            return rc;
    }
    uint32_t *slot = slot_of(c, label);
    if (*slot == 0) {
        c->list[c->n++] = (struct rfi_class){.label = label};
        *slot = (uint32_t)c->n;
    }
    c->list[*slot - 1].count++;
    return 0;
}

struct rfi_class *rfi_classes_find(struct rfi_classes *c, int64_t label)
{
    return &c->list[*slot_of(c, label) - 1];
}

static int by_label(const void *a, const void *b)
{
    int64_t x = ((const struct rfi_class *)a)->label, y = ((const struct rfi_class *)b)->label;
    return (x > y) - (x < y);
}

void rfi_classes_sort(struct rfi_classes *c)
{
    if (c->n == 0)
        return;
    qsort(c->list, c->n, sizeof *c->list, by_label);
    fill_slots(c);
}
