/* order: what each rank will get, without serving. Streams: memory does not depend on the number of
 * samples but for what the strategy's table needs. */
#include "order_open.h"

#include "checkpoint/compare.h"
#include "checkpoint/find.h"
#include "order/faults.h"
#include "order/id_line.h"
#include "order/past.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 4096, BUFFER = 1 << 18, LINE_ROOM = 256 };

struct printer {
    char *buffer;
    size_t used;
    bool json;
    bool failed; /* stdout is closed or full */
};

struct order_args {
    struct cli_list resume; /* what is left after these */
    const char *log; /* the moves in this checkpoint */
    bool json;
};

struct walk {
    const struct cli_order_args *args;
    const struct rfi_stage_state *from; /* --resume: where each rank begins; else NULL */
    const struct rfi_stage_state *logs; /* --resume, --log: samples left out or replaced; else NULL */
    uint64_t start_epoch;
    const struct rfi_order *order;
    struct rfi_view *view;
    struct printer out;
    struct cli_progress progress;
    uint64_t done, ids[CHUNK];
    uint8_t flags[CHUNK];
};

static void flush(struct printer *p)
{
    if (fwrite(p->buffer, 1, p->used, stdout) != p->used)
        p->failed = true;
    p->used = 0;
}

static char *put_text(char *at, const char *text)
{
    size_t n = strlen(text);
    memcpy(at, text, n);
    return at + n;
}

static char *put_field(char *at, const struct printer *p, const char *name, uint64_t value)
{
    at = p->json ? put_text(at, name) : at;
    at = rfi_put_u64(at, value);
    *at = p->json ? ',' : ' ';
    return at + 1;
}

/* What all lines of a batch begin with; returns its length. */
static size_t put_head(char *at, const struct printer *p, uint64_t epoch, uint32_t rank, uint64_t batch)
{
    char *begin = at;
    at = put_field(at, p, "{\"epoch\":", epoch);
    at = put_field(at, p, "\"rank\":", rank);
    at = put_field(at, p, "\"batch\":", batch);
    return (size_t)(at - begin);
}

static void put_line(struct printer *p, const char *head, size_t head_bytes, uint64_t slot, uint64_t index,
                     uint8_t flags)
{
    char flag = flags & RF_FLAG_SUBSTITUTED ? 's' : flags & RF_FLAG_PADDING ? 'p' : '-';
    char *at = p->buffer + p->used;
    memcpy(at, head, head_bytes);
    at += head_bytes;
    at = put_field(at, p, "\"slot\":", slot);
    at = put_field(at, p, "\"index\":", index);
    if (p->json)
        at = put_text(at, "\"flag\":\"");
    *at++ = flag;
    if (p->json)
        at = put_text(at, "\"}");
    *at++ = '\n';
    p->used = (size_t)(at - p->buffer);
    if (p->used > BUFFER - LINE_ROOM)
        flush(p);
}

static void print_lines(struct walk *w, const char *head, size_t head_bytes, uint64_t *slot, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        put_line(&w->out, head, head_bytes, (*slot)++, w->ids[i], w->flags[i]);
    w->done += n;
    cli_progress_at(&w->progress, w->done, "lines");
}

/* The error log's entries for one batch, into a new array; NULL and 0 where there are none. */
static struct rfi_fault *faults_of(struct walk *w, uint64_t epoch, uint32_t rank, uint64_t batch, uint64_t *ret_n)
{
    struct rfi_fault *found = NULL;
    *ret_n = 0;
    for (uint64_t i = 0; w->logs && i < w->logs->n_faults; i++) {
        const struct rfi_fault *f = &w->logs->faults[i];
        if (f->epoch != epoch || f->rank != rank || f->batch != batch)
            continue;
        if (!found && !(found = calloc(w->logs->n_faults, sizeof *found))) {
            w->out.failed = true; /* never the undisturbed batch in its place */
            cli_fail("order: no memory for a batch");
            return NULL;
        }
        found[(*ret_n)++] = *f;
    }
    return found;
}

/* A batch with samples left out or replaced: all of it at once. */
static void print_faulty(struct walk *w, const char *head, size_t head_bytes, uint64_t batch,
                         const struct rfi_fault *faults, uint64_t n_faults)
{
    uint64_t size = rfi_order_batch_samples(w->order), *ids = calloc(size, sizeof *ids), n;
    uint8_t *flags = calloc(size, 1);
    if (ids && flags) {
        n = rfi_view_batch(w->view, batch, ids, flags);
        n = rfi_faults_apply(ids, flags, n, faults, n_faults, NULL);
        for (uint64_t slot = 0; slot < n; slot++)
            put_line(&w->out, head, head_bytes, slot, ids[slot], flags[slot]);
        w->done += n;
    } else {
        w->out.failed = true;
        cli_fail("order: no memory for a batch");
    }
    free(ids);
    free(flags);
}

/* Batch by batch: where batches of other ranks have come in, or samples were left out, each may be short. */
static void print_batches(struct walk *w, uint64_t epoch, uint32_t rank, uint64_t batch)
{
    uint64_t len = rfi_view_len(w->view), n, n_faults;
    char head[LINE_ROOM];
    for (; batch < len && !w->out.failed; batch++) {
        size_t head_bytes = put_head(head, &w->out, epoch, rank, batch);
        uint64_t slot = 0;
        struct rfi_fault *faults = faults_of(w, epoch, rank, batch, &n_faults);
        if (w->out.failed)
            return;
        if (faults) {
            print_faulty(w, head, head_bytes, batch, faults, n_faults);
            free(faults);
            continue;
        }
        while ((n = rfi_view_batch_part(w->view, batch, slot, CHUNK, w->ids, w->flags)) != 0)
            print_lines(w, head, head_bytes, &slot, n);
    }
}

/* Many batches at a time. */
static void print_own(struct walk *w, uint64_t epoch, uint32_t rank, uint64_t batch)
{
    uint64_t size = rfi_order_batch_samples(w->order), slot = 0, from = batch * size, n;
    char head[LINE_ROOM];
    size_t head_bytes = put_head(head, &w->out, epoch, rank, batch);
    while (!w->out.failed && (n = rfi_view_fill_tail(w->view, from, CHUNK, w->ids, w->flags)) != 0) {
        for (uint64_t i = 0; i < n; i++) {
            if (slot == size) {
                slot = 0;
                head_bytes = put_head(head, &w->out, epoch, rank, ++batch);
            }
            put_line(&w->out, head, head_bytes, slot++, w->ids[i], w->flags[i]);
        }
        from += n;
        w->done += n;
        cli_progress_at(&w->progress, w->done, "lines");
    }
}

static void print_rank(struct walk *w, uint64_t epoch, uint32_t rank)
{
    uint64_t batch = 0;
    if (w->from && epoch < w->from->at[rank].epoch)
        return;
    if (w->from && epoch == w->from->at[rank].epoch)
        batch = w->from->at[rank].batch;
    rfi_view_seek(w->view, epoch, rank);
    if (batch >= rfi_view_len(w->view))
        return;
    if (rfi_view_is_own(w->view) && !(w->logs && w->logs->n_faults))
        print_own(w, epoch, rank, batch);
    else
        print_batches(w, epoch, rank, batch);
}

/* The first epoch that has something left. */
static uint64_t first_epoch(const struct walk *w)
{
    const struct cli_order_args *a = w->args;
    uint64_t first = UINT64_MAX;
    if (!w->from)
        return a->epoch_given ? a->epoch : w->start_epoch;
    for (uint64_t r = 0; r < a->ranks; r++)
        if (w->from->at[a->first_rank + r].epoch < first)
            first = w->from->at[a->first_rank + r].epoch;
    return a->epoch_given && a->epoch > first ? a->epoch : first;
}

static void print_epochs(struct walk *w)
{
    const struct cli_order_args *a = w->args;
    uint64_t end = a->epoch_given ? a->epoch + 1 : a->epochs ? w->start_epoch + a->epochs : UINT64_MAX;
    if (rfi_order_samples(w->order) == 0)
        return; /* also for ever is nothing */
    for (uint64_t e = first_epoch(w); e < end && !w->out.failed; e++)
        for (uint64_t r = 0; r < a->ranks; r++)
            print_rank(w, e, (uint32_t)(a->first_rank + r));
    flush(&w->out);
}

/* Lines in all, for the time left; 0: for ever. */
static uint64_t count_lines(const struct cli_order_args *a, const struct rfi_order *order)
{
    uint64_t lines = 0;
    for (uint64_t r = a->first_rank; r < a->first_rank + a->ranks; r++)
        lines += a->o.tail == RF_TAIL_UNEVEN ? rfi_order_rank_samples(order, (uint32_t)r)
                                             : rfi_order_len(order, (uint32_t)r) * rfi_order_batch_samples(order);
    return lines * (a->epoch_given ? 1 : a->epochs);
}

static int print_order(const struct cli_order_args *a, const struct rfi_order *order, const struct rfi_state *resume,
                       const struct rfi_state *logs, bool json)
{
    struct rfi_error err = {0};
    struct walk *w = calloc(1, sizeof *w);
    char *buffer = malloc(BUFFER);
    int rc = CLI_FAILED;
    if (!w || !buffer) {
        rc = cli_fail("order: no memory");
    } else if (rfi_view_create(order, &w->view, &err) < 0) {
        rc = cli_fail(err.text);
    } else {
        w->args = a;
        w->order = order;
        w->logs = logs ? rfi_state_last(logs) : NULL;
        w->from = resume ? rfi_state_last(resume) : NULL;
        w->start_epoch = resume ? resume->start_epoch : a->start_epoch;
        w->out = (struct printer){.buffer = buffer, .json = json};
        cli_progress_begin(&w->progress, "order", count_lines(a, order));
        if (isatty(STDOUT_FILENO))
            w->progress.terminal = false; /* the lines themselves are the progress */
        print_epochs(w);
        cli_progress_end(&w->progress);
        rfi_view_destroy(w->view);
        rc = cli_close_stdout();
    }
    free(buffer);
    free(w);
    return rc;
}

/* An order that goes on from checkpoints, or that has the moves of one. */
static int continue_order(const struct cli_order_args *a, rf_dataset *d, const struct order_args *own,
                          struct rfi_order **ret, struct rfi_state *ret_birth)
{
    struct rfi_order_source source;
    struct rfi_state from;
    struct rfi_error note, err = {0};
    rf_dataset_info info;
    int rc = own->log ? rfi_state_read(own->log, &from, &err)
                      : rfi_resume_find(own->resume.items, own->resume.n, "", NULL, &from, &note, &err);
    if (rc < 0)
        return cli_fail(err.text);
    rfi_order_source_of(rfi_dataset_of(d), &source);
    rfi_dataset_info(rfi_dataset_of(d), &info);
    if (own->log) {
        rc = rfi_state_same_order(&rfi_state_last(&from)->o, &a->o, "the checkpoint", "this command", &err);
        if (rc == 0 && rfi_state_last(&from)->o.world_size != a->o.world_size)
            rc = rfi_fail(&err, EINVAL,
                          "--log: the checkpoint is of a world of %u ranks, not %u. Give the same "
                          "--world-size",
                          rfi_state_last(&from)->o.world_size, a->o.world_size);
        if (rc == 0)
            rc = rfi_state_copy(&from, ret_birth, &err);
        if (rc == 0) /* the moves are the copy's, which lives as long as the order */
            rc = rfi_state_order(ret_birth, info.fingerprint, &source, ret, &err);
    } else {
        rc = rfi_resume(&from, &a->o, info.fingerprint, &source, ret, ret_birth, &err);
        if (rc == 0)
            rfi_order_set_moves(*ret, rfi_state_last(ret_birth)->moves, rfi_state_last(ret_birth)->n_moves);
    }
    rfi_state_fini(&from);
    return rc < 0 ? cli_fail(err.text) : CLI_OK;
}

static int run(struct cli_dataset_args *dataset, const struct cli_order_args *a, const struct cli_list *paths,
               const struct order_args *own)
{
    struct rfi_order *order = NULL;
    struct rfi_state birth = {0};
    rf_dataset *d = NULL;
    bool continued = own->log || own->resume.n;
    int rc = CLI_OK;
    if (a->samples_given && paths->n)
        return cli_usage("order: both --samples and a dataset (%s). Give one of them", paths->items[0]);
    if (continued && a->samples_given)
        return cli_usage("order: --samples with --log or --resume: a checkpoint is of a dataset. Give the dataset");
    if (own->log && own->resume.n)
        return cli_usage("order: both --log and --resume. Give one of them");
    for (size_t i = 0; i < own->resume.n; i++)
        if (!strcmp(own->resume.items[i], "auto"))
            return cli_usage("order: --resume auto is serve's. Name the file");
    if (!a->samples_given)
        d = cli_open_dataset(dataset, paths, &rc);
    if (rc == CLI_OK)
        rc = continued ? continue_order(a, d, own, &order, &birth) : order_open(a, d, &order);
    if (rc == CLI_OK)
        rc = print_order(a, order, own->resume.n ? &birth : NULL, continued ? &birth : NULL, own->json);
    rfi_order_destroy(order);
    rfi_state_fini(&birth);
    rf_dataset_close(d);
    return rc;
}

int verb_order(int argc, char **argv)
{
    struct cli_dataset_args dataset = {0};
    struct cli_order_args order = {0};
    struct cli_list paths = {0};
    struct order_args args = {0};
    const struct cli_option own[] = {
        {.name = "resume",
         .kind = CLI_LIST,
         .target = &args.resume,
         .metavar = "FILE",
         .help = "only what serve --resume FILE will still deliver; repeat for several servers' files"},
        {.name = "log",
         .kind = CLI_STRING,
         .target = &args.log,
         .metavar = "FILE",
         .help = "whole epochs, with what this checkpoint's logs say was moved, left out or replaced"},
        {.name = "json", .kind = CLI_FLAG, .target = &args.json, .help = "one JSON object a line"},
        {0},
    };
    const struct cli_option *groups[] = {own, cli_order_options(&order), cli_dataset_options(&dataset), NULL};
    int rc = cli_parse(cli_verb_find("order"), groups, argc, argv, &paths);
    if (rc != 0)
        return rc < 0 ? CLI_USAGE : CLI_OK;
    rc = cli_order_resolve(&order);
    if (rc == CLI_OK)
        rc = run(&dataset, &order, &paths, &args);
    return rc;
}
