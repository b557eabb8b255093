/* Distinct labels and how often each comes: a hash table that grows with the number of classes, not
 * of samples. */
#pragma once

#include "base/error.h"

#include <stdint.h>

struct rfi_class {
    int64_t label;
    uint64_t count;
};

struct rfi_classes {
    struct rfi_class *list; /* [n], in order of first appearance until sorted */
    uint64_t n, cap;
    uint32_t *slots; /* class + 1, 0: free */
    uint64_t n_slots; /* power of two, more than n */
};

void rfi_classes_init(struct rfi_classes *c);
void rfi_classes_fini(struct rfi_classes *c);

/* Counts one more sample of `label`. -ENOMEM. */
int rfi_classes_count(struct rfi_classes *c, int64_t label, struct rfi_error *err);

/* The class of a label that was counted. */
struct rfi_class *rfi_classes_find(struct rfi_classes *c, int64_t label);

/* Sorts the classes by label: list[] is in that order afterwards, and find still works. */
void rfi_classes_sort(struct rfi_classes *c);
