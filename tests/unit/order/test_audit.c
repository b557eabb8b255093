/* The audit of delivered ids: it must find each way a delivery can be wrong, and nothing else. */
#include "fixture.h"

#include "order/audit.h"
#include "order/pages.h"

#include <stdio.h>

struct seen {
    uint64_t n;
    struct rfi_finding first;
};

static void on_found(void *ctx, const struct rfi_finding *f)
{
    struct seen *s = ctx;
    if (s->n++ == 0)
        s->first = *f;
}

static struct rfi_audit *audit_of(const struct rfi_audit_options *o)
{
    struct rfi_audit *a;
    cr_assert_eq(rfi_audit_create(o, &a, NULL), 0);
    return a;
}

/* Batches of `size` ids in order, as slots 0 … */
static void deliver(struct rfi_audit *a, uint64_t epoch, uint32_t rank, uint64_t batch, const uint64_t *ids, uint64_t n)
{
    for (uint64_t slot = 0; slot < n; slot++) {
        struct rfi_id_line line = {epoch, batch, slot, ids[slot], rank, '-'};
        cr_assert_eq(rfi_audit_line(a, &line, NULL), 0);
    }
}

static struct rfi_audit_counts finish(struct rfi_audit *a)
{
    struct rfi_audit_counts counts;
    cr_assert_eq(rfi_audit_finish(a, &counts, NULL), 0);
    rfi_audit_destroy(a);
    return counts;
}

static const uint64_t one[] = {4, 1, 7}, two[] = {0, 2, 3}, three[] = {5, 6, 8}, other[] = {5, 6, 9};

Test(audit, complete_delivery_is_good, .timeout = 10)
{
    struct seen s = {0};
    struct rfi_audit *a =
        audit_of(&(struct rfi_audit_options){.samples_known = true, .samples = 9, .found = on_found, .ctx = &s});
    deliver(a, 0, 0, 0, one, 3);
    deliver(a, 0, 1, 0, two, 3);
    deliver(a, 0, 0, 0, one, 3); /* redelivered */
    deliver(a, 0, 0, 1, three, 3);
    deliver(a, 0, 0, 1, three, 3); /* redelivered at once */
    struct rfi_audit_counts c = finish(a);
    cr_assert_eq(s.n, 0);
    cr_assert(c.lines == 15 && c.batches == 3 && c.samples == 9 && c.redelivered == 2 && c.missing == 0 &&
              c.epochs == 1);
}

Test(audit, finds_double_missing_changed_and_broken, .timeout = 10)
{
    struct seen s = {0};
    struct rfi_audit_options o = {.samples_known = true, .samples = 9, .found = on_found, .ctx = &s};
    struct rfi_audit *a = audit_of(&o);
    deliver(a, 3, 0, 0, one, 3);
    deliver(a, 3, 0, 1, three, 3);
    deliver(a, 3, 1, 0, three, 3);
    struct rfi_audit_counts c = finish(a);
    cr_assert(c.doubled == 3 && c.missing == 3 && c.found[RFI_FOUND_DOUBLE] == 3);
    cr_assert_eq(c.found[RFI_FOUND_MISSING_SAMPLES], 2, "0, and 2 to 3");
    cr_assert(s.first.kind == RFI_FOUND_DOUBLE && s.first.line.index == 5 && s.first.line.rank == 1);

    a = audit_of(&o);
    deliver(a, 0, 0, 0, three, 3);
    deliver(a, 0, 0, 0, other, 3);
    cr_assert_eq(finish(a).found[RFI_FOUND_CHANGED], 1);

    a = audit_of(&o);
    deliver(a, 0, 0, 0, three, 3);
    deliver(a, 0, 0, 0, three, 2); /* shorter: not identical */
    cr_assert_eq(finish(a).found[RFI_FOUND_CHANGED], 1);

    a = audit_of(&o);
    for (uint64_t slot = 0; slot < 4; slot += 2) {
        struct rfi_id_line line = {0, 0, slot, slot, 0, '-'};
        cr_assert_eq(rfi_audit_line(a, &line, NULL), 0);
    }
    cr_assert_eq(finish(a).found[RFI_FOUND_BROKEN], 1);

    a = audit_of(&o);
    deliver(a, 0, 0, 0, (const uint64_t[]){9}, 1);
    cr_assert_eq(finish(a).found[RFI_FOUND_UNEXPECTED], 1);
}

Test(audit, epochs_are_separate_and_expected, .timeout = 10)
{
    struct rfi_audit_options o = {.samples_known = true, .samples = 3};
    struct rfi_audit *a = audit_of(&o);
    deliver(a, 5, 0, 0, (const uint64_t[]){0, 1, 2}, 3);
    deliver(a, 6, 0, 0, (const uint64_t[]){2, 1, 0}, 3);
    struct rfi_audit_counts c = finish(a);
    cr_assert(c.epochs == 2 && c.missing == 0 && c.doubled == 0);

    o.first_epoch = 5;
    o.n_epochs = 3;
    a = audit_of(&o);
    deliver(a, 5, 0, 0, (const uint64_t[]){0, 1, 2}, 3);
    deliver(a, 8, 0, 0, (const uint64_t[]){0, 1, 2}, 3);
    c = finish(a);
    cr_assert(c.missing == 6 && c.found[RFI_FOUND_UNEXPECTED] == 1);

    o.n_epochs = 0;
    a = audit_of(&o); /* nothing at all came */
    cr_assert_eq(finish(a).missing, 3);
}

Test(audit, unknown_samples, .timeout = 10)
{
    struct rfi_audit *a = audit_of(&(struct rfi_audit_options){0});
    deliver(a, 0, 0, 0, (const uint64_t[]){UINT64_MAX, 1, UINT64_MAX}, 3);
    struct rfi_audit_counts c = finish(a);
    cr_assert(c.doubled == 1 && c.missing == 0);
}

/* With the order: every rank's batches through views, one thing changed at a time. */
struct plan {
    rf_order_options o;
    struct fixture f;
};

static void deliver_all(struct rfi_audit *a, struct plan *p, uint32_t skip_rank, uint64_t skip_batch, uint64_t swap)
{
    uint64_t ids[64];
    uint8_t flags[64];
    for (uint64_t b = 0; b < 100; b++)
        for (uint32_t r = 0; r < p->o.world_size; r++) {
            rfi_view_seek(p->f.view, 2, r);
            uint64_t n = rfi_view_batch(p->f.view, b, ids, flags);
            if (r == skip_rank && b == skip_batch)
                continue;
            for (uint64_t s = 0; s < n; s++) {
                uint64_t from = r == 1 && b == 1 && swap && s < 2 ? 1 - s : s;
                struct rfi_id_line line = {2, b, s, ids[from], r, flags[from] ? 'p' : '-'};
                cr_assert_eq(rfi_audit_line(a, &line, NULL), 0);
            }
        }
}

static void check_ordered(rf_tail tail, rf_strategy strategy)
{
    struct rfi_order_source source = {.samples = 103, .mean_bytes = 1};
    struct plan p = {.o = some_options(4)};
    p.o.batch = 5;
    p.o.shuffle = RF_SHUFFLE_FULL;
    p.o.tail = tail;
    p.o.strategy = strategy;
    p.f = open_fixture(&p.o, &source);
    struct rfi_audit_options o = {.samples_known = true, .samples = 103, .order = p.f.order, .ranks = 4};
    struct rfi_audit *a = audit_of(&o);
    deliver_all(a, &p, 9, 0, 0);
    struct rfi_audit_counts c = finish(a);
    for (int k = 0; k < RFI_N_FOUND; k++)
        cr_assert_eq(c.found[k], 0, "tail %d: kind %d", tail, k);
    cr_assert(c.missing == 0 && c.lines == c.samples + c.padding && (tail == RF_TAIL_PAD) == (c.padding > 0));

    a = audit_of(&o);
    deliver_all(a, &p, 2, 1, 0);
    c = finish(a);
    cr_assert(c.missing == 5 && c.found[RFI_FOUND_MISSING_BATCHES] == 1 && c.found[RFI_FOUND_MISSING_SAMPLES] == 0);

    a = audit_of(&o);
    deliver_all(a, &p, 9, 0, 1);
    c = finish(a);
    cr_assert(c.missing == 0 && c.found[RFI_FOUND_WRONG] == 2 && c.doubled == 0);

    o.first_rank = 1; /* one server's two ranks: what the others deliver is not expected here */
    o.ranks = 2;
    a = audit_of(&o);
    deliver_all(a, &p, 9, 0, 0);
    c = finish(a);
    cr_assert(c.missing == 0 && c.found[RFI_FOUND_WRONG] == 0 && c.found[RFI_FOUND_UNEXPECTED] > 0);
    close_fixture(&p.f);
}

Test(audit, compares_the_order, .timeout = 10)
{
    for (int tail = RF_TAIL_UNEVEN; tail <= RF_TAIL_PAD; tail++) {
        check_ordered((rf_tail)tail, RF_ROUND_ROBIN);
        check_ordered((rf_tail)tail, RF_HASH);
    }
}

Test(audit, short_batch, .timeout = 10)
{
    struct rfi_order_source source = {.samples = 10, .mean_bytes = 1};
    rf_order_options oo = some_options(1);
    oo.batch = 5;
    struct fixture f = open_fixture(&oo, &source);
    struct rfi_audit *a =
        audit_of(&(struct rfi_audit_options){.samples_known = true, .samples = 10, .order = f.order, .ranks = 1});
    deliver(a, 0, 0, 0, (const uint64_t[]){0, 1, 2}, 3);
    deliver(a, 0, 0, 1, (const uint64_t[]){5, 6, 7, 8, 9, 10}, 6);
    struct rfi_audit_counts c = finish(a);
    cr_assert(c.found[RFI_FOUND_BROKEN] == 1 && c.missing == 2 && c.found[RFI_FOUND_MISSING_SAMPLES] == 1);
    cr_assert_eq(c.found[RFI_FOUND_UNEXPECTED], 1, "index 10 does not exist");
    close_fixture(&f);
}

Test(id_line, reads_exactly_such_lines, .timeout = 10)
{
    static const char *const bad[] = {"",
                                      "0 0 0 0 0",
                                      "0 0 0 0 0 ",
                                      "0 0 0 0 0 x",
                                      "0 0 0 0 0 --",
                                      "0 0 0 0 0 - ",
                                      " 0 0 0 0 0 -",
                                      "0  0 0 0 0 -",
                                      "0 0 0 0 -1 -",
                                      "0 4294967296 0 0 0 -",
                                      "0 0 0 0 18446744073709551616 -",
                                      "0 0 0 0 0x1 -",
                                      "0\t0 0 0 0 -",
                                      "0 0 0 0 0 -\r",
                                      "a b c d e f"};
    struct rfi_id_line line;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(rfi_id_line_parse(bad[i], strlen(bad[i]), &line), "\"%s\"", bad[i]);
    const char *good = "1 4294967295 3 4 18446744073709551615 p";
    cr_assert(rfi_id_line_parse(good, strlen(good), &line));
    cr_assert(line.epoch == 1 && line.rank == UINT32_MAX && line.batch == 3 && line.slot == 4 &&
              line.index == UINT64_MAX && line.flag == 'p');
}

Test(id_line, writes_numbers_as_printf_does, .timeout = 10)
{
    char mine[32], theirs[32];
    for (uint64_t step = 0, value = 0; step < 200000; step++) {
        uint64_t v = step < 100000 ? step : value;
        *rfi_put_u64(mine, v) = 0;
        snprintf(theirs, sizeof theirs, "%llu", (unsigned long long)v);
        cr_assert_str_eq(mine, theirs);
        value = value * 6364136223846793005u + 1442695040888963407u;
        value >>= step % 60 == 0 ? 40 : 0;
    }
    *rfi_put_u64(mine, UINT64_MAX) = 0;
    cr_assert_str_eq(mine, "18446744073709551615");
}

Test(pages, remember_by_key, .timeout = 10)
{
    struct rfi_pages p = {0};
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t *page = rfi_pages_get(&p, (struct rfi_page_key){i % 10, i / 10 % 10, i / 100});
        cr_assert(page && page[63] == 0);
        page[63] = i + 1;
    }
    for (uint64_t i = 0; i < 3000; i++)
        cr_assert_eq(rfi_pages_find(&p, (struct rfi_page_key){i % 10, i / 10 % 10, i / 100})[63], i + 1);
    cr_assert_null(rfi_pages_find(&p, (struct rfi_page_key){0, 0, 30}));
    rfi_pages_fini(&p);
}
