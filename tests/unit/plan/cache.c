/* The resident cache's arithmetic: what is kept and where, and what is left to read of a batch. Reads are played on
 * files whose bytes are a function of the place. */
#include "fake.h"

#include "plan/cache.h"
#include "plan/plan.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 3000, MAX = 40, REGION = 1 << 21 };

static uint64_t rng_state = 77;

static uint64_t rng(uint64_t below)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (rng_state >> 20) % below;
}

static unsigned char byte_at(uint32_t file, uint64_t offset)
{
    uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u ^ file * 0xbf58476d1ce4e5b9u;
    return (unsigned char)(x >> 56);
}

/* ---- who is kept ---- */

static struct rfi_dataset table(uint64_t n, uint64_t fixed, uint64_t most)
{
    struct rfi_dataset d = {.samples = n, .fixed = fixed, .damaged = UINT64_MAX};
    d.extents = calloc(n, sizeof *d.extents);
    for (uint64_t i = 0, at = 0; i < n; i++) {
        d.extents[i] = (struct rfi_extent){.offset = at, .bytes = fixed ? fixed : rng(most)};
        at += d.extents[i].bytes;
    }
    return d;
}

struct spans {
    uint64_t from, to;
};

static int by_from(const void *a, const void *b)
{
    const struct spans *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* Kept samples lie inside the room and apart; returns their bytes. */
static uint64_t check_map(const struct rfi_dataset *d, uint64_t room, uint64_t *ret_n)
{
    struct rfi_error err = {0};
    struct rfi_resident_size size;
    struct rfi_resident_map map;
    struct spans *spans = calloc(d->samples, sizeof *spans);
    uint64_t n = 0, bytes = 0;
    cr_assert_eq(rfi_resident_size(d, room, &size, &err), 0);
    cr_assert_leq(size.bytes, room);
    uint32_t *places = calloc(size.n + 1, sizeof *places);
    cr_assert_eq(rfi_resident_map_init(&map, d, &size, places, &err), 0);
    cr_assert_eq(rfi_resident_map_fill(&map, d, places, &err), 0);
    for (uint64_t id = 0; id < d->samples; id++) {
        uint64_t k = rfi_resident_find(&map, id);
        if (k == RFI_RESIDENT_NONE)
            continue;
        uint64_t at = rfi_resident_place(&map, k);
        cr_assert_lt(k, size.n);
        spans[n++] = (struct spans){at, at + d->extents[id].bytes};
        bytes += d->extents[id].bytes;
    }
    cr_assert_eq(n, size.n);
    qsort(spans, n, sizeof *spans, by_from);
    for (uint64_t i = 0; i < n; i++)
        cr_assert(spans[i].to <= (i + 1 < n ? spans[i + 1].from : size.bytes), "%llu: %llu", (unsigned long long)i,
                  (unsigned long long)spans[i].to);
    *ret_n = n;
    rfi_resident_map_fini(&map);
    free(places);
    free(spans);
    return bytes;
}

Test(cache, keeps_what_fits_and_apart)
{
    uint64_t n;
    struct rfi_dataset d = table(MANY, 0, 5000);
    uint64_t all = 0;
    for (uint64_t i = 0; i < MANY; i++)
        all += d.extents[i].bytes;
    cr_assert_eq(check_map(&d, 0, &n), 0);
    cr_assert_eq(check_map(&d, UINT64_MAX / 16, &n), all); /* and 32 bits still reach */
    cr_assert_eq(n, MANY);
    cr_assert_eq(check_map(&d, all + 64 * MANY, &n), all);
    for (int quarter = 1; quarter < 4; quarter++) {
        double part = (double)check_map(&d, all * quarter / 4, &n) / (double)all;
        cr_assert(part < quarter / 4.0 && part > quarter / 4.0 - 0.02, "%f of %d quarters", part, quarter);
    }
    free(d.extents);
    d = table(MANY, 100, 0);
    cr_assert_eq(check_map(&d, 100 * 777 + 99, &n), 100 * 777);
    cr_assert_eq(check_map(&d, 100 * MANY * 2, &n), 100 * MANY);
    cr_assert_eq(check_map(&d, 99, &n), 0);
    free(d.extents);
    d = table(70000, 8, 0); /* a permutation of the other kind */
    cr_assert_eq(check_map(&d, 8 * 30000, &n), 8 * 30000);
    free(d.extents);
}

Test(cache, kept_samples_are_spread_over_any_order)
{
    struct rfi_error err = {0};
    struct rfi_resident_size size;
    struct rfi_resident_map map;
    struct rfi_dataset d = table(20000, 100, 0);
    cr_assert_eq(rfi_resident_size(&d, 100 * 5000, &size, &err), 0);
    cr_assert_eq(rfi_resident_map_init(&map, &d, &size, NULL, &err), 0);
    for (uint64_t from = 0; from < 20000; from += 1000) {
        uint64_t n = 0;
        for (uint64_t id = from; id < from + 1000; id++)
            n += rfi_resident_find(&map, id) != RFI_RESIDENT_NONE;
        cr_assert(n > 180 && n < 320, "%llu of 1000", (unsigned long long)n); /* 250 +- 5 sigma */
    }
    rfi_resident_map_fini(&map);
    free(d.extents);
}

Test(cache, a_damaged_table_is_an_error)
{
    struct rfi_error err = {0};
    struct rfi_resident_size size;
    struct rfi_dataset d = table(50, 0, 100);
    d.damaged = 7;
    cr_assert_eq(rfi_resident_size(&d, 1 << 20, &size, &err), -EBADMSG);
    free(d.extents);
}

/* ---- what is left to read ---- */

static struct rfi_extent batch[MAX];
static unsigned char region[REGION];

static void make_batch(uint64_t n, uint64_t fixed)
{
    uint64_t at = rng(4) * 512;
    uint32_t file = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (rng(6) == 0)
            file++, at = rng(9000);
        if (!fixed && rng(5) == 0)
            at += rng(5000);
        batch[i] = (struct rfi_extent){.file = file,
                                       .offset = at,
                                       .bytes = fixed    ? fixed
                                                : rng(3) ? rng(30000)
                                                         : rng(3)};
        at += batch[i].bytes;
    }
}

static void play_reads(const struct rfi_batch_plan *p, uint64_t align)
{
    for (uint32_t r = 0; r < p->n_runs; r++) {
        const struct rfi_run *run = &p->runs[r];
        uint64_t from = run->offset, to = run->offset + run->bytes, place = run->place;
        if (run->in_place) {
            from -= from % align;
            place -= run->offset - from;
            to = (to + align - 1) / align * align;
        }
        cr_assert_leq(place + (to - from), p->footprint);
        for (uint64_t k = from; k < to; k++)
            region[place + (k - from)] = byte_at(run->file, k);
    }
}

static void play_copies(const struct rfi_batch_plan *p, const uint8_t *omit)
{
    for (uint32_t i = 0; i < p->n_samples; i++)
        for (uint64_t k = 0; omit[i] && k < batch[i].bytes; k++)
            region[p->offsets[i] + k] = byte_at(batch[i].file, batch[i].offset + k);
}

static uint64_t read_bytes(const struct rfi_batch_plan *p)
{
    uint64_t bytes = 0;
    for (uint32_t r = 0; r < p->n_runs; r++)
        bytes += p->runs[r].bytes;
    return bytes;
}

/* Copies may come before the reads land or after: both give every sample. And no byte of an omitted one is read. */
static void check_omit(uint64_t n, uint64_t fixed, uint64_t align, bool reads_last)
{
    struct rfi_error err = {0};
    struct rfi_batch_plan p;
    struct rfi_dataset d = {.samples = n, .fixed = fixed, .extents = batch, .damaged = UINT64_MAX};
    uint64_t ids[MAX], needed = 0;
    uint8_t omit[MAX];
    for (uint64_t i = 0; i < n; i++) {
        ids[i] = i;
        omit[i] = rng(3) == 0;
        needed += omit[i] ? 0 : batch[i].bytes;
    }
    cr_assert_eq(rfi_plan_init(&p, MAX, &err), 0);
    cr_assert_eq(rfi_plan_batch(&d, align, ids, (uint32_t)n, &p, &err), 0);
    uint64_t gaps = read_bytes(&p), footprint = p.footprint;
    for (uint64_t i = 0; i < n; i++)
        gaps -= batch[i].bytes;
    cr_assert_leq(footprint, sizeof region);
    rfi_plan_omit(&p, align, fixed != 0, omit);
    cr_assert_eq(p.footprint, footprint);
    cr_assert(read_bytes(&p) >= needed && read_bytes(&p) <= needed + gaps);
    memset(region, 0xee, footprint);
    if (reads_last)
        play_copies(&p, omit);
    play_reads(&p, align);
    if (!reads_last)
        play_copies(&p, omit);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < batch[i].bytes; k++)
            cr_assert_eq(region[p.offsets[i] + k], byte_at(batch[i].file, batch[i].offset + k), "sample %llu byte %llu",
                         (unsigned long long)i, (unsigned long long)k);
    rfi_plan_fini(&p);
}

Test(cache, what_is_left_to_read_and_what_is_copied_make_the_batch)
{
    static const uint64_t sizes[] = {0, 100, 512, 1536, 4096, 10000};
    for (int round = 0; round < 120; round++) {
        uint64_t n = 1 + rng(MAX), fixed = sizes[round % 6], align = rng(2) ? 512 : 4096;
        make_batch(n, fixed);
        check_omit(n, fixed, align, round % 2);
    }
}
