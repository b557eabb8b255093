/* See faults.h. */
#include "order/faults.h"

#include <ringfeed/ringfeed.h>
#include <stddef.h>

/* The entry that decides slot `slot`, or NULL. Batches with decisions are few, and so are the decisions. */
static const struct rfi_fault *decided(const struct rfi_fault *entries, uint64_t n_entries, uint64_t slot)
{
    for (uint64_t i = 0; i < n_entries; i++)
        if (entries[i].slot == slot)
            return &entries[i];
    return NULL;
}

uint64_t rfi_faults_apply(uint64_t *ids, uint8_t *flags, uint64_t n, const struct rfi_fault *entries,
                          uint64_t n_entries, uint32_t *moved)
{
    uint64_t left = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct rfi_fault *e = n_entries ? decided(entries, n_entries, i) : NULL;
        uint64_t id = e ? e->substitute : ids[i];
        uint8_t flag = (uint8_t)((flags ? flags[i] : 0) | (e ? RF_FLAG_SUBSTITUTED : 0));
        if (e && e->substitute == RFI_FAULT_SKIPPED)
            continue;
        ids[left] = id;
        if (flags)
            flags[left] = flag;
        if (moved)
            moved[left] = (uint32_t)i;
        left++;
    }
    return left;
}
