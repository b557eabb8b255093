/* The error log on memory that ends where the region ends. */
#include "run/faults.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct rfi_run_view view(uint32_t queues, uint64_t loaded)
{
    struct rfi_run_view r = {.config = {.queues = queues, .faults_loaded = loaded}};
    uint64_t bytes = rfi_faults_bytes(&r.config);
    r.faults = aligned_alloc(128, bytes);
    cr_assert_not_null(r.faults);
    memset(r.faults, 0, bytes);
    return r;
}

static struct rfi_fault entry(uint64_t n)
{
    return (struct rfi_fault){.epoch = n % 3,
                              .rank = n % 5,
                              .batch = n % 7,
                              .slot = n,
                              .sample = 1000 + n,
                              .substitute = 2000 + n,
                              .file = 1};
}

Test(faults, every_part_holds_its_own, .timeout = 30)
{
    struct rfi_run_view r = view(3, 4);
    struct rfi_fault f, found[64];
    bool seen[64] = {false};
    cr_assert_eq(rfi_faults_count(&r), 0);
    cr_assert_not(rfi_faults_get(&r, 0, &f));
    struct rfi_fault loaded[4] = {entry(0), entry(1), entry(2), entry(3)};
    cr_assert_eq(rfi_faults_load(&r, loaded, 4), 0);
    cr_assert_eq(rfi_faults_load(&r, loaded, 1), -ENOSPC);
    for (uint64_t n = 4; n < 64; n++) {
        f = entry(n);
        cr_assert_eq(rfi_faults_append(&r, (uint32_t)(n % 3), &f), 0);
    }
    cr_assert_eq(rfi_faults_count(&r), 64);
    for (uint64_t i = 0; i < 64; i++) {
        cr_assert(rfi_faults_get(&r, i, &f));
        cr_assert_lt(f.slot, 64);
        cr_assert_not(seen[f.slot]);
        seen[f.slot] = true;
        struct rfi_fault want = entry(f.slot);
        cr_assert_eq(memcmp(&f, &want, sizeof f), 0);
    }
    cr_assert_not(rfi_faults_get(&r, 64, &f));
    for (uint64_t epoch = 0; epoch < 4; epoch++)
        for (uint64_t rank = 0; rank < 6; rank++)
            for (uint64_t batch = 0; batch < 8; batch++) {
                uint64_t want = 0, got = rfi_faults_find(&r, epoch, rank, batch, found, 64);
                for (uint64_t n = 0; n < 64; n++)
                    want += n % 3 == epoch && n % 5 == rank && n % 7 == batch;
                cr_assert_eq(got, want);
                for (uint64_t i = 0; i < got; i++)
                    cr_assert(found[i].epoch == epoch && found[i].rank == rank && found[i].batch == batch);
                cr_assert_eq(rfi_faults_find(&r, epoch, rank, batch, found, 0), want);
            }
    free(r.faults);
}

Test(faults, a_full_part_says_so_and_others_go_on, .timeout = 30)
{
    struct rfi_run_view r = view(2, 0);
    struct rfi_fault f = entry(1);
    for (int i = 0; i < RFI_FAULTS_PER_QUEUE; i++)
        cr_assert_eq(rfi_faults_append(&r, 1, &f), 0);
    cr_assert_eq(rfi_faults_append(&r, 1, &f), -ENOSPC);
    cr_assert_eq(rfi_faults_append(&r, 0, &f), 0);
    cr_assert_eq(rfi_faults_load(&r, &f, 1), -ENOSPC);
    cr_assert_eq(rfi_faults_count(&r), RFI_FAULTS_PER_QUEUE + 1);
    free(r.faults);
}

Test(faults, a_count_that_cannot_be_is_cut, .timeout = 30)
{
    struct rfi_run_view r = view(2, 3);
    struct rfi_fault f;
    for (uint32_t p = 0; p <= 2; p++)
        rfi_faults_part(&r, p)->count = UINT64_MAX;
    cr_assert_eq(rfi_faults_count(&r), 3 + 2 * RFI_FAULTS_PER_QUEUE);
    cr_assert(rfi_faults_get(&r, 2 + 2 * RFI_FAULTS_PER_QUEUE, &f));
    cr_assert_not(rfi_faults_get(&r, 3 + 2 * RFI_FAULTS_PER_QUEUE, &f));
    cr_assert_eq(rfi_faults_find(&r, 9, 9, 9, NULL, 0), 0);
    free(r.faults);
}

Test(faults, what_was_not_counted_is_nothing, .timeout = 30)
{
    /* A worker that died between the entry and the count: the next one of its queue writes over it. */
    struct rfi_run_view r = view(1, 0);
    struct rfi_fault half = entry(5), f = entry(6), got;
    memcpy(rfi_faults_part(&r, 1) + 1, &half, sizeof half);
    cr_assert_eq(rfi_faults_count(&r), 0);
    cr_assert_eq(rfi_faults_append(&r, 0, &f), 0);
    cr_assert(rfi_faults_get(&r, 0, &got));
    cr_assert_eq(memcmp(&got, &f, sizeof f), 0);
    free(r.faults);
}
