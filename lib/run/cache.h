/* The resident cache's region: what is kept already. The bytes lie at config.cache_first of the data object.
 *
 * A sample is kept once its bit is set; the bit is set (release) after its bytes were copied, and never cleared. Two
 * workers may copy the same sample at a time (epochs overlap, and a dead worker's batches are read again): both write
 * the same bytes, so there is no lock. A worker killed between the two leaves no bit. */
#pragma once

#include "run/run.h"

enum { RFI_RESIDENT_CHUNK = 2 << 20 }; /* the memory is taken piece by piece, when first needed */

struct rfi_resident_shared {
    alignas(128) _Atomic uint64_t samples; /* kept now */
    _Atomic uint64_t bytes;
    _Atomic uint32_t full; /* /dev/shm gave no more: nothing is added any longer */
    uint32_t pad0;
    uint64_t pad1[13];
};
_Static_assert(sizeof(struct rfi_resident_shared) == 128, "cache header");

struct rfi_resident_region {
    struct rfi_resident_shared *head;
    _Atomic uint64_t *kept; /* a bit a sample */
    _Atomic uint8_t *chunks; /* 1: this chunk has its memory */
    uint32_t *places; /* [config.cache_samples] with variable sizes, else NULL */
};

uint64_t rfi_resident_region_bytes(const struct rfi_config_shared *c);
/* False: the run has no cache. */
bool rfi_resident_region(const struct rfi_run_view *r, struct rfi_resident_region *ret);

static inline bool rfi_resident_is_kept(const struct rfi_resident_region *c, uint64_t k)
{
    return atomic_load_explicit(&c->kept[k / 64], memory_order_acquire) >> k % 64 & 1;
}

/* True for who has set it first. */
static inline bool rfi_resident_set_kept(const struct rfi_resident_region *c, uint64_t k)
{
    uint64_t bit = UINT64_C(1) << k % 64;
    return !(atomic_fetch_or_explicit(&c->kept[k / 64], bit, memory_order_release) & bit);
}
