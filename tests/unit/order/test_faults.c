/* rfi_faults_apply against the obvious: every set of decisions about a batch of six. */
#include "fixture.h"

#include "order/audit.h"
#include "order/faults.h"

enum { N = 6 };

/* Decision of slot i in `code`, base 3: none, left out, replaced. */
static int decision(unsigned code, int i)
{
    while (i--)
        code /= 3;
    return (int)(code % 3);
}

Test(faults, every_set_of_decisions, .timeout = 30)
{
    for (unsigned code = 0; code < 729; code++)
        for (int backwards = 0; backwards < 2; backwards++) {
            uint64_t ids[N], want[N], left = 0, n_entries = 0;
            uint8_t flags[N], want_flags[N];
            uint32_t moved[N], want_moved[N];
            struct rfi_fault entries[N + 1];
            for (int k = 0; k < N; k++) {
                int i = backwards ? N - 1 - k : k, what = decision(code, i);
                if (what)
                    entries[n_entries++] = (struct rfi_fault){
                        .slot = (uint64_t)i, .substitute = what == 1 ? RFI_FAULT_SKIPPED : 100 + (uint64_t)i};
            }
            entries[n_entries++] = (struct rfi_fault){.slot = N, .substitute = 7}; /* of no slot */
            for (int i = 0; i < N; i++) {
                int what = decision(code, i);
                ids[i] = (uint64_t)i;
                flags[i] = i >= 4 ? RF_FLAG_PADDING : 0;
                if (what == 1)
                    continue;
                want[left] = what ? 100 + (uint64_t)i : (uint64_t)i;
                want_flags[left] = (uint8_t)(flags[i] | (what ? RF_FLAG_SUBSTITUTED : 0));
                want_moved[left++] = (uint32_t)i;
            }
            cr_assert_eq(rfi_faults_apply(ids, flags, N, entries, n_entries, moved), left);
            cr_assert_eq(memcmp(ids, want, left * sizeof *ids), 0);
            cr_assert_eq(memcmp(flags, want_flags, left), 0);
            cr_assert_eq(memcmp(moved, want_moved, left * sizeof *moved), 0);
        }
}

Test(faults, nothing_to_do_and_nothing_to_fill)
{
    uint64_t ids[3] = {5, 6, 7};
    struct rfi_fault two[] = {{.slot = 1, .substitute = 9}, {.slot = 1, .substitute = RFI_FAULT_SKIPPED}};
    cr_assert_eq(rfi_faults_apply(ids, NULL, 3, NULL, 0, NULL), 3);
    cr_assert_eq(rfi_faults_apply(ids, NULL, 0, two, 2, NULL), 0);
    cr_assert_eq(rfi_faults_apply(ids, NULL, 3, two, 2, NULL), 3); /* the first of two counts */
    cr_assert(ids[0] == 5 && ids[1] == 9 && ids[2] == 7);
}

/* ---- the audit with a log ---- */

static const struct rfi_fault log_of_two_batches[] = {
    {.epoch = 0, .rank = 0, .batch = 1, .slot = 1, .substitute = 3},
    {.epoch = 0, .rank = 0, .batch = 1, .slot = 2, .substitute = RFI_FAULT_SKIPPED},
    {.epoch = 0, .rank = 1, .batch = 0, .slot = 0, .substitute = RFI_FAULT_SKIPPED},
    {.epoch = 0, .rank = 1, .batch = 0, .slot = 1, .substitute = RFI_FAULT_SKIPPED},
    {.epoch = 0, .rank = 1, .batch = 0, .slot = 2, .substitute = RFI_FAULT_SKIPPED},
    {.epoch = 0, .rank = 1, .batch = 0, .slot = 3, .substitute = RFI_FAULT_SKIPPED},
};

/* Delivers 40 samples to two ranks in batches of four as the log says, but for what `spoil` does to a line (false:
 * the line is lost), and audits that with the log or without. */
static struct rfi_audit_counts audited(bool (*spoil)(struct rfi_id_line *line), bool with_log)
{
    rf_order_options o = some_options(2);
    o.batch = 4;
    o.shuffle = RF_SHUFFLE_FULL;
    struct rfi_order_source source = {.samples = 40, .mean_bytes = 1};
    struct fixture f = open_fixture(&o, &source);
    struct rfi_audit_options a = {.samples_known = true, .samples = 40, .order = f.order, .ranks = 2};
    struct rfi_audit_counts counts;
    struct rfi_audit *audit;
    if (with_log) {
        a.faults = log_of_two_batches;
        a.n_faults = sizeof log_of_two_batches / sizeof *log_of_two_batches;
    }
    cr_assert_eq(rfi_audit_create(&a, &audit, NULL), 0);
    for (uint32_t rank = 0; rank < 2; rank++)
        for (uint64_t batch = 0; batch < 5; batch++) {
            struct rfi_fault mine[4];
            uint64_t ids[4], n_mine = 0;
            uint8_t flags[4];
            for (size_t i = 0; i < sizeof log_of_two_batches / sizeof *log_of_two_batches; i++)
                if (log_of_two_batches[i].rank == rank && log_of_two_batches[i].batch == batch)
                    mine[n_mine++] = log_of_two_batches[i];
            rfi_view_seek(f.view, 0, rank);
            uint64_t n = rfi_view_batch(f.view, batch, ids, flags);
            n = rfi_faults_apply(ids, flags, n, mine, n_mine, NULL);
            for (uint64_t slot = 0; slot < n; slot++) {
                struct rfi_id_line line = {0,         batch, slot,
                                           ids[slot], rank,  flags[slot] & RF_FLAG_SUBSTITUTED ? 's' : '-'};
                if (spoil(&line))
                    cr_assert_eq(rfi_audit_line(audit, &line, NULL), 0);
            }
        }
    cr_assert_eq(rfi_audit_finish(audit, &counts, NULL), 0);
    rfi_audit_destroy(audit);
    close_fixture(&f);
    return counts;
}

static uint64_t findings(const struct rfi_audit_counts *c)
{
    uint64_t n = c->missing;
    for (int k = 0; k < RFI_N_FOUND; k++)
        n += c->found[k];
    return n;
}

static bool as_it_is(struct rfi_id_line *line)
{
    (void)line;
    return true;
}

static bool another_substitute(struct rfi_id_line *line)
{
    if (line->flag == 's')
        line->index = 11;
    return true;
}

static bool lost_behind_the_gap(struct rfi_id_line *line)
{
    return !(line->rank == 0 && line->batch == 1 && line->slot == 2);
}

static bool lost_elsewhere(struct rfi_id_line *line)
{
    return !(line->rank == 1 && line->batch == 2);
}

static bool denied(struct rfi_id_line *line)
{
    if (line->flag == 's')
        line->flag = '-';
    return true;
}

Test(faults, audit_follows_the_log, .timeout = 30)
{
    struct rfi_audit_counts c = audited(as_it_is, true);
    cr_assert_eq(findings(&c), 0);
    cr_assert(c.replaced == 6 && c.substituted == 1 && c.samples == 34 && c.missing == 0);
    c = audited(as_it_is, false); /* who does not know the log finds what was left out */
    cr_assert(findings(&c) > 0 && c.missing == 5 && c.replaced == 1);
}

Test(faults, audit_with_a_log_still_finds_everything_else, .timeout = 30)
{
    bool (*const spoils[])(struct rfi_id_line *) = {another_substitute, lost_behind_the_gap, lost_elsewhere, denied};
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        struct rfi_audit_counts c = audited(spoils[i], true);
        cr_assert_gt(findings(&c), 0, "spoil %zu", i);
    }
}
