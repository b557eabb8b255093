/* The samples that take part: all of them, a range A:B, those listed in a file, or a named split of
 * these. A subset is a set: its members are numbered in ascending order of their index. Only where the file is called a
 * sequence its order stays, and a sample may be listed several times. */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <stdbool.h>
#include <stdint.h>

struct rfi_subset {
    uint64_t n;
    uint64_t offset; /* member x is offset + x … */
    bool listed; /* … or table[x] */
    uint32_t *table; /* malloced */
};

/* Checks what needs no dataset. */
int rfi_subset_validate(const rf_order_options *o, struct rfi_error *err);

/* Resolves the subset over `samples`. With `with_table` false, `table` stays NULL. */
int rfi_subset_load(const rf_order_options *o, uint64_t samples, bool with_table, struct rfi_subset *ret,
                    struct rfi_error *err);
void rfi_subset_fini(struct rfi_subset *s);

/* The list in a text file, one index a line, into a new array: ascending, or, for a sequence, as it stands. -EINVAL
 * names the line. */
int rfi_subset_read_file(const char *path, uint64_t samples, bool sequence, uint32_t **ret, uint64_t *ret_n,
                         struct rfi_error *err);
