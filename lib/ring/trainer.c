/* The trainer's side: look, wait, release. No system call while batches are ready, no store but to the
 * trainer's own words and the bell. */
#include "base/bytes.h"
#include "base/futex.h"
#include "ring/ring_words.h"

/* About a microsecond: longer would take the CPU of the worker that is waited for (2 cores measured). */
enum { SPINS = 40 };

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static enum rfi_take what(uint64_t word, uint64_t ticket)
{
    if (rfi_word_ticket(word) != ticket)
        return RFI_TAKE_NOT_YET;
    switch (rfi_word_state(word)) {
    case RFI_READY:
        return RFI_TAKE_READY;
    case RFI_ERROR:
        return RFI_TAKE_ERROR;
    case RFI_ENDED:
        return RFI_TAKE_END;
    default:
        return RFI_TAKE_NOT_YET;
    }
}

enum rfi_take rfi_ring_look(const struct rfi_ring *r, uint64_t ticket)
{
    return what(atomic_load_explicit(&rfi_slot(r, ticket)->word, memory_order_acquire), ticket); /* P1 */
}

void rfi_ring_wait(struct rfi_ring *r, uint64_t ticket, uint64_t timeout_ns)
{
    struct rfi_slot_shared *s = rfi_slot(r, ticket);
    uint64_t word;

    for (int i = 0; i < SPINS; i++) {
        if (rfi_ring_look(r, ticket) != RFI_TAKE_NOT_YET)
            return;
        pause_cpu();
    }
    atomic_store_explicit(&r->tr->waiting, rfi_slot_of(r, ticket) + 1, memory_order_seq_cst); /* P6 */
    word = atomic_load_explicit(&s->word, memory_order_seq_cst); /* P6 */
    if (what(word, ticket) == RFI_TAKE_NOT_YET)
        rfi_futex_wait(&s->word, (uint32_t)word, timeout_ns);
    atomic_store_explicit(&r->tr->waiting, 0, memory_order_relaxed); /* late: one wake too many */
}

uint32_t rfi_ring_ready(const struct rfi_ring *r)
{
    uint64_t taken = atomic_load_explicit(&r->tr->taken, memory_order_relaxed); /* any value: only a look */
    uint32_t n = 0, ahead = rfi_ring_ahead(r), slot = rfi_slot_of(r, taken);

    for (uint32_t i = 0; i < ahead; i++, slot = slot + 1 < r->depth ? slot + 1 : 0) {
        uint64_t word = atomic_load_explicit(&r->slots[slot].word, memory_order_acquire);
        n += rfi_published(word) && rfi_word_ticket(word) >= taken;
    }
    return n;
}

/* Fewer ready batches than this, and sleeping workers are called. With a depth of two or three half of it
 * would mean that nothing is read ahead while the last ready batch is in use. */
static uint64_t enough(const struct rfi_ring *r, uint64_t released)
{
    uint64_t want = atomic_load_explicit(&r->tr->want, memory_order_relaxed); /* a hint */
    uint32_t ahead = rfi_ring_ahead(r);
    uint64_t n = rfi_max(ahead / 2, 2);
    return want > released ? rfi_max(n, rfi_min(want - released, ahead)) : n;
}

void rfi_ring_release(struct rfi_ring *r, uint64_t released)
{
    atomic_store_explicit(&r->tr->released, released, memory_order_seq_cst); /* P2, P7 */
    if (atomic_load_explicit(&r->bell->sleepers, memory_order_seq_cst) != 0 && /* P7 */
        rfi_ring_ready(r) < enough(r, released))
        rfi_bell_ring(r->bell);
}
