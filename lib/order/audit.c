/* Taking lines: batches are told apart, compared with the order, marked and remembered. */
#include "order/audit_private.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

static int no_memory(const struct rfi_audit *a, struct rfi_error *err)
{
    return rfi_fail(err, ENOMEM, "verify: no memory after %llu lines. Verify fewer epochs at a time",
                    (unsigned long long)a->counts.lines);
}

int rfi_audit_create(const struct rfi_audit_options *o, struct rfi_audit **ret, struct rfi_error *err)
{
    if (o->order && rfi_order_is_sequence(o->order))
        return rfi_fail(
            err, ENOTSUP,
            "verify: a sequence may have samples several times or never, so nothing can be missing. Compare with "
            "`ringfeed order`");
    struct rfi_audit *a = calloc(1, sizeof *a);
    if (!a)
        return rfi_fail(err, ENOMEM, "verify: no memory");
    a->o = *o;
    a->due = malloc(RFI_AUDIT_EXPECTED * sizeof *a->due);
    a->due_flags = malloc(RFI_AUDIT_EXPECTED);
    int rc = a->due && a->due_flags ? 0 : no_memory(a, err);
    if (rc == 0 && o->order)
        rc = rfi_view_create(o->order, &a->view, err);
    if (rc < 0) {
        rfi_audit_destroy(a);
        return rc;
    }
    *ret = a;
    return 0;
}

void rfi_audit_destroy(struct rfi_audit *a)
{
    if (!a)
        return;
    rfi_pages_fini(&a->seen);
    rfi_pages_fini(&a->digests);
    rfi_view_destroy(a->view);
    free(a->epochs);
    free(a->due);
    free(a->due_flags);
    free(a->patched);
    free(a->patched_flags);
    free(a);
}

static void found_line(struct rfi_audit *a, enum rfi_finding_kind kind, const struct rfi_id_line *line)
{
    struct rfi_finding f = {.kind = kind, .line = *line};
    rfi_audit_found(a, &f);
}

static int note_epoch(struct rfi_audit *a, uint64_t epoch, struct rfi_error *err)
{
    /* Bit 0 of a page with a key that no sample has. */
    uint64_t *page = rfi_pages_get(&a->seen, rfi_audit_epoch_key(epoch));
    if (!page)
        return no_memory(a, err);
    if (*page)
        return 0;
    *page = 1;
    if (a->n_epochs == a->epochs_cap) {
        size_t cap = a->epochs_cap ? a->epochs_cap * 2 : 16;
        uint64_t *epochs = realloc(a->epochs, cap * sizeof *epochs);
        if (!epochs)
            return no_memory(a, err);
        a->epochs = epochs;
        a->epochs_cap = cap;
    }
    a->epochs[a->n_epochs++] = epoch;
    return 0;
}

static uint64_t *digest_of(struct rfi_audit *a, const struct rfi_id_line *line)
{
    struct rfi_page_key key = {line->epoch, line->rank, line->batch / RFI_PAGE_WORDS};
    uint64_t *page = rfi_pages_get(&a->digests, key);
    return page ? &page[line->batch % RFI_PAGE_WORDS] : NULL;
}

static bool epoch_expected(const struct rfi_audit *a, uint64_t epoch)
{
    return a->o.n_epochs == 0 || (epoch >= a->o.first_epoch && epoch - a->o.first_epoch < a->o.n_epochs);
}

static bool batch_expected(const struct rfi_audit *a, const struct rfi_id_line *line)
{
    return line->rank >= a->o.first_rank && line->rank - a->o.first_rank < a->o.ranks &&
           line->batch < rfi_order_len(a->o.order, line->rank);
}

static bool of_batch(const struct rfi_fault *f, uint64_t epoch, uint32_t rank, uint64_t batch)
{
    return f->epoch == epoch && f->rank == rank && f->batch == batch;
}

uint64_t rfi_audit_faults(const struct rfi_audit *a, uint64_t epoch, uint32_t rank, uint64_t batch,
                          uint64_t *ret_skipped)
{
    uint64_t n = 0;
    *ret_skipped = 0;
    for (uint64_t i = 0; i < a->o.n_faults; i++)
        if (of_batch(&a->o.faults[i], epoch, rank, batch)) {
            n++;
            *ret_skipped += a->o.faults[i].substitute == RFI_FAULT_SKIPPED;
        }
    return n;
}

/* Sets the bit of a sample that did not come and need not. */
static int excuse(struct rfi_audit *a, uint64_t epoch, uint64_t index, struct rfi_error *err)
{
    uint64_t *page = rfi_pages_get(&a->seen, (struct rfi_page_key){epoch, index / RFI_PAGE_BITS, 0});
    if (!page)
        return no_memory(a, err);
    page[index / 64 % RFI_PAGE_WORDS] |= (uint64_t)1 << index % 64;
    a->counts.replaced++;
    return 0;
}

/* The batch with its entries of the log applied; the samples that they took out are excused. */
static int patch(struct rfi_audit *a, uint64_t epoch, uint32_t rank, uint64_t batch, struct rfi_error *err)
{
    uint64_t size = rfi_order_batch_samples(a->o.order), skipped, n_entries = 0;
    uint64_t n = rfi_audit_faults(a, epoch, rank, batch, &skipped);
    struct rfi_fault *entries = n ? malloc(n * sizeof *entries) : NULL;
    int rc = 0;
    a->is_patched = n != 0;
    if (!n)
        return 0;
    if (!a->patched) {
        a->patched = malloc(size * sizeof *a->patched);
        a->patched_flags = malloc(size);
    }
    if (!entries || !a->patched || !a->patched_flags) {
        free(entries);
        return no_memory(a, err);
    }
    rfi_view_seek(a->view, epoch, rank);
    n = rfi_view_batch(a->view, batch, a->patched, a->patched_flags);
    for (uint64_t i = 0; i < a->o.n_faults && rc == 0; i++) {
        const struct rfi_fault *f = &a->o.faults[i];
        if (!of_batch(f, epoch, rank, batch))
            continue;
        entries[n_entries++] = *f;
        if (f->slot < n && !(a->patched_flags[f->slot] & RF_FLAG_PADDING))
            rc = excuse(a, epoch, a->patched[f->slot], err);
    }
    a->n_patched = rfi_faults_apply(a->patched, a->patched_flags, n, entries, n_entries, NULL);
    free(entries);
    return rc;
}

static int begin(struct rfi_audit *a, const struct rfi_id_line *line, struct rfi_error *err)
{
    int rc = note_epoch(a, line->epoch, err);
    uint64_t *digest = digest_of(a, line);
    if (rc < 0)
        return rc;
    if (!digest)
        return no_memory(a, err);
    bool right_epoch = epoch_expected(a, line->epoch);
    a->expected = a->o.order && right_epoch && batch_expected(a, line);
    if (!right_epoch || (a->o.order && !a->expected))
        found_line(a, RFI_FOUND_UNEXPECTED, line);
    a->open = true;
    a->head = *line;
    a->next_slot = 0;
    a->digest = 0;
    a->again = *digest != 0;
    a->n_due = 0;
    a->counts.batches += !a->again;
    a->is_patched = false;
    return a->expected && !a->again && a->o.n_faults ? patch(a, line->epoch, line->rank, line->batch, err) : 0;
}

/* The index and flag due at a slot of the open batch; false behind its end. */
static bool due(struct rfi_audit *a, uint64_t slot, uint64_t *ret_index, char *ret_flag)
{
    uint64_t size = rfi_order_batch_samples(a->o.order);
    if (a->is_patched) {
        if (slot >= a->n_patched)
            return false;
        uint8_t flags = a->patched_flags[slot];
        *ret_index = a->patched[slot];
        *ret_flag = flags & RF_FLAG_SUBSTITUTED ? 's' : flags & RF_FLAG_PADDING ? 'p' : '-';
        return true;
    }
    if (slot >= size)
        return false;
    if (slot < a->due_from || slot - a->due_from >= a->n_due || a->n_due == 0) {
        uint64_t count = rfi_min(RFI_AUDIT_EXPECTED, size - slot);
        rfi_view_seek(a->view, a->head.epoch, a->head.rank);
        a->due_from = slot;
        a->n_due = rfi_view_fill_tail(a->view, a->head.batch * size + slot, count, a->due, a->due_flags);
        if (a->n_due == 0)
            return false;
    }
    *ret_index = a->due[slot - a->due_from];
    *ret_flag = a->due_flags[slot - a->due_from] & RF_FLAG_PADDING ? 'p' : '-';
    return true;
}

/* A substitute whose entry in the log is not known stands for the sample that was due. */
static int compare(struct rfi_audit *a, const struct rfi_id_line *line, struct rfi_error *err)
{
    struct rfi_finding f = {.kind = RFI_FOUND_WRONG, .line = *line};
    if (!due(a, line->slot, &f.expected, &f.expected_flag)) {
        f.kind = RFI_FOUND_UNEXPECTED;
        rfi_audit_found(a, &f);
    } else if (line->flag == 's' && !a->is_patched) {
        return f.expected_flag == 'p' ? 0 : excuse(a, line->epoch, f.expected, err);
    } else if (line->index != f.expected || line->flag != f.expected_flag) {
        rfi_audit_found(a, &f);
    }
    return 0;
}

static int mark_substituted(struct rfi_audit *a, uint64_t epoch, struct rfi_error *err)
{
    uint64_t *page = rfi_pages_get(&a->seen, rfi_audit_epoch_key(epoch));
    if (!page)
        return no_memory(a, err);
    page[1]++;
    a->counts.substituted++;
    return 0;
}

/* Marks a delivered sample. Fillers repeat samples and substitutes stand in for others: neither counts
 * as the delivery of its own index. */
static int mark(struct rfi_audit *a, const struct rfi_id_line *line, struct rfi_error *err)
{
    if (line->flag == 'p')
        a->counts.padding++;
    else if (line->flag == 's')
        return mark_substituted(a, line->epoch, err);
    if (line->flag != '-')
        return 0;
    uint64_t *page = rfi_pages_get(&a->seen, (struct rfi_page_key){line->epoch, line->index / RFI_PAGE_BITS, 0});
    if (!page)
        return no_memory(a, err);
    uint64_t *word = &page[line->index / 64 % RFI_PAGE_WORDS], bit = (uint64_t)1 << line->index % 64;
    a->counts.samples++;
    if (*word & bit && !a->o.repeats_allowed) {
        a->counts.doubled++;
        found_line(a, RFI_FOUND_DOUBLE, line);
    }
    *word |= bit;
    return 0;
}

static void check_slot(struct rfi_audit *a, const struct rfi_id_line *line)
{
    if (line->slot != a->next_slot) {
        struct rfi_finding f = {.kind = RFI_FOUND_BROKEN, .line = *line, .expected = a->next_slot};
        rfi_audit_found(a, &f);
    }
    a->next_slot = line->slot + 1;
}

static void digest_line(struct rfi_audit *a, const struct rfi_id_line *line)
{
    uint64_t h = (a->digest ^ line->index) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ h >> 29 ^ line->slot ^ (uint64_t)(unsigned char)line->flag << 56) * UINT64_C(0xbf58476d1ce4e5b9);
    a->digest = h ^ h >> 32;
}

static bool same_batch(const struct rfi_audit *a, const struct rfi_id_line *line)
{
    return a->open && line->epoch == a->head.epoch && line->rank == a->head.rank && line->batch == a->head.batch;
}

int rfi_audit_line(struct rfi_audit *a, const struct rfi_id_line *line, struct rfi_error *err)
{
    int rc = 0;
    a->counts.lines++;
    if (!same_batch(a, line) || line->slot == 0) {
        rc = rfi_audit_break(a, err);
        if (rc == 0)
            rc = begin(a, line, err);
        if (rc < 0)
            return rc;
    }
    check_slot(a, line);
    digest_line(a, line);
    if (a->again)
        return 0;
    if (a->o.samples_known && line->index >= a->o.samples) {
        found_line(a, RFI_FOUND_UNEXPECTED, line);
        return 0;
    }
    rc = a->expected ? compare(a, line, err) : 0;
    return rc < 0 ? rc : mark(a, line, err);
}

int rfi_audit_break(struct rfi_audit *a, struct rfi_error *err)
{
    if (!a->open)
        return 0;
    a->open = false;
    uint64_t *digest = digest_of(a, &a->head), value = a->digest | 1, index;
    char flag;
    if (!digest)
        return no_memory(a, err);
    if (a->again) {
        if (*digest == value)
            a->counts.redelivered++;
        else
            found_line(a, RFI_FOUND_CHANGED, &a->head);
        return 0;
    }
    *digest = value;
    if (a->expected && due(a, a->next_slot, &index, &flag)) {
        struct rfi_finding f = {
            .kind = RFI_FOUND_BROKEN, .line = a->head, .expected = a->next_slot, .short_batch = true};
        rfi_audit_found(a, &f);
    }
    return 0;
}

int rfi_audit_finish(struct rfi_audit *a, struct rfi_audit_counts *ret, struct rfi_error *err)
{
    int rc = rfi_audit_break(a, err);
    if (rc < 0)
        return rc;
    a->counts.epochs = a->n_epochs;
    rfi_audit_missing(a);
    *ret = a->counts;
    return 0;
}
