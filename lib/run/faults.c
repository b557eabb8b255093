/* See faults.h. Numbers from the region are believed no further than the region reaches. */
#include "run/faults.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

static uint64_t cap_of(const struct rfi_config_shared *c, uint32_t part)
{
    return part ? RFI_FAULTS_PER_QUEUE : c->faults_loaded;
}

static uint64_t part_bytes(uint64_t cap)
{
    return rfi_align_up(sizeof(struct rfi_fault_part) + cap * sizeof(struct rfi_fault), 128);
}

uint64_t rfi_faults_bytes(const struct rfi_config_shared *c)
{
    return part_bytes(cap_of(c, 0)) + c->queues * part_bytes(RFI_FAULTS_PER_QUEUE);
}

struct rfi_fault_part *rfi_faults_part(const struct rfi_run_view *r, uint32_t part)
{
    unsigned char *p = r->faults;
    if (part)
        p += part_bytes(cap_of(&r->config, 0)) + (part - 1) * part_bytes(RFI_FAULTS_PER_QUEUE);
    return (struct rfi_fault_part *)(void *)p;
}

static struct rfi_fault *entries_of(struct rfi_fault_part *p)
{
    return (struct rfi_fault *)(void *)(p + 1);
}

/* Acquire: pairs with the release of whoever counted them, the entries below are whole. */
static uint64_t count_of(const struct rfi_run_view *r, uint32_t part)
{
    return rfi_min(atomic_load_explicit(&rfi_faults_part(r, part)->count, memory_order_acquire),
                   cap_of(&r->config, part));
}

uint64_t rfi_faults_count(const struct rfi_run_view *r)
{
    uint64_t n = 0;
    for (uint32_t p = 0; p <= r->config.queues; p++)
        n += count_of(r, p);
    return n;
}

bool rfi_faults_get(const struct rfi_run_view *r, uint64_t i, struct rfi_fault *ret)
{
    for (uint32_t p = 0; p <= r->config.queues; p++) {
        uint64_t n = count_of(r, p);
        if (i < n) {
            *ret = entries_of(rfi_faults_part(r, p))[i];
            return true;
        }
        i -= n;
    }
    return false;
}

uint64_t rfi_faults_find(const struct rfi_run_view *r, uint64_t epoch, uint64_t rank, uint64_t batch,
                         struct rfi_fault *ret, uint64_t cap)
{
    uint64_t found = 0;
    for (uint32_t p = 0; p <= r->config.queues; p++) {
        uint64_t n = count_of(r, p);
        const struct rfi_fault *e = n ? entries_of(rfi_faults_part(r, p)) : NULL;
        for (uint64_t i = 0; i < n; i++) {
            if (e[i].batch != batch || e[i].epoch != epoch || e[i].rank != rank)
                continue;
            if (found < cap)
                ret[found] = e[i];
            found++;
        }
    }
    return found;
}

static int append(struct rfi_fault_part *p, uint64_t cap, const struct rfi_fault *entry)
{
    uint64_t n = atomic_load_explicit(&p->count, memory_order_relaxed); /* only we write it */
    if (n >= cap)
        return -ENOSPC;
    entries_of(p)[n] = *entry;
    atomic_store_explicit(&p->count, n + 1, memory_order_release);
    return 0;
}

int rfi_faults_append(struct rfi_run_view *r, uint32_t queue, const struct rfi_fault *entry)
{
    return append(rfi_faults_part(r, 1 + queue), RFI_FAULTS_PER_QUEUE, entry);
}

int rfi_faults_load(struct rfi_run_view *r, const struct rfi_fault *entries, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        int rc = append(rfi_faults_part(r, 0), cap_of(&r->config, 0), &entries[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}
