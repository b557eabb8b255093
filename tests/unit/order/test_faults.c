/* rfi_faults_apply against the obvious: every set of decisions about a batch of six. */
#include "order/faults.h"

#include <criterion/criterion.h>
#include <ringfeed/ringfeed.h>
#include <string.h>

enum { N = 6 };

/* Decision of slot i in `code`, base 3: none, left out, replaced. */
static int decision(unsigned code, int i)
{
    while (i--)
        code /= 3;
    return (int)(code % 3);
}

Test(faults, every_set_of_decisions, .timeout = 30)
{
    for (unsigned code = 0; code < 729; code++)
        for (int backwards = 0; backwards < 2; backwards++) {
            uint64_t ids[N], want[N], left = 0, n_entries = 0;
            uint8_t flags[N], want_flags[N];
            uint32_t moved[N], want_moved[N];
            struct rfi_fault entries[N + 1];
            for (int k = 0; k < N; k++) {
                int i = backwards ? N - 1 - k : k, what = decision(code, i);
                if (what)
                    entries[n_entries++] = (struct rfi_fault){
                        .slot = (uint64_t)i, .substitute = what == 1 ? RFI_FAULT_SKIPPED : 100 + (uint64_t)i};
            }
            entries[n_entries++] = (struct rfi_fault){.slot = N, .substitute = 7}; /* of no slot */
            for (int i = 0; i < N; i++) {
                int what = decision(code, i);
                ids[i] = (uint64_t)i;
                flags[i] = i >= 4 ? RF_FLAG_PADDING : 0;
                if (what == 1)
                    continue;
                want[left] = what ? 100 + (uint64_t)i : (uint64_t)i;
                want_flags[left] = (uint8_t)(flags[i] | (what ? RF_FLAG_SUBSTITUTED : 0));
                want_moved[left++] = (uint32_t)i;
            }
            cr_assert_eq(rfi_faults_apply(ids, flags, N, entries, n_entries, moved), left);
            cr_assert_eq(memcmp(ids, want, left * sizeof *ids), 0);
            cr_assert_eq(memcmp(flags, want_flags, left), 0);
            cr_assert_eq(memcmp(moved, want_moved, left * sizeof *moved), 0);
        }
}

Test(faults, nothing_to_do_and_nothing_to_fill)
{
    uint64_t ids[3] = {5, 6, 7};
    struct rfi_fault two[] = {{.slot = 1, .substitute = 9}, {.slot = 1, .substitute = RFI_FAULT_SKIPPED}};
    cr_assert_eq(rfi_faults_apply(ids, NULL, 3, NULL, 0, NULL), 3);
    cr_assert_eq(rfi_faults_apply(ids, NULL, 0, two, 2, NULL), 0);
    cr_assert_eq(rfi_faults_apply(ids, NULL, 3, two, 2, NULL), 3); /* the first of two counts */
    cr_assert(ids[0] == 5 && ids[1] == 9 && ids[2] == 7);
}
