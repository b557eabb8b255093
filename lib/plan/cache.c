/* See cache.h. */
#include "plan/cache.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

/* The k-th kept sample. */
static uint64_t member(const struct rfi_resident_map *m, uint64_t k)
{
    return m->n == m->samples ? k : rfi_permutation_at(&m->members, k);
}

static int extent_of(const struct rfi_dataset *d, uint64_t id, struct rfi_extent *e, struct rfi_error *err)
{
    if (rfi_dataset_extent(d, id, e) == 0)
        return 0;
    return rfi_fail(err, EBADMSG, "dataset: the entry of sample %llu is damaged. Make the index again",
                    (unsigned long long)id);
}

static int open_members(struct rfi_resident_map *m, struct rfi_error *err)
{
    size_t storage = rfi_permutation_storage(m->samples);
    m->storage = storage ? malloc(storage * sizeof *m->storage) : NULL;
    if (storage && !m->storage)
        return rfi_fail(err, ENOMEM, "out of memory for the members of the cache");
    /* The same whatever the seed: the cache is no part of the order. */
    rfi_permutation_init(&m->members, m->samples, rfi_key_make(0, 0, RFI_KEY_CACHE, RFI_KEY_GLOBAL, 0), m->storage);
    return 0;
}

/* 32 bits reach everywhere. */
static uint64_t unit_for(uint64_t room)
{
    uint64_t unit = RFI_RESIDENT_ALIGN;
    while (room / unit > UINT32_MAX)
        unit *= 2;
    return unit;
}

static int count_variable(const struct rfi_dataset *d, uint64_t samples, uint64_t room, struct rfi_resident_size *s,
                          struct rfi_error *err)
{
    struct rfi_resident_map m = {.samples = samples};
    int rc = open_members(&m, err);
    s->unit = unit_for(room);
    while (rc == 0 && s->n < samples) {
        struct rfi_extent e;
        rc = extent_of(d, rfi_permutation_at(&m.members, s->n), &e, err);
        if (rc < 0 || e.bytes > room || rfi_align_up(e.bytes, s->unit) > room - s->bytes)
            break;
        s->bytes += rfi_align_up(e.bytes, s->unit);
        s->n++;
    }
    rfi_resident_map_fini(&m);
    return rc;
}

int rfi_resident_size(const struct rfi_dataset *d, uint64_t room, struct rfi_resident_size *ret, struct rfi_error *err)
{
    uint64_t samples = rfi_dataset_samples(d), fixed = rfi_dataset_fixed_bytes(d);
    *ret = (struct rfi_resident_size){0};
    if (samples == 0 || room == 0)
        return 0;
    if (!fixed)
        return count_variable(d, samples, room, ret, err);
    ret->n = rfi_min(samples, room / fixed);
    ret->bytes = ret->n * fixed;
    return 0;
}

int rfi_resident_map_init(struct rfi_resident_map *m, const struct rfi_dataset *d, const struct rfi_resident_size *size,
                          const uint32_t *places, struct rfi_error *err)
{
    *m = (struct rfi_resident_map){.n = size->n,
                                   .samples = size->n ? rfi_dataset_samples(d) : 0,
                                   .fixed = rfi_dataset_fixed_bytes(d),
                                   .unit = size->unit,
                                   .places = size->unit ? places : NULL};
    return m->n && m->n < m->samples ? open_members(m, err) : 0;
}

void rfi_resident_map_fini(struct rfi_resident_map *m)
{
    free(m->storage);
}

int rfi_resident_map_fill(const struct rfi_resident_map *m, const struct rfi_dataset *d, uint32_t *places,
                          struct rfi_error *err)
{
    uint64_t at = 0;
    for (uint64_t k = 0; m->unit && k < m->n; k++) {
        struct rfi_extent e;
        int rc = extent_of(d, member(m, k), &e, err);
        if (rc < 0)
            return rc;
        places[k] = (uint32_t)at;
        at += rfi_div_up(e.bytes, m->unit);
    }
    return 0;
}
