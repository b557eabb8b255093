/* The doorbell of a node's workers: a futex word that only ever grows, and a flag that someone may sleep. The
 * flag is set by whoever goes to sleep and cleared by whoever rings, before the word moves: a worker that dies
 * asleep costs one call too many, not one for every batch to come. */
#include "base/futex.h"
#include "ring/ring.h"

void rfi_bell_ring(struct rfi_bell_shared *b)
{
    atomic_store_explicit(&b->sleepers, 0, memory_order_seq_cst); /* P7: first, see tests/model/bell.pml */
    atomic_fetch_add_explicit(&b->value, 1, memory_order_seq_cst);
    rfi_futex_wake_all(&b->value);
}

uint32_t rfi_bell_prepare(struct rfi_bell_shared *b)
{
    uint32_t value = atomic_load_explicit(&b->value, memory_order_seq_cst);
    atomic_store_explicit(&b->sleepers, 1, memory_order_seq_cst); /* P7: then look */
    return value;
}

void rfi_bell_wait(struct rfi_bell_shared *b, uint32_t value, uint64_t timeout_ns)
{
    rfi_futex_wait(&b->value, value, timeout_ns);
}
