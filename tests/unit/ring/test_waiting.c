/* Sleeping and waking, the doorbell, the histogram; and that a trainer whose batches are ready makes no
 * system call at all. */
#include "child.h"
#include "fixture.h"

#include "base/clock.h"
#include "base/sanitized.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static void make(struct fixture *f, uint32_t depth)
{
    fixture_make(f, depth, 64 * depth, 0);
    f->max_blocks = 8;
}

Test(wait, ends_by_itself, .timeout = 30)
{
    struct fixture f;
    uint64_t start = rfi_now_ns(), took;

    make(&f, 2);
    rfi_ring_wait(f.r, 0, 20 * MS);
    took = rfi_now_ns() - start;
    cr_assert(ge(u64, took, 19 * MS));
    cr_assert(eq(u32, f.r->tr->waiting, 0));
    fixture_free(&f);
}

Test(wait, does_not_sleep_when_the_batch_is_there, .timeout = 30)
{
    struct fixture f;
    struct rfi_claim c;
    uint64_t start;

    make(&f, 2);
    cr_assert(eq(int, fixture_claim(&f, 1, &c), 1));
    fixture_publish(&f, 1, &c);
    start = rfi_now_ns();
    rfi_ring_wait(f.r, 0, 20000 * MS);
    cr_assert(lt(u64, rfi_now_ns() - start, 10000 * MS));
    fixture_free(&f);
}

static void wait_until_waiting(struct fixture *f)
{
    while (atomic_load(&f->r->tr->waiting) == 0)
        sched_yield();
}

static void *publisher(void *arg)
{
    struct fixture *f = arg;
    struct rfi_ring mine = *f->r;
    struct rfi_claim c;

    for (uint64_t t = 0; t < 2000; t++) {
        while (rfi_ring_claim(&mine, 1, fixture_footprint, f, &c) != 1)
            sched_yield();
        if (t % 2)
            wait_until_waiting(f); /* every other time it certainly sleeps, or is about to */
        rfi_ring_publish(&mine, 1, &c);
    }
    return NULL;
}

Test(wait, is_ended_by_each_publish, .timeout = 60)
{
    struct fixture f;
    pthread_t thread;

    make(&f, 2);
    cr_assert(eq(int, pthread_create(&thread, NULL, publisher, &f), 0));
    for (uint64_t t = 0; t < 2000; t++) {
        uint64_t start = rfi_now_ns();
        while (rfi_ring_look(f.r, t) == RFI_TAKE_NOT_YET)
            rfi_ring_wait(f.r, t, 10000 * MS);
        cr_assert(lt(u64, rfi_now_ns() - start, 10000 * MS), "a lost wake-up at ticket %llu", (unsigned long long)t);
        fixture_release(&f, t + 1);
    }
    pthread_join(thread, NULL);
    fixture_free(&f);
}

static void *waiter(void *arg)
{
    struct fixture *f = arg;
    uint64_t start = rfi_now_ns();
    rfi_ring_wait(f->r, 1, 20000 * MS);
    return (void *)(uintptr_t)(rfi_now_ns() - start >= 20000 * MS);
}

/* The worker died between its publish and its wake: the reclaim wakes in its place. */
Test(wait, is_ended_by_the_reclaim_of_a_worker_that_died_before_waking, .timeout = 60)
{
    struct fixture f;
    struct rfi_ring parent;
    struct rfi_claim c;
    pthread_t thread;
    void *timed_out = NULL;

    make(&f, 2);
    parent = *f.r;
    cr_assert(eq(int, rfi_ring_claim(&parent, 1, fixture_footprint, &f, &c), 1));
    fixture_publish(&f, 1, &c);
    cr_assert(eq(int, rfi_ring_claim(&parent, 1, fixture_footprint, &f, &c), 1));
    cr_assert(eq(int, pthread_create(&thread, NULL, waiter, &f), 0));
    wait_until_waiting(&f);
    atomic_store(&f.r->slots[1].word, rfi_word(1, RFI_READY, 1));
    rfi_ring_reclaim(&parent, 1, 1);
    /* The flag stands a little before the thread sleeps: a wake that came first finds the word changed. */
    pthread_join(thread, &timed_out);
    cr_assert(zero(ptr, timed_out));
    fixture_free(&f);
}

Test(bell, a_ring_after_prepare_is_never_slept_through, .timeout = 60)
{
    struct fixture f;
    uint64_t start = rfi_now_ns();
    uint32_t value;

    make(&f, 2);
    value = rfi_bell_prepare(f.r->bell);
    cr_assert(eq(u32, f.r->bell->sleepers, 1));
    rfi_bell_ring(f.r->bell);
    cr_assert(eq(u32, f.r->bell->sleepers, 0)); /* rung: the next release costs no call */
    rfi_bell_wait(f.r->bell, value, 20000 * MS);
    cr_assert(lt(u64, rfi_now_ns() - start, 10000 * MS));
    value = rfi_bell_prepare(f.r->bell);
    start = rfi_now_ns();
    rfi_bell_wait(f.r->bell, value, 20 * MS);
    cr_assert(ge(u64, rfi_now_ns() - start, 19 * MS));
    fixture_free(&f);
}

/* Publishes tickets from the next one up to `n` in all. */
static void fill(struct fixture *f, uint32_t n)
{
    struct rfi_claim c;
    for (uint32_t i = 0; i < n; i++) {
        cr_assert(eq(int, fixture_claim(f, 1, &c), 1));
        fixture_publish(f, 1, &c);
    }
}

Test(bell, is_rung_when_ready_batches_run_low_and_someone_sleeps)
{
    struct fixture f;
    uint32_t rung;

    make(&f, 8);
    fill(&f, 8);
    fixture_release(&f, 6); /* 2 of 8 are left, but nobody sleeps */
    cr_assert(eq(u32, f.r->bell->value, 0));
    fill(&f, 6);
    for (uint64_t t = 7; t <= 14; t++) {
        rfi_bell_prepare(f.r->bell); /* whoever was woken has gone back to sleep */
        rung = f.r->bell->value;
        fixture_release(&f, t);
        cr_assert(eq(u32, f.r->bell->value - rung, 14 - t < 4 ? 1 : 0), "%llu left", (unsigned long long)(14 - t));
    }
    fill(&f, 8);
    rung = f.r->bell->value;
    fixture_release(&f, 22); /* nobody has gone to sleep since the last ring */
    cr_assert(eq(u32, f.r->bell->value, rung));
    fixture_free(&f);
}

Test(bell, is_rung_for_what_the_trainer_wants)
{
    struct fixture f;

    make(&f, 8);
    fill(&f, 8);
    rfi_bell_prepare(f.r->bell);
    fixture_release(&f, 1);
    cr_assert(eq(u32, f.r->bell->value, 0));
    atomic_store(&f.r->tr->want, 9);
    fixture_release(&f, 1);
    cr_assert(eq(u32, f.r->bell->value, 1));
    fixture_free(&f);
}

/* ---- no system call ---- */

/* From here on every system call but exit_group kills. */
static void forbid_system_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(77);
}

enum { ROUNDS = 2000, DEPTH = 64 };

static void take(struct fixture *f, uint64_t ticket)
{
    if (rfi_ring_look(f->r, ticket) != RFI_TAKE_READY)
        _exit(3);
    fixture_release(f, ticket + 1);
}

static int ready_batches(void *ctx)
{
    struct fixture *f = ctx;
    struct rfi_claim c;
    uint64_t next = 0;

    forbid_system_calls();
    rfi_bell_prepare(f->r->bell); /* someone sleeps */
    for (unsigned i = 0; i < ROUNDS; i++) {
        while (fixture_claim(f, 1, &c) == 1) /* the worker's side makes none either */
            fixture_publish(f, 1, &c);
        for (unsigned k = 0; k < DEPTH / 2; k++)
            take(f, next++);
    }
    _exit(0);
}

static int one_ring_too_many(void *ctx)
{
    struct fixture *f = ctx;

    forbid_system_calls();
    rfi_bell_prepare(f->r->bell);
    take(f, 0); /* the last ready batch: the bell has to be rung */
    _exit(0);
}

static int code_of(int (*body)(void *), struct fixture *f)
{
    struct child c;
    cr_assert(eq(int, child_fork(&c, body, f), 0));
    cr_assert(eq(int, child_wait(&c, 20000), 0));
    int code = child_exit_code(&c);
    child_end(&c);
    if (code == 77)
        cr_skip_test("seccomp filters are not to be had here");
    return code;
}

/* A sanitizer's runtime makes calls of its own, which the filter cannot tell from ours. */
Test(system_calls, none_while_batches_are_ready, .timeout = 60)
{
    struct fixture f;

    if (RFI_SANITIZED)
        cr_skip_test("the sanitizer's runtime makes system calls of its own");

    make(&f, DEPTH);
    cr_assert(eq(int, code_of(ready_batches, &f), 0));
    cr_assert(eq(u64, f.r->tr->released, ROUNDS * DEPTH / 2));
    fixture_free(&f);
}

Test(system_calls, the_filter_would_have_seen_one, .timeout = 60)
{
    struct fixture f;

    make(&f, DEPTH);
    fill(&f, 1);
    cr_assert(eq(int, code_of(one_ring_too_many, &f), 128 + SIGSYS));
    fixture_free(&f);
}

/* ---- histogram ---- */

Test(histogram, buckets_hold_what_they_say)
{
    uint64_t random = 1;

    for (uint64_t i = 0; i < 200000; i++) {
        uint64_t ns = i < 4096 ? i : ring_random(&random) >> (30 + i % 34);
        unsigned b = rfi_wait_bucket(ns);
        cr_assert(le(u64, ns, rfi_wait_bucket_ns(b)), "%llu", (unsigned long long)ns);
        if (b > 0)
            cr_assert(gt(u64, ns, rfi_wait_bucket_ns(b - 1)), "%llu", (unsigned long long)ns);
    }
}

Test(histogram, bounds_rise_by_an_eighth_at_most)
{
    for (unsigned b = 1; b < RFI_WAIT_BUCKETS; b++) {
        uint64_t low = rfi_wait_bucket_ns(b - 1), high = rfi_wait_bucket_ns(b);
        cr_assert(gt(u64, high, low));
        if (b >= 16)
            cr_assert(le(u64, (high - low) * 8, high));
        cr_assert(eq(uint, rfi_wait_bucket(high), b));
        cr_assert(eq(uint, rfi_wait_bucket(low + 1), b));
    }
    cr_assert(eq(uint, rfi_wait_bucket(UINT64_MAX), RFI_WAIT_BUCKETS - 1));
    cr_assert(eq(u64, rfi_wait_bucket_ns(255), (UINT64_C(1) << 34) - 1));
    cr_assert(eq(u64, rfi_wait_bucket_ns(1000), rfi_wait_bucket_ns(255)));
}
