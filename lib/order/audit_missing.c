/* What never came. With an order: batches of the ranks that are looked at. Without: samples of the
 * dataset, whoever had them. */
#include "order/audit_private.h"

#include "base/bytes.h"

/* A stretch of missing numbers that grows as the walk goes on and is reported when it ends. */
struct stretch {
    struct rfi_audit *audit;
    struct rfi_finding finding;
    bool open;
};

static void end_stretch(struct stretch *s)
{
    if (s->open)
        rfi_audit_found(s->audit, &s->finding);
    s->open = false;
}

static void add(struct stretch *s, uint64_t first, uint64_t last)
{
    if (s->open && s->finding.last + 1 == first) {
        s->finding.last = last;
        return;
    }
    end_stretch(s);
    s->open = true;
    s->finding.first = first;
    s->finding.last = last;
}

static uint64_t count_missing(struct rfi_audit *a, uint64_t epoch)
{
    uint64_t missing = 0;
    for (uint64_t from = 0; from < a->o.samples; from += RFI_PAGE_BITS) {
        uint64_t n = rfi_min(RFI_PAGE_BITS, a->o.samples - from);
        const uint64_t *page = rfi_pages_find(&a->seen, (struct rfi_page_key){epoch, from / RFI_PAGE_BITS, 0});
        missing += n;
        for (uint64_t w = 0; page && w < RFI_PAGE_WORDS; w++)
            missing -= (uint64_t)__builtin_popcountll(page[w]);
    }
    return missing;
}

static void missing_samples(struct rfi_audit *a, uint64_t epoch)
{
    /* Without an order nobody knows which samples the substitutes stand for, but how many they are is known. */
    const uint64_t *words = rfi_pages_find(&a->seen, rfi_audit_epoch_key(epoch));
    uint64_t excused = words ? words[1] : 0, missing = excused ? count_missing(a, epoch) : 0;
    if (excused && missing <= excused) {
        a->counts.replaced += missing;
        return;
    }
    struct stretch s = {.audit = a, .finding = {.kind = RFI_FOUND_MISSING_SAMPLES, .line.epoch = epoch}};
    for (uint64_t from = 0; from < a->o.samples; from += RFI_PAGE_BITS) {
        uint64_t n = rfi_min(RFI_PAGE_BITS, a->o.samples - from);
        const uint64_t *page = rfi_pages_find(&a->seen, (struct rfi_page_key){epoch, from / RFI_PAGE_BITS, 0});
        if (!page) {
            a->counts.missing += n;
            add(&s, from, from + n - 1);
            continue;
        }
        for (uint64_t i = 0; i < n; i++)
            if (!(page[i / 64] >> i % 64 & 1)) {
                a->counts.missing++;
                add(&s, from + i, from + i);
            }
    }
    end_stretch(&s);
}

/* A batch of which the log leaves nothing: it came without a line. Its samples are excused here. */
static bool all_skipped(struct rfi_audit *a, uint64_t epoch, uint32_t rank, uint64_t batch)
{
    uint64_t skipped, size = rfi_order_batch_samples(a->o.order);
    if (!a->o.n_faults || size > RFI_AUDIT_EXPECTED || !rfi_audit_faults(a, epoch, rank, batch, &skipped))
        return false;
    rfi_view_seek(a->view, epoch, rank);
    uint64_t n = rfi_view_batch(a->view, batch, a->due, a->due_flags);
    if (skipped < n)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t *page = rfi_pages_get(&a->seen, (struct rfi_page_key){epoch, a->due[i] / RFI_PAGE_BITS, 0});
        if (!page || a->due_flags[i] & RF_FLAG_PADDING)
            continue;
        page[a->due[i] / 64 % RFI_PAGE_WORDS] |= (uint64_t)1 << a->due[i] % 64;
        a->counts.replaced++;
    }
    return true;
}

static void missing_batches(struct rfi_audit *a, uint64_t epoch, uint32_t rank)
{
    struct stretch s = {.audit = a,
                        .finding = {.kind = RFI_FOUND_MISSING_BATCHES, .line = {.epoch = epoch, .rank = rank}}};
    uint64_t len = rfi_order_len(a->o.order, rank);
    for (uint64_t from = 0; from < len; from += RFI_PAGE_WORDS) {
        uint64_t n = rfi_min(RFI_PAGE_WORDS, len - from);
        const uint64_t *page = rfi_pages_find(&a->digests, (struct rfi_page_key){epoch, rank, from / RFI_PAGE_WORDS});
        for (uint64_t i = 0; i < n; i++) {
            if ((page && page[i]) || all_skipped(a, epoch, rank, from + i))
                continue;
            uint64_t last = page || a->o.n_faults ? from + i : from + n - 1;
            add(&s, from + i, last);
            i = last - from;
        }
    }
    end_stretch(&s);
}

static bool has_bit(struct rfi_audit *a, uint64_t epoch, uint64_t index)
{
    const uint64_t *page = rfi_pages_find(&a->seen, (struct rfi_page_key){epoch, index / RFI_PAGE_BITS, 0});
    return page && page[index / 64 % RFI_PAGE_WORDS] >> index % 64 & 1;
}

static bool batch_came(struct rfi_audit *a, uint64_t epoch, uint32_t rank, uint64_t batch)
{
    const uint64_t *page = rfi_pages_find(&a->digests, (struct rfi_page_key){epoch, rank, batch / RFI_PAGE_WORDS});
    return page && page[batch % RFI_PAGE_WORDS];
}

/* Every sample that the order promises this rank, looked up. Counted wherever it is missing, named where
 * its batch came (missing batches are named as a whole). */
static void missing_of_rank(struct rfi_audit *a, uint64_t epoch, uint32_t rank)
{
    struct stretch s = {.audit = a, .finding = {.kind = RFI_FOUND_MISSING_SAMPLES, .line.epoch = epoch}};
    uint64_t size = rfi_order_batch_samples(a->o.order), from = 0, n;
    rfi_view_seek(a->view, epoch, rank);
    while ((n = rfi_view_fill_tail(a->view, from, RFI_AUDIT_EXPECTED, a->due, a->due_flags)) != 0) {
        for (uint64_t i = 0; i < n; i++) {
            if (a->due_flags[i] & RF_FLAG_PADDING || has_bit(a, epoch, a->due[i]))
                continue;
            a->counts.missing++;
            if (batch_came(a, epoch, rank, (from + i) / size))
                add(&s, a->due[i], a->due[i]);
        }
        from += n;
    }
    end_stretch(&s);
}

static void missing_in(struct rfi_audit *a, uint64_t epoch)
{
    if (!a->o.order) {
        if (a->o.samples_known)
            missing_samples(a, epoch);
        return;
    }
    for (uint32_t r = 0; r < a->o.ranks; r++) {
        missing_batches(a, epoch, a->o.first_rank + r);
        missing_of_rank(a, epoch, a->o.first_rank + r);
    }
}

void rfi_audit_missing(struct rfi_audit *a)
{
    if (a->o.n_epochs) {
        for (uint64_t e = 0; e < a->o.n_epochs; e++)
            missing_in(a, a->o.first_epoch + e);
        return;
    }
    if (a->n_epochs == 0)
        missing_in(a, a->o.first_epoch);
    for (size_t e = 0; e < a->n_epochs; e++)
        missing_in(a, a->epochs[e]);
}
