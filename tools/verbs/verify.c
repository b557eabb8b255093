/* verify: audits delivered ids. Reading, options and words are here; the audit itself is order/audit.h. */
#include "order_open.h"

#include "order/audit.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 18, NAMED = 10, PROGRESS_UNIT = 1 << 20 };

struct verify {
    struct cli_dataset_args dataset;
    struct cli_order_args order;
    struct cli_list dataset_paths;
    bool order_given; /* any order option: the order is compared */
    bool json;
    struct rfi_audit *audit;
    struct cli_progress progress;
    uint64_t lines, bytes;
    char *named[RFI_N_FOUND][NAMED]; /* the first of each kind, in words */
    uint64_t n_named[RFI_N_FOUND];
};

/* ---- findings in words ---- */

static const char *const kinds[RFI_N_FOUND] = {"double",     "changed", "broken", "wrong",
                                               "unexpected", "missing", "missing"};

static void place(const struct rfi_id_line *l, char *text, size_t bytes)
{
    snprintf(text, bytes, "epoch %" PRIu64 " rank %" PRIu32 " batch %" PRIu64, l->epoch, l->rank, l->batch);
}

static void missing_in_words(const struct rfi_finding *f, const char *what, char *text, size_t bytes)
{
    if (f->first == f->last)
        snprintf(text, bytes, "%s %" PRIu64 " never came", what, f->first);
    else
        snprintf(text, bytes, "%s %" PRIu64 " to %" PRIu64 " never came", what, f->first, f->last);
}

static void in_words(const struct rfi_finding *f, char *text, size_t bytes)
{
    const struct rfi_id_line *l = &f->line;
    char at[128], what[128];
    place(l, at, sizeof at);
    switch (f->kind) {
    case RFI_FOUND_DOUBLE:
        snprintf(text, bytes, "%s slot %" PRIu64 ": sample %" PRIu64 " came before in this epoch", at, l->slot,
                 l->index);
        break;
    case RFI_FOUND_CHANGED:
        snprintf(text, bytes, "%s: came again with other content", at);
        break;
    case RFI_FOUND_BROKEN:
        if (f->short_batch)
            snprintf(text, bytes, "%s: ends after %" PRIu64 " samples, too few", at, f->expected);
        else
            snprintf(text, bytes, "%s: slot %" PRIu64 " where slot %" PRIu64 " was due", at, l->slot, f->expected);
        break;
    case RFI_FOUND_WRONG:
        snprintf(text, bytes, "%s slot %" PRIu64 ": sample %" PRIu64 " %c, the order says %" PRIu64 " %c", at, l->slot,
                 l->index, l->flag, f->expected, f->expected_flag);
        break;
    case RFI_FOUND_UNEXPECTED:
        snprintf(text, bytes,
                 "%s slot %" PRIu64 " sample %" PRIu64 ": there is no such epoch, rank, batch, slot or sample", at,
                 l->slot, l->index);
        break;
    case RFI_FOUND_MISSING_SAMPLES:
        snprintf(what, sizeof what, "epoch %" PRIu64 ": sample", l->epoch);
        missing_in_words(f, what, text, bytes);
        break;
    case RFI_FOUND_MISSING_BATCHES:
        snprintf(what, sizeof what, "epoch %" PRIu64 " rank %" PRIu32 ": batch", l->epoch, l->rank);
        missing_in_words(f, what, text, bytes);
        break;
    case RFI_N_FOUND:
        break;
    }
}

static void on_found(void *ctx, const struct rfi_finding *f)
{
    struct verify *v = ctx;
    char text[512] = "";
    if (v->n_named[f->kind] == NAMED)
        return;
    in_words(f, text, sizeof text);
    v->named[f->kind][v->n_named[f->kind]++] = strdup(text);
}

/* ---- reading ---- */

static int malformed(const char *name, uint64_t line)
{
    char text[512];
    snprintf(text, sizeof text,
             "%.300s: line %" PRIu64
             ": not a line of ids. Each is \"epoch rank batch slot index flag\", the flag -, p or s",
             name, line);
    return cli_fail(text);
}

static int take_line(struct verify *v, const char *name, const char *text, size_t bytes, uint64_t number)
{
    struct rfi_id_line line;
    struct rfi_error err = {0};
    if (!rfi_id_line_parse(text, bytes, &line))
        return malformed(name, number);
    return rfi_audit_line(v->audit, &line, &err) < 0 ? cli_fail(err.text) : CLI_OK;
}

/* Takes the whole lines at the front of buffer[used]; returns how many bytes that were. */
static size_t take_lines(struct verify *v, const char *name, const char *buffer, size_t used, uint64_t *number, int *rc)
{
    size_t at = 0;
    const char *end;
    while (*rc == CLI_OK && (end = memchr(buffer + at, '\n', used - at)) != NULL) {
        size_t bytes = (size_t)(end - buffer) - at;
        *rc = take_line(v, name, buffer + at, bytes, ++*number);
        at += bytes + 1;
        v->lines++;
    }
    v->bytes += at;
    if (v->progress.total)
        cli_progress_at(&v->progress, v->bytes / PROGRESS_UNIT, "MiB");
    else
        cli_progress_at(&v->progress, v->lines, "lines");
    return at;
}

static int read_failed(const char *name, const char *what)
{
    char text[512];
    snprintf(text, sizeof text, "%.300s: %s: %s. Name files written by attach --ids", name, what, strerror(errno));
    return cli_fail(text);
}

static int read_lines(struct verify *v, const char *name, int fd, char *buffer)
{
    size_t used = 0;
    uint64_t number = 0;
    int rc = CLI_OK;
    for (;;) {
        ssize_t n = read(fd, buffer + used, PIECE - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return read_failed(name, "cannot be read");
        if (n == 0) /* a last line without its newline was cut off, or never was one */
            return used ? malformed(name, number + 1) : CLI_OK;
        used += (size_t)n;
        size_t taken = take_lines(v, name, buffer, used, &number, &rc);
        if (rc != CLI_OK)
            return rc;
        if (taken == 0 && used > RFI_ID_LINE_MAX)
            return malformed(name, number + 1);
        memmove(buffer, buffer + taken, used - taken);
        used -= taken;
    }
}

static int read_file(struct verify *v, const char *path, char *buffer)
{
    struct rfi_error err = {0};
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return read_failed(path, "cannot be opened");
    int rc = read_lines(v, standard ? "standard input" : path, fd, buffer);
    if (!standard)
        close(fd);
    if (rc == CLI_OK && rfi_audit_break(v->audit, &err) < 0)
        rc = cli_fail(err.text);
    return rc;
}

/* For the time left, in MiB; 0 where one of them is a pipe: then lines are counted. */
static uint64_t total_of(const struct cli_list *paths)
{
    uint64_t bytes = 0;
    struct stat st;
    for (size_t i = 0; i < paths->n; i++) {
        if (stat(paths->items[i], &st) < 0 || !S_ISREG(st.st_mode))
            return 0;
        bytes += (uint64_t)st.st_size;
    }
    return bytes / PROGRESS_UNIT;
}

static int read_all(struct verify *v, const struct cli_list *paths)
{
    char *buffer = malloc(PIECE);
    int rc = CLI_OK;
    if (!buffer)
        return cli_fail("verify: no memory");
    cli_progress_begin(&v->progress, "verify", total_of(paths));
    if (paths->n == 0)
        rc = read_file(v, "-", buffer);
    for (size_t i = 0; i < paths->n && rc == CLI_OK; i++)
        rc = read_file(v, paths->items[i], buffer);
    cli_progress_end(&v->progress);
    free(buffer);
    return rc;
}

/* ---- the verdict ---- */

static bool is_good(const struct rfi_audit_counts *c)
{
    for (int k = 0; k < RFI_N_FOUND; k++)
        if (c->found[k])
            return false;
    return c->missing == 0;
}

static void emit_findings(struct cli_emit *e, const struct verify *v)
{
    cli_emit_array(e, "findings");
    for (int k = 0; k < RFI_N_FOUND; k++)
        for (uint64_t i = 0; i < v->n_named[k]; i++) {
            cli_emit_object(e, NULL);
            cli_emit_str(e, "kind", kinds[k]);
            cli_emit_str(e, "what", v->named[k][i]);
            cli_emit_close(e);
        }
    cli_emit_close(e);
}

static int report(const struct verify *v, const struct rfi_audit_counts *c, bool known)
{
    struct cli_emit e;
    bool good = is_good(c);
    cli_emit_begin(&e, v->json);
    cli_emit_bool(&e, "good", good);
    cli_emit_u64(&e, "epochs", c->epochs);
    cli_emit_u64(&e, "lines", c->lines);
    cli_emit_u64(&e, "batches", c->batches);
    cli_emit_u64(&e, "samples", c->samples);
    cli_emit_u64(&e, "padding", c->padding);
    cli_emit_u64(&e, "substituted", c->substituted);
    cli_emit_u64(&e, "replaced", c->replaced);
    cli_emit_u64(&e, "redelivered_batches", c->redelivered);
    cli_emit_u64(&e, "double", c->doubled);
    if (known)
        cli_emit_u64(&e, "missing", c->missing);
    else
        cli_emit_null(&e, "missing");
    cli_emit_u64(&e, "wrong", c->found[RFI_FOUND_WRONG]);
    cli_emit_u64(&e, "unexpected", c->found[RFI_FOUND_UNEXPECTED]);
    cli_emit_u64(&e, "broken", c->found[RFI_FOUND_BROKEN]);
    cli_emit_u64(&e, "changed", c->found[RFI_FOUND_CHANGED]);
    cli_emit_bool(&e, "order_compared", v->order_given);
    emit_findings(&e, v);
    int rc = cli_emit_end(&e);
    if (!known)
        cli_message("verify: missing samples cannot be known: the number of samples was not given. Add --dataset D or "
                    "--samples N");
    if (good)
        return rc;
    char missing[32] = "missing unknown";
    if (known)
        snprintf(missing, sizeof missing, "%" PRIu64 " missing", c->missing);
    cli_message("verify: not every sample came exactly once as ordered: %s, %" PRIu64 " double, %" PRIu64
                " wrong, %" PRIu64 " unexpected, %" PRIu64 " broken and %" PRIu64 " changed. See the findings above",
                missing, c->doubled, c->found[RFI_FOUND_WRONG], c->found[RFI_FOUND_UNEXPECTED],
                c->found[RFI_FOUND_BROKEN], c->found[RFI_FOUND_CHANGED]);
    return CLI_FAILED;
}

/* ---- putting it together ---- */

static void set_epochs(const struct cli_order_args *a, struct rfi_audit_options *o)
{
    o->first_epoch = a->epoch_given ? a->epoch : a->start_epoch;
    if (a->epoch_given)
        o->n_epochs = 1;
    else if (a->epochs_given || a->start_given)
        o->n_epochs = a->epochs;
}

static int audit(struct verify *v, const struct rfi_audit_options *o, const struct cli_list *paths)
{
    struct rfi_audit_counts counts;
    struct rfi_error err = {0};
    if (rfi_audit_create(o, &v->audit, &err) < 0)
        return cli_fail(err.text);
    int rc = read_all(v, paths);
    if (rc == CLI_OK && rfi_audit_finish(v->audit, &counts, &err) < 0)
        rc = cli_fail(err.text);
    if (rc == CLI_OK)
        rc = report(v, &counts, o->samples_known);
    rfi_audit_destroy(v->audit);
    return rc;
}

static int run(struct verify *v, const struct cli_list *paths)
{
    struct cli_order_args *a = &v->order;
    struct rfi_order *order = NULL;
    rf_dataset *d = NULL;
    int rc = CLI_OK;
    struct rfi_audit_options o = {.found = on_found, .ctx = v};
    o.samples_known = v->dataset_paths.n || a->samples_given;
    if (v->dataset_paths.n && a->samples_given)
        return cli_usage("verify: both --dataset and --samples. Give one of them");
    if (v->order_given && !o.samples_known)
        return cli_usage(
            "verify: order options, but neither --dataset nor --samples. Add one: the order depends on it");
    if (v->dataset_paths.n)
        d = cli_open_dataset(&v->dataset, &v->dataset_paths, &rc);
    if (d) {
        rf_dataset_info info;
        rf_dataset_get_info(d, &info);
        o.samples = info.samples;
    } else {
        o.samples = a->samples;
    }
    if (rc == CLI_OK && v->order_given)
        rc = order_open(a, d, &order);
    o.order = order;
    o.first_rank = (uint32_t)a->first_rank;
    o.ranks = (uint32_t)a->ranks;
    o.repeats_allowed = v->order_given && a->allow_overlap;
    set_epochs(a, &o);
    if (rc == CLI_OK)
        rc = audit(v, &o, paths);
    rfi_order_destroy(order);
    rf_dataset_close(d);
    return rc;
}

/* Has cli_parse note which order options were given, for those that do not note it themselves. The
 * epochs to look at and N alone do not ask for a comparison of the order. */
static void note_given(struct cli_order_args *a, bool *given)
{
    for (struct cli_option *at = a->options; at->name; at++)
        if (!at->given)
            at->given = given;
}

int verb_verify(int argc, char **argv)
{
    struct verify *v = calloc(1, sizeof *v);
    struct cli_list paths = {0};
    bool given = false;
    if (!v)
        return cli_fail("verify: no memory");
    const struct cli_option own[] = {
        {.name = "dataset",
         .kind = CLI_LIST,
         .target = &v->dataset_paths,
         .metavar = "DATASET",
         .help = "the dataset that was delivered (may repeat); without it, and without --samples, missing "
                 "samples cannot be known"},
        {.name = "json", .kind = CLI_FLAG, .target = &v->json, .help = "one JSON object"},
        {0},
    };
    const struct cli_option *order_options = cli_order_options(&v->order);
    note_given(&v->order, &given);
    const struct cli_option *groups[] = {own, order_options, cli_dataset_options(&v->dataset), NULL};
    int rc = cli_parse(cli_verb_find("verify"), groups, argc, argv, &paths);
    if (rc != 0) {
        rc = rc < 0 ? CLI_USAGE : CLI_OK;
    } else {
        v->order_given = given || v->order.world_given || v->order.ranks_given || v->order.first_given;
        rc = cli_order_resolve(&v->order);
        if (rc == CLI_OK)
            rc = run(v, &paths);
    }
    for (int k = 0; k < RFI_N_FOUND; k++)
        for (uint64_t i = 0; i < v->n_named[k]; i++)
            free(v->named[k][i]);
    free(v);
    return rc;
}
