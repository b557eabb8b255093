/* See cache.h. */
#include "run/cache.h"

#include "base/bytes.h"

static uint64_t kept_bytes(const struct rfi_config_shared *c)
{
    return rfi_div_up(c->cache_samples, 64) * sizeof(uint64_t);
}

static uint64_t places_bytes(const struct rfi_config_shared *c)
{
    return c->cache_unit ? c->cache_samples * sizeof(uint32_t) : 0;
}

uint64_t rfi_resident_region_bytes(const struct rfi_config_shared *c)
{
    if (c->cache_samples == 0)
        return 0;
    return sizeof(struct rfi_resident_shared) + kept_bytes(c) + places_bytes(c) + c->cache_bytes / RFI_RESIDENT_CHUNK;
}

bool rfi_resident_region(const struct rfi_run_view *r, struct rfi_resident_region *ret)
{
    const struct rfi_config_shared *c = &r->config;
    if (c->cache_samples == 0)
        return false;
    unsigned char *p = rfi_segment_region(&r->segment, RFI_R_CACHE);
    ret->head = (struct rfi_resident_shared *)(void *)p;
    p += sizeof *ret->head;
    ret->kept = (_Atomic uint64_t *)(void *)p;
    p += kept_bytes(c);
    ret->places = c->cache_unit ? (uint32_t *)(void *)p : NULL;
    p += places_bytes(c);
    ret->chunks = (_Atomic uint8_t *)p;
    return true;
}
