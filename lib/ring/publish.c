/* The worker's way out: the writers mask while reads are under way, then one store that hands the batch to
 * the trainer. */
#include "base/failpoint.h"
#include "base/futex.h"
#include "ring/ring_words.h"

#include <assert.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex is the low half of a slot word");

static void publish(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c, enum rfi_slot_state state,
                    unsigned code)
{
    struct rfi_slot_shared *s = &r->slots[c->slot];
    uint64_t word = rfi_word(c->ticket, RFI_CLAIMED, worker);
    bool ours;

    s->worker = worker;
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
    struct rfi_slot_shared *s = &r->slots[c->slot];
    uint32_t n = s->n_samples;
    _Atomic uint64_t *count = s->remote ? &r->sh->remote_samples : &r->sh->local_samples;

    assert(atomic_load_explicit(&s->writers, memory_order_relaxed) == 0);
    publish(r, worker, c, RFI_READY, worker);
    /* Relaxed, here and below: statistics, ordered with nothing. Afterwards: the trainer need not wait for it. */
    atomic_fetch_add_explicit(count, n, memory_order_relaxed);
}

void rfi_ring_publish_error(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c, unsigned code)
{
    atomic_fetch_add_explicit(&r->sh->errors, 1, memory_order_relaxed);
    publish(r, worker, c, RFI_ERROR, code);
}

void rfi_ring_publish_end(struct rfi_ring *r, unsigned worker, const struct rfi_claim *c)
{
    publish(r, worker, c, RFI_ENDED, RFI_WORKER_NONE);
}
