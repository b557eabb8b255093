/* The layout against a naive second writing of the rules in plan.h, and against what the rules are for:
 * no byte of one read lands on another's. */
#include "fake.h"

#include "plan/arena.h"
#include "plan/plan.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 48 };

static uint64_t rng_state = 2024;

static uint64_t rng(uint64_t below)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (rng_state >> 20) % below;
}

/* ---- the rules once more, as naive as can be: groups first, then sizes, then places ---- */

struct reference {
    uint64_t footprint;
    uint32_t n_runs;
    struct rfi_run runs[MAX];
    uint64_t offsets[MAX];
};

static bool neighbours(const struct rfi_extent *a, const struct rfi_extent *b)
{
    if (a->file != b->file || b->offset < a->offset + a->bytes)
        return false;
    return b->offset - (a->offset + a->bytes) <= 4096;
}

static uint64_t up(uint64_t x, uint64_t a)
{
    return (x + a - 1) / a * a;
}

static void reference_plan(const struct rfi_extent *e, uint32_t n, uint64_t align, struct reference *ret)
{
    uint32_t who[MAX], m = 0; /* samples that have bytes */
    uint64_t used = 0;
    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; i < n; i++)
        if (e[i].bytes > 0)
            who[m++] = i;
    for (uint32_t a = 0, b; a < m; a = b) {
        for (b = a + 1; b < m && neighbours(&e[who[b - 1]], &e[who[b]]); b++)
            ;
        const struct rfi_extent *first = &e[who[a]], *last = &e[who[b - 1]];
        struct rfi_run *run = &ret->runs[ret->n_runs++];
        *run = (struct rfi_run){
            .file = first->file, .offset = first->offset, .bytes = last->offset + last->bytes - first->offset};
        run->in_place = run->bytes >= 16 * align;
        if (run->in_place) {
            uint64_t low = first->offset / align * align, high = up(last->offset + last->bytes, align);
            run->place = up(used, align) + (first->offset - low);
            used = up(used, align) + (high - low);
        } else {
            run->place = up(used, 64);
            used = run->place + run->bytes;
        }
        for (uint32_t k = a; k < b; k++)
            ret->offsets[who[k]] = run->place + (e[who[k]].offset - first->offset);
    }
    ret->footprint = used == 0 ? align : up(used, align);
}

/* ---- random tables whose neighbours are near misses of every rule ---- */

static uint64_t odd_size(uint64_t align)
{
    static const uint64_t small[] = {0, 0, 1, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097, 100000};
    switch (rng(4)) {
    case 0:
        return 16 * align - 2 + rng(4);
    case 1:
        return rng(40 * align);
    case 2:
        return (1 << 20) + rng(9000);
    default:
        return small[rng(sizeof small / sizeof small[0])];
    }
}

static void odd_table(struct rfi_extent *e, uint32_t n, uint64_t align)
{
    static const uint64_t gaps[] = {0, 0, 0, 1, 512, 4095, 4096, 4097, 70000};
    uint64_t at[3] = {rng(10000), rng(10000), 0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t f = i > 0 && rng(8) ? e[i - 1].file : (uint32_t)rng(3);
        if (i > 0 && rng(12) == 0) { /* again, or overlapping, or backwards */
            e[i] = e[rng(i)];
            e[i].offset += rng(3);
            continue;
        }
        at[f] += gaps[rng(sizeof gaps / sizeof gaps[0])];
        e[i] = (struct rfi_extent){.file = f, .offset = at[f], .bytes = odd_size(align)};
        at[f] += e[i].bytes;
    }
}

/* What the plan is for, said without its rules. */
static void check_purpose(const struct rfi_batch_plan *p, const struct rfi_extent *e, uint64_t align)
{
    uint64_t behind = 0; /* the bytes that reads may touch end here */
    cr_assert(p->footprint >= align && p->footprint % align == 0);
    for (uint32_t r = 0; r < p->n_runs; r++) {
        const struct rfi_run *run = &p->runs[r];
        uint64_t low = run->place, high = run->place + run->bytes;
        cr_assert(run->first < p->n_samples && p->lengths[run->first] > 0);
        cr_assert(p->offsets[run->first] == run->place && e[run->first].file == run->file);
        if (run->in_place) {
            cr_assert_eq(run->place % align, run->offset % align);
            low = low / align * align;
            high = up(high, align);
        }
        cr_assert(run->bytes > 0 && low >= behind && high <= p->footprint);
        behind = high;
    }
    for (uint32_t i = 0; i < p->n_samples; i++) {
        uint32_t homes = 0;
        cr_assert_eq(p->lengths[i], e[i].bytes);
        cr_assert_leq(p->offsets[i] + p->lengths[i], p->footprint);
        for (uint32_t r = 0; r < p->n_runs && e[i].bytes > 0; r++) {
            const struct rfi_run *run = &p->runs[r];
            if (p->offsets[i] < run->place || p->offsets[i] + e[i].bytes > run->place + run->bytes)
                continue;
            homes++;
            cr_assert_eq(run->file, e[i].file);
            cr_assert_eq(p->offsets[i] - run->place, e[i].offset - run->offset);
        }
        cr_assert_eq(homes, e[i].bytes > 0 ? 1u : 0u);
    }
}

static void check_batch(const struct rfi_dataset *d, uint64_t align, const uint64_t *ids, uint32_t n,
                        struct rfi_batch_plan *p, uint64_t bound)
{
    struct rfi_extent e[MAX];
    struct reference want;
    struct rfi_error err;
    uint64_t footprint;
    for (uint32_t i = 0; i < n; i++)
        e[i] = d->extents[ids[i]];
    reference_plan(e, n, align, &want);
    cr_assert_eq(rfi_plan_batch(d, align, ids, n, p, &err), 0, "%s", err.text);
    cr_assert_eq(rfi_plan_footprint(d, align, ids, n, &footprint, &err), 0);
    cr_assert(p->footprint == want.footprint && footprint == want.footprint, "footprints %llu, %llu, not %llu",
              (unsigned long long)p->footprint, (unsigned long long)footprint, (unsigned long long)want.footprint);
    cr_assert(p->n_runs == want.n_runs && p->n_samples == n);
    for (uint32_t r = 0; r < want.n_runs; r++) {
        const struct rfi_run *a = &p->runs[r], *b = &want.runs[r];
        cr_assert(a->file == b->file && a->offset == b->offset && a->bytes == b->bytes && a->place == b->place &&
                  a->in_place == b->in_place);
    }
    cr_assert(memcmp(p->offsets, want.offsets, n * sizeof p->offsets[0]) == 0);
    check_purpose(p, e, align);
    cr_assert_leq(p->footprint, bound);
}

Test(layout, random_batches_are_laid_out_by_the_rules, .timeout = 120)
{
    static const uint64_t aligns[] = {512, 1024, 4096, 16384};
    unsigned tables = getenv("RF_EXHAUSTIVE") ? 2000000 : 40000;
    struct rfi_extent e[MAX];
    struct rfi_batch_plan p;
    struct rfi_error err;
    cr_assert_eq(rfi_plan_init(&p, MAX, &err), 0);
    for (unsigned t = 0; t < tables; t++) {
        uint64_t align = aligns[rng(4)], ids[MAX], bound;
        uint32_t n = (uint32_t)rng(MAX + 1);
        struct rfi_dataset d = {.samples = n, .extents = e, .damaged = UINT64_MAX};
        odd_table(e, n, align);
        cr_assert_eq(rfi_plan_largest(&d, align, n, &bound, &err), 0, "%s", err.text);
        for (uint32_t i = 0; i < n; i++)
            ids[i] = i;
        check_batch(&d, align, ids, n, &p, bound);
        for (uint32_t i = n; i > 1; i--) { /* as a full shuffle would */
            uint32_t j = (uint32_t)rng(i);
            uint64_t swap = ids[i - 1];
            ids[i - 1] = ids[j];
            ids[j] = swap;
        }
        check_batch(&d, align, ids, n, &p, bound);
    }
    rfi_plan_fini(&p);
}

/* Every ordered choice of B of N samples, repeats included when allowed. */
static void all_batches(const struct rfi_dataset *d, uint64_t align, uint32_t batch, uint64_t repeats, uint64_t bound)
{
    uint64_t ids[4] = {0}, n = d->samples, choices = 1;
    for (uint32_t i = 0; i < batch; i++)
        choices *= n;
    for (uint64_t c = 0; c < choices; c++) {
        uint64_t rest = c, footprint, times[8] = {0};
        bool allowed = true;
        for (uint32_t i = 0; i < batch; i++, rest /= n) {
            ids[i] = rest % n;
            allowed &= ++times[ids[i]] <= repeats;
        }
        if (!allowed)
            continue;
        cr_assert_eq(rfi_plan_footprint(d, align, ids, batch, &footprint, NULL), 0);
        cr_assert_leq(footprint, bound);
    }
}

Test(layout, no_batch_of_a_small_table_is_above_the_bound, .timeout = 120)
{
    unsigned tables = getenv("RF_EXHAUSTIVE") ? 20000 : 1000;
    struct rfi_extent e[6];
    for (unsigned t = 0; t < tables; t++) {
        uint64_t align = 512u << rng(4), repeats = 1 + rng(3), bound, all = 0;
        uint32_t n = 1 + (uint32_t)rng(6), batch = 1 + (uint32_t)rng(4);
        struct rfi_dataset d = {.samples = n, .extents = e, .damaged = UINT64_MAX};
        odd_table(e, n, align);
        cr_assert_eq(rfi_plan_largest_repeated(&d, align, batch, repeats, &bound, NULL), 0);
        all_batches(&d, align, batch, repeats, bound);
        /* And it is not far above what the samples themselves need. */
        for (uint32_t i = 0; i < n; i++)
            all += e[i].bytes * repeats;
        uint64_t each = 3 * align > 4096 ? 3 * align : 4096;
        cr_assert_leq(bound, up(all + batch * each, align));
    }
}

Test(layout, the_bound_takes_the_largest_samples_and_is_tight_for_large_ones)
{
    enum { N = 1000, B = 32 };
    static struct rfi_extent e[N];
    uint64_t bound, sum = 0, at = 0;
    for (uint32_t i = 0; i < N; i++) {
        uint64_t bytes = 100000 + (i * 7919 % N) * 100;
        e[i] = (struct rfi_extent){.offset = at, .bytes = bytes};
        at += bytes;
    }
    for (uint32_t k = N - B; k < N; k++)
        sum += 100000 + k * 100;
    struct rfi_dataset d = {.samples = N, .extents = e, .damaged = UINT64_MAX};
    cr_assert_eq(rfi_plan_largest(&d, 4096, B, &bound, NULL), 0);
    cr_assert(bound >= sum && bound <= sum + B * 3 * 4096 + 4096, "%llu for %llu", (unsigned long long)bound,
              (unsigned long long)sum);
}

/* ---- fixed-size samples: one dense tensor ---- */

static void fixed_case(uint64_t fixed, uint64_t stride, uint64_t header, uint64_t align)
{
    struct rfi_extent e[MAX];
    uint64_t ids[MAX], footprint, bound;
    struct rfi_batch_plan p;
    struct rfi_error err;
    uint32_t n = 1 + (uint32_t)rng(MAX);
    struct rfi_dataset d = {.samples = MAX, .fixed = fixed, .extents = e, .damaged = UINT64_MAX};
    for (uint32_t i = 0; i < MAX; i++)
        e[i] = (struct rfi_extent){.offset = header + stride * i, .bytes = fixed};
    for (uint32_t i = 0, next = 0; i < n; i++) {
        next = rng(3) ? next : (uint32_t)rng(MAX);
        ids[i] = next++ % MAX;
    }
    cr_assert_eq(rfi_plan_init(&p, n, &err), 0);
    cr_assert_eq(rfi_plan_batch(&d, align, ids, n, &p, &err), 0, "%s", err.text);
    cr_assert_eq(rfi_plan_footprint(&d, align, ids, n, &footprint, &err), 0);
    cr_assert_eq(rfi_plan_largest(&d, align, n, &bound, &err), 0);
    cr_assert(footprint == up(n * fixed, align) && p.footprint == footprint && bound == footprint);
    uint64_t covered = 0;
    for (uint32_t r = 0; r < p.n_runs; r++) {
        const struct rfi_run *run = &p.runs[r];
        uint64_t low = run->place / align * align, high = up(run->place + run->bytes, align);
        cr_assert_eq(run->first * fixed, run->place);
        cr_assert_eq(run->place, covered, "runs fill the tensor without a hole");
        covered += run->bytes;
        if (!run->in_place)
            continue;
        cr_assert(run->place % align == run->offset % align && low == run->place && high <= footprint);
        cr_assert(high == run->place + run->bytes || r + 1 == p.n_runs, "it would write over its neighbour");
    }
    cr_assert_eq(covered, n * fixed);
    for (uint32_t i = 0, r = 0; i < n; i++) {
        while (i * fixed >= p.runs[r].place + p.runs[r].bytes)
            r++;
        cr_assert(p.offsets[i] == i * fixed && p.lengths[i] == fixed);
        cr_assert_eq(p.runs[r].offset + (i * fixed - p.runs[r].place), e[ids[i]].offset);
    }
    if (fixed % align == 0 && stride % align == 0 && header % align == 0)
        for (uint32_t r = 0; r < p.n_runs; r++)
            cr_assert(p.runs[r].in_place, "aligned records are read in place");
    rfi_plan_fini(&p);
}

Test(layout, fixed_samples_are_one_dense_tensor)
{
    static const uint64_t sizes[] = {1, 7, 784, 512, 4096, 65536, 150528};
    static const uint64_t headers[] = {0, 16, 128, 512, 4096};
    for (size_t s = 0; s < 7; s++)
        for (size_t h = 0; h < 5; h++)
            for (int more = 0; more < 20; more++)
                fixed_case(sizes[s], sizes[s] + (more % 4 == 3 ? 512 : 0), headers[h], more % 2 ? 512 : 4096);
}

/* ---- what must be refused ---- */

Test(layout, damaged_tables_are_refused_with_the_sample_named)
{
    struct rfi_extent e[4] = {{0, 0, 100}, {0, 200, 100}, {0, UINT64_MAX - 10, 100}, {0, 1, 99}};
    struct rfi_dataset d = {.samples = 4, .extents = e, .damaged = 1};
    struct rfi_batch_plan p;
    struct rfi_error err;
    uint64_t out;
    cr_assert_eq(rfi_plan_init(&p, 2, &err), 0);
    cr_assert_eq(rfi_plan_batch(&d, 512, (uint64_t[]){0, 1}, 2, &p, &err), -EBADMSG);
    cr_assert(strstr(err.text, "sample 1 "), "%s", err.text);
    cr_assert_eq(rfi_plan_footprint(&d, 512, (uint64_t[]){2}, 1, &out, &err), -EBADMSG);
    cr_assert_eq(rfi_plan_footprint(&d, 512, (uint64_t[]){4}, 1, &out, &err), -EBADMSG, "an index past the end");
    cr_assert_eq(rfi_plan_largest(&d, 512, 2, &out, &err), -EBADMSG);
    cr_assert_eq(rfi_plan_batch(&d, 512, (uint64_t[]){0, 0, 0}, 3, &p, &err), -EINVAL, "more than there is room for");
    d.fixed = 100; /* a fixed table one of whose entries is of another size */
    cr_assert_eq(rfi_plan_batch(&d, 512, (uint64_t[]){0, 3}, 2, &p, &err), -EBADMSG);
    rfi_plan_fini(&p);
}

Test(layout, sizes_beyond_any_memory_are_errors_and_not_wraps)
{
    uint64_t huge = (uint64_t)1 << 61, out = 0;
    struct rfi_extent e[8];
    struct rfi_error err;
    for (uint32_t i = 0; i < 8; i++)
        e[i] = (struct rfi_extent){.file = i, .bytes = huge};
    struct rfi_dataset d = {.samples = 8, .extents = e, .damaged = UINT64_MAX};
    cr_assert_eq(rfi_plan_footprint(&d, 4096, (uint64_t[]){0, 1, 2, 3, 4, 5, 6, 7}, 8, &out, &err), -EOVERFLOW);
    cr_assert_eq(rfi_plan_largest(&d, 4096, 8, &out, &err), -EOVERFLOW);
    cr_assert_eq(rfi_plan_largest_repeated(&d, 4096, UINT64_MAX, UINT64_MAX, &out, &err), -EOVERFLOW);
    d.fixed = huge;
    cr_assert_eq(rfi_plan_largest(&d, 4096, 8, &out, &err), -EOVERFLOW);
    cr_assert_eq(rfi_plan_footprint(&d, 4096, (uint64_t[]){0, 1, 2, 3, 4, 5, 6, 7}, 8, &out, &err), -EOVERFLOW);
}

Test(layout, an_empty_dataset_and_an_empty_batch_take_one_block)
{
    struct rfi_dataset d = {.damaged = UINT64_MAX};
    uint64_t out;
    cr_assert_eq(rfi_plan_largest(&d, 4096, 1000000000000u, &out, NULL), 0);
    cr_assert_eq(out, 4096);
    cr_assert_eq(rfi_plan_footprint(&d, 512, NULL, 0, &out, NULL), 0);
    cr_assert_eq(out, 512);
}
