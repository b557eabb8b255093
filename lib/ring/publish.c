/* The worker's way out: the writers mask while reads are under way, then one store that hands the batch to
 * the trainer. */
#include "base/failpoint.h"
#include "base/futex.h"
#include "ring/ring_words.h"

#include <assert.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of a slot word");

void rfi_ring_writers_begin(struct rfi_ring *r, uint32_t slot, unsigned queue)
{
    assert(queue < 64);
    atomic_fetch_or_explicit(&r->slots[slot].writers, UINT64_C(1) << queue, memory_order_acq_rel);
}

void rfi_ring_writers_end(struct rfi_ring *r, uint32_t slot, unsigned queue)
{
    assert(queue < 64);
    atomic_fetch_and_explicit(&r->slots[slot].writers, ~(UINT64_C(1) << queue), memory_order_release); /* P8 */
}

static void count(struct rfi_ring_shared *sh, const struct rfi_slot_shared *s, enum rfi_slot_state state)
{
    /* Relaxed: statistics, ordered with nothing. */
    if (state == RFI_ERROR)
        atomic_fetch_add_explicit(&sh->errors, 1, memory_order_relaxed);
    if (state != RFI_READY)
        return;
    atomic_fetch_add_explicit(&sh->samples, s->n_samples, memory_order_relaxed);
    atomic_fetch_add_explicit(&sh->bytes, s->payload_bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(s->remote ? &sh->remote_samples : &sh->local_samples, s->n_samples, memory_order_relaxed);
}

static void publish(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c, enum rfi_slot_state state,
                    unsigned code)
{
    struct rfi_slot_shared *s = &r->slots[c->slot];
    uint64_t word = rfi_word(c->ticket, RFI_CLAIMED, worker);
    bool ours;

    assert(state != RFI_READY || atomic_load_explicit(&s->writers, memory_order_relaxed) == 0);
    s->worker = worker;
    count(r->sh, s, state);
    RFI_FAIL_POINT("publish-before");
    ours = atomic_compare_exchange_strong_explicit(&s->word, &word, rfi_word(c->ticket, state, code),
                                                   memory_order_seq_cst, memory_order_relaxed); /* P1, P6 */
    assert(ours); /* only the owner leaves CLAIMED, and a fenced one is dead */
    (void)ours;
    RFI_FAIL_POINT("publish-after");
    if (atomic_load_explicit(&r->tr->waiting, memory_order_seq_cst) == c->slot + 1) /* P6 */
        rfi_futex_wake_all(&s->word);
}

void rfi_ring_publish(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c)
{
    publish(r, worker, c, RFI_READY, worker);
}

void rfi_ring_publish_error(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c, unsigned code)
{
    publish(r, worker, c, RFI_ERROR, code);
}

void rfi_ring_publish_end(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c)
{
    publish(r, worker, c, RFI_ENDED, RFI_WORKER_NONE);
}
