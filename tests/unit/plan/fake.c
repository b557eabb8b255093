#include "fake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

uint64_t rfi_dataset_samples(const struct rfi_dataset *d)
{
    return d->samples;
}

uint64_t rfi_dataset_fixed_bytes(const struct rfi_dataset *d)
{
    return d->fixed;
}

uint32_t rfi_dataset_n_files(const struct rfi_dataset *d)
{
    return d->n_files;
}

int rfi_dataset_path(const struct rfi_dataset *d, uint32_t f, char *buf, size_t cap)
{
    return (size_t)snprintf(buf, cap, "%s", d->paths[f]) < cap ? 0 : -ENAMETOOLONG;
}

int rfi_dataset_extent(const struct rfi_dataset *d, uint64_t i, struct rfi_extent *ret)
{
    if (i == d->damaged)
        return -EBADMSG;
    *ret = d->extents[i];
    return 0;
}

int rfi_dataset_extents(const struct rfi_dataset *d, const uint64_t *ids, uint32_t n, struct rfi_extent *ret)
{
    int rc = 0;
    for (uint32_t i = 0; i < n && rc == 0; i++)
        rc = ids[i] < rfi_dataset_samples(d) ? rfi_dataset_extent(d, ids[i], &ret[i]) : -EBADMSG;
    return rc;
}
