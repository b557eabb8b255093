/* order: what each rank will get, without serving. Streams: memory does not depend on the number of
 * samples but for what the strategy's table needs. */
#include "order_open.h"

#include "order/id_line.h"

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

struct walk {
    const struct cli_order_args *args;
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
    char flag = flags & RF_FLAG_PADDING ? 'p' : '-';
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

static void print_rank(struct walk *w, uint64_t epoch, uint32_t rank)
{
    uint64_t size = rfi_order_batch_samples(w->order), batch = 0, slot = 0, from = 0, n;
    char head[LINE_ROOM];
    size_t head_bytes = put_head(head, &w->out, epoch, rank, 0);
    rfi_view_seek(w->view, epoch, rank);
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

static void print_epochs(struct walk *w)
{
    const struct cli_order_args *a = w->args;
    uint64_t first = a->epoch_given ? a->epoch : a->start_epoch, n = a->epoch_given ? 1 : a->epochs;
    if (rfi_order_samples(w->order) == 0)
        return; /* also for ever is nothing */
    for (uint64_t e = 0; (n == 0 || e < n) && !w->out.failed; e++)
        for (uint64_t r = 0; r < a->ranks; r++)
            print_rank(w, first + e, (uint32_t)(a->first_rank + r));
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

static int print_order(const struct cli_order_args *a, const struct rfi_order *order, bool json)
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

static int run(struct cli_dataset_args *dataset, const struct cli_order_args *a, const struct cli_list *paths,
               bool json)
{
    struct rfi_order *order = NULL;
    rf_dataset *d = NULL;
    int rc = CLI_OK;
    if (a->samples_given && paths->n)
        return cli_usage("order: both --samples and a dataset (%s). Give one of them", paths->items[0]);
    if (!a->samples_given)
        d = cli_open_dataset(dataset, paths, &rc);
    if (rc == CLI_OK)
        rc = order_open(a, d, &order);
    if (rc == CLI_OK)
        rc = print_order(a, order, json);
    rfi_order_destroy(order);
    rf_dataset_close(d);
    return rc;
}

int verb_order(int argc, char **argv)
{
    struct cli_dataset_args dataset = {0};
    struct cli_order_args order = {0};
    struct cli_list paths = {0};
    bool json = false;
    const struct cli_option own[] = {
        {.name = "json", .kind = CLI_FLAG, .target = &json, .help = "one JSON object a line"},
        {0},
    };
    const struct cli_option *groups[] = {own, cli_order_options(&order), cli_dataset_options(&dataset), NULL};
    int rc = cli_parse(cli_verb_find("order"), groups, argc, argv, &paths);
    if (rc != 0)
        return rc < 0 ? CLI_USAGE : CLI_OK;
    rc = cli_order_resolve(&order);
    if (rc == CLI_OK)
        rc = run(&dataset, &order, &paths, json);
    return rc;
}
