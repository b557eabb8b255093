/* `ringfeed attach`: a trainer in the shell. */
#include "cli.h"

#include "attach/view.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "check.h"
#include "order/id_line.h"
#include "ring/ring.h"
#include "run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct attach_args {
    uint64_t rank, limit, step_ms, timeout_ms;
    bool rank_given, timeout_given, check, json;
    const char *ids;
};

struct tally {
    uint64_t epochs, batches, samples, bytes;
    uint64_t last_epoch;
    uint64_t first_ns, last_ns, wait_max_ns;
    uint64_t hits, misses; /* samples: what the segment said at the start */
    uint64_t histogram[RFI_WAIT_BUCKETS];
};

struct attached {
    rf_trainer *trainer;
    const struct rfi_run_view *run; /* the trainer's own: the run may end, and its name go, at any time */
    struct check check;
    int ids_fd;
    char *lines;
    size_t lines_bytes;
    struct tally tally;
    struct cli_progress progress;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* Signals cut waits short, so that a summary is printed in any case. */
static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* The batch's lines, with one append: a killed trainer leaves a whole batch or none of it. */
static int write_ids(struct attached *a, const rf_batch *b, uint64_t rank)
{
    const size_t line_most = 5 * 21 + 2;
    size_t need = b->n_samples * line_most, n = 0;
    if (need > a->lines_bytes) {
        char *p = realloc(a->lines, need);
        if (!p)
            return cli_fail("attach: out of memory for the lines of --ids");
        a->lines = p;
        a->lines_bytes = need;
    }
    for (uint32_t i = 0; i < b->n_samples; i++) {
        const uint64_t numbers[] = {b->epoch, rank, b->batch, i, b->ids[i]};
        for (int k = 0; k < 5; k++) {
            n = (size_t)(rfi_put_u64(a->lines + n, numbers[k]) - a->lines);
            a->lines[n++] = ' ';
        }
        a->lines[n++] = b->flags[i] & RF_FLAG_SUBSTITUTED ? 's' : b->flags[i] & RF_FLAG_PADDING ? 'p' : '-';
        a->lines[n++] = '\n';
    }
    for (size_t at = 0; at < n;) {
        ssize_t w = write(a->ids_fd, a->lines + at, n - at);
        if (w < 0 && errno != EINTR) {
            cli_message("attach: cannot append to the --ids file: %s", strerror(errno));
            return CLI_FAILED;
        }
        at += w > 0 ? (size_t)w : 0;
    }
    return CLI_OK;
}

static void compute(uint64_t ms)
{
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (ms && nanosleep(&left, &left) < 0 && errno == EINTR && !interrupted)
        ;
}

static void count_wait(struct tally *t, uint64_t ns)
{
    t->histogram[rfi_wait_bucket(ns)]++;
    t->wait_max_ns = ns > t->wait_max_ns ? ns : t->wait_max_ns;
}

/* To --limit where there is one, else to the run's end; a run for ever has none. A trainer that came
 * back goes on where the last one stopped, so the batch tells the place, not the count. */
static void begin_progress(struct attached *a, const struct attach_args *args)
{
    rf_trainer_info info;
    rf_trainer_get_info(a->trainer, &info);
    cli_progress_begin(&a->progress, "taken", args->limit ? args->limit : info.epochs * info.len);
}

static void show_progress(struct attached *a, const struct attach_args *args, const rf_batch *b)
{
    const struct rfi_config_shared *c = &a->run->config;
    uint64_t place = (b->epoch - c->start_epoch) * rf_len(a->trainer) + b->batch + 1;
    cli_progress_at(&a->progress, args->limit || c->epochs == 0 ? a->tally.batches : place, "batches");
}

static int take_one(struct attached *a, const struct attach_args *args, int *ret_rc)
{
    rf_batch b;
    struct tally *t = &a->tally;
    uint64_t from = rfi_now_ns();
    if (!t->first_ns)
        t->first_ns = from;
    int rc = rf_next(a->trainer, args->timeout_given ? (int)args->timeout_ms : -1, &b);
    *ret_rc = rc;
    if (rc != RF_OK)
        return rc < 0 && rc != -EINTR ? cli_fail(rf_trainer_error(a->trainer)) : CLI_OK;
    count_wait(t, rfi_now_ns() - from);
    if (args->check)
        check_batch(&a->check, &b);
    compute(args->step_ms);
    if (a->ids_fd >= 0 && write_ids(a, &b, args->rank) != CLI_OK)
        return CLI_FAILED;
    if (t->batches == 0 || b.epoch != t->last_epoch)
        t->epochs++;
    t->last_epoch = b.epoch;
    t->batches++;
    t->samples += b.n_samples;
    t->bytes += cli_batch_bytes(&b);
    rf_release(a->trainer, &b);
    t->last_ns = rfi_now_ns();
    show_progress(a, args, &b);
    return CLI_OK;
}

static double wait_us(const struct tally *t, double share)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < RFI_WAIT_BUCKETS && t->batches; i++) {
        seen += t->histogram[i];
        if ((double)seen >= share * (double)t->batches) /* the bucket's upper bound may lie above the longest */
            return (double)rfi_min(rfi_wait_bucket_ns(i), t->wait_max_ns) * 1e-3;
    }
    return 0;
}

/* Hits and misses are counted in the segment, by rank; ours are what came since we attached. */
static void read_hits(const struct attached *a, uint64_t rank, uint64_t *ret_hits, uint64_t *ret_misses)
{
    const struct rfi_trainer_shared *tr = a->run->rings[rank - a->run->config.first_rank].tr;
    *ret_hits = atomic_load_explicit(&tr->hits, memory_order_relaxed);
    *ret_misses = atomic_load_explicit(&tr->misses, memory_order_relaxed);
}

static int summary(const struct attached *a, const struct attach_args *args)
{
    const struct tally *t = &a->tally;
    struct cli_emit e;
    uint64_t hits, misses;
    read_hits(a, args->rank, &hits, &misses);
    hits -= t->hits;
    misses -= t->misses;
    double seconds = t->last_ns > t->first_ns ? (double)(t->last_ns - t->first_ns) * 1e-9 : 0;
    cli_emit_begin(&e, args->json);
    cli_emit_str(&e, "name", a->run->segment.name);
    cli_emit_u64(&e, "rank", args->rank);
    cli_emit_u64(&e, "epochs", t->epochs);
    cli_emit_u64(&e, "batches", t->batches);
    cli_emit_u64(&e, "samples", t->samples);
    cli_emit_bytes(&e, "bytes", t->bytes);
    cli_emit_f64(&e, "seconds", seconds, 6);
    cli_emit_f64(&e, "samples_per_s", seconds > 0 ? (double)t->samples / seconds : 0, 1);
    cli_emit_bytes(&e, "bytes_per_s", seconds > 0 ? cli_whole((double)t->bytes / seconds) : 0);
    cli_emit_f64(&e, "wait_us_p50", wait_us(t, 0.5), 1);
    cli_emit_f64(&e, "wait_us_p99", wait_us(t, 0.99), 1);
    cli_emit_f64(&e, "wait_us_max", (double)t->wait_max_ns * 1e-3, 1);
    cli_emit_f64(&e, "prefetch_hit_rate", hits + misses ? (double)hits / (double)(hits + misses) : 0, 4);
    cli_emit_u64(&e, "check_errors", a->check.errors);
    return cli_emit_end(&e);
}

static int open_all(struct attached *a, const char *name, const struct attach_args *args)
{
    rf_attach_options o;
    rf_attach_options_init(&o);
    if (args->timeout_given)
        o.timeout_ms = (int)args->timeout_ms;
    int rc = rf_attach(name, (uint32_t)args->rank, &o, &a->trainer);
    if (rc < 0)
        return rc == -EINVAL ? cli_usage("%s", rf_last_error()) : cli_fail(rf_last_error());
    a->run = rfi_trainer_run(a->trainer);
    read_hits(a, args->rank, &a->tally.hits, &a->tally.misses);
    check_init(&a->check, rfi_trainer_dataset(a->trainer));
    if (args->ids && (a->ids_fd = open(args->ids, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0) {
        cli_message("attach: cannot open %s: %s. Choose another --ids file", args->ids, strerror(errno));
        return CLI_FAILED;
    }
    return CLI_OK;
}

static void close_all(struct attached *a)
{
    check_fini(&a->check);
    rf_detach(a->trainer);
    if (a->ids_fd >= 0)
        close(a->ids_fd);
    free(a->lines);
}

static int attach(const char *name, const struct attach_args *args)
{
    struct attached a = {.ids_fd = -1};
    int rc = RF_OK, code = open_all(&a, name, args);
    if (code == CLI_OK) {
        catch_signals();
        begin_progress(&a, args);
        rfi_trainer_interrupt_by(a.trainer, &interrupted);
        while (code == CLI_OK && rc == RF_OK && !interrupted && (!args->limit || a.tally.batches < args->limit))
            code = take_one(&a, args, &rc);
        cli_progress_end(&a.progress);
        if (summary(&a, args) != CLI_OK && code == CLI_OK)
            code = CLI_FAILED;
        if (a.check.errors || interrupted)
            code = CLI_FAILED;
    }
    close_all(&a);
    return code;
}

int verb_attach(int argc, char **argv)
{
    struct attach_args a = {0};
    struct cli_list names;
    const struct cli_option own[] = {
        {"rank", CLI_U64, &a.rank, .metavar = "R", .help = "global rank to attach to (required)", .max = 1000000,
         .given = &a.rank_given},
        {"ids", CLI_STRING, &a.ids, .metavar = "FILE", .help = "append one line a sample when its batch is released"},
        {"check", CLI_FLAG, &a.check, .help = "compare every byte with the dataset's files, by plain pread"},
        {"limit", CLI_U64, &a.limit, .metavar = "BATCHES", .help = "stop after so many batches (default: at the end)"},
        {"step-ms", CLI_U64, &a.step_ms, .metavar = "MS", .help = "pretend to compute so long for each batch",
         .max = 86400000},
        {"timeout-ms", CLI_U64, &a.timeout_ms, .metavar = "MS",
         .help = "wait so long for the run to be ready, and for each batch (default 30000)", .max = 86400000,
         .given = &a.timeout_given},
        {"json", CLI_FLAG, &a.json, .help = "the summary as one JSON object"},
        {0},
    };
    const struct cli_option *const groups[] = {own, NULL};
    int rc = cli_parse(cli_verb_find("attach"), groups, argc, argv, &names);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (names.n != 1)
        return cli_usage("attach: one NAME is needed, %zu were given. See `ringfeed ls`", names.n);
    if (!a.rank_given)
        return cli_usage("attach: no --rank: say which rank's batches to take");
    return attach(names.items[0], &a);
}
