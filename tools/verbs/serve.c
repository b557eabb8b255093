/* `ringfeed serve`: options to rfi_serve, and the ready line. */
#include "cli.h"

#include "coordinator/serve.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const engines[] = {"auto", "uring", "pread", "null", NULL};
static const char *const switches[] = {"auto", "on", "off", NULL};
static const char *const on_errors[] = {"raise", "skip", "replace", NULL};
static const char *const auto_off[] = {"auto", "off", NULL};

struct serve_args {
    const char *name;
    uint64_t workers, prefetch, prefetch_samples, ring_bytes, queue_depth, heartbeat_ms, max_restarts, timeout_ms,
        parent_pid;
    int engine, direct, pin, numa, on_error;
    uint64_t hedge_ms;
    struct cli_list mirrors;
    bool json;
};

struct serving {
    struct cli_progress progress;
    uint64_t total, epochs;
    bool json;
};

/* Samples this server delivers in all epochs; 0: for ever. */
static uint64_t total_samples(const struct rfi_run_view *run)
{
    const struct rfi_config_shared *c = &run->config;
    uint64_t total = 0;
    for (uint32_t i = 0; i < c->ranks; i++)
        total += run->ranks[i].epoch_samples * c->epochs;
    return total;
}

/* Said once: an end of data at once looks like a fault to whoever did not expect it. */
static void say_when_empty(const struct rfi_run_view *run)
{
    for (uint32_t i = 0; i < run->config.ranks; i++)
        if (run->ranks[i].len)
            return;
    if (run->config.samples == 0)
        cli_message("the dataset is empty: every trainer gets the end of data at once");
    else
        cli_message("no rank here has a batch: the subset, the ranges or the tail rule leave nothing of %" PRIu64
                    " samples. Every trainer gets the end of data at once",
                    run->config.samples);
}

static void on_ready(void *ctx, const struct rfi_run_view *run)
{
    struct serving *s = ctx;
    say_when_empty(run);
    s->total = total_samples(run);
    cli_progress_begin(&s->progress, "delivered", s->total);
    if (s->json)
        printf("{\"event\":\"ready\",\"name\":\"%s\",\"engine\":\"%s\",\"workers\":%u}\n", run->segment.name,
               run->config.engine_name, run->config.workers);
    else
        printf("ready %s\n", run->segment.name);
    fflush(stdout);
}

static void on_tick(void *ctx, const struct rfi_run_view *run)
{
    struct serving *s = ctx;
    uint64_t done = 0;
    for (uint32_t i = 0; i < run->config.ranks; i++)
        done += atomic_load_explicit(&run->rings[i].tr->samples, memory_order_relaxed);
    cli_progress_at(&s->progress, done, "samples");
}

static void say(void *ctx, int level, const char *text)
{
    (void)ctx;
    if (level <= 6)
        cli_message("%s", text);
}

/* Until rfi_serve listens to signals itself there is nothing to clean up: a stop is just the end. */
static void stopped_early(int sig)
{
    (void)sig;
    _exit(CLI_OK);
}

static void catch_early_stop(void)
{
    struct sigaction a = {.sa_handler = stopped_early};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static int serve(const struct serve_args *a, const struct cli_order_args *order, rf_dataset *dataset)
{
    struct serving serving = {.json = a->json};
    struct rfi_error err = {0};
    uint64_t prefetch = a->prefetch;
    if (a->prefetch_samples) /* rounded up to whole batches */
        prefetch = a->prefetch_samples / order->o.batch + (a->prefetch_samples % order->o.batch != 0);
    struct rfi_serve_options o = {
        .name = a->name,
        .dataset = rfi_dataset_of(dataset),
        .order = &order->o,
        .ranks = (uint32_t)order->ranks,
        .first_rank = (uint32_t)order->first_rank,
        .workers = (uint32_t)a->workers,
        .epochs = order->epochs_given ? order->epochs : 1,
        .start_epoch = order->start_epoch,
        .prefetch = prefetch,
        .ring_bytes = a->ring_bytes,
        .queue_depth = (uint32_t)a->queue_depth,
        .engine = (rf_engine)a->engine,
        .direct = (rf_switch)a->direct,
        .pin = a->pin ? RF_OFF : RF_AUTO,
        .numa = a->numa ? RF_OFF : RF_AUTO,
        .heartbeat_ms = (uint32_t)a->heartbeat_ms,
        .timeout_ms = (uint32_t)a->timeout_ms,
        .max_restarts = (uint32_t)a->max_restarts,
        .mirrors = (const char *const *)a->mirrors.items,
        .n_mirrors = (uint32_t)a->mirrors.n,
        .hedge_ms = (uint32_t)a->hedge_ms,
        .on_error = (rf_on_error)a->on_error,
        .parent_pid = (int64_t)a->parent_pid,
        .ready = on_ready,
        .tick = on_tick,
        .ctx = &serving,
    };
    rf_set_log(say, NULL);
    signal(SIGPIPE, SIG_IGN);
    int rc = rfi_serve(&o, &err);
    cli_progress_end(&serving.progress);
    if (rc < 0)
        return rc == -EINVAL ? cli_usage("%s", err.text) : cli_fail(err.text);
    return CLI_OK;
}

int verb_serve(int argc, char **argv)
{
    struct serve_args a = {.heartbeat_ms = 1000, .max_restarts = 100, .timeout_ms = 30000};
    struct cli_dataset_args dataset_args;
    struct cli_order_args order_args;
    struct cli_list paths;
    int code;
    const struct cli_option own[] = {
        {"name", CLI_STRING, &a.name, .metavar = "NAME",
         .help = "name of the run, 1 to 64 of A-Z a-z 0-9 _ - (required)"},
        {"workers", CLI_U64, &a.workers, .metavar = "N",
         .help = "worker processes, at most 64 (default: by cores and ranks)", .max = RFI_MAX_WORKERS},
        {"prefetch", CLI_U64, &a.prefetch, .metavar = "BATCHES",
         .help = "batches a ring, at least 2 (default 4, at most 64 MiB a rank)", .max = 4096},
        {"prefetch-samples", CLI_U64, &a.prefetch_samples, .metavar = "N",
         .help = "the same in samples, rounded up to batches"},
        {"ring-bytes", CLI_BYTES, &a.ring_bytes, .metavar = "BYTES",
         .help = "arena of each rank (default: from --prefetch)"},
        {"queue-depth", CLI_U64, &a.queue_depth, .metavar = "N", .help = "reads in flight a worker (default 32)",
         .max = 4096},
        {"engine", CLI_CHOICE, &a.engine, .choices = engines, .help = "how to read (default auto: uring, else pread)"},
        {"direct", CLI_CHOICE, &a.direct, .choices = switches,
         .help = "O_DIRECT (default auto: when the data exceeds half of the free memory)"},
        {"pin", CLI_CHOICE, &a.pin, .choices = auto_off, .help = "pin workers to cores (default auto)"},
        {"numa", CLI_CHOICE, &a.numa, .choices = auto_off, .help = "bind arenas to NUMA nodes (default auto)"},
        {"heartbeat-ms", CLI_U64, &a.heartbeat_ms, .metavar = "MS",
         .help = "a silent worker is slow after this (default 1000)", .min = 10, .max = 3600000},
        {"max-restarts", CLI_U64, &a.max_restarts, .metavar = "N",
         .help = "deaths in a row without a batch before a worker is given up (default 100)", .max = 1000000},
        {"timeout-ms", CLI_U64, &a.timeout_ms, .metavar = "MS",
         .help = "how long a trainer waits for a batch (default 30000)", .min = 1, .max = 86400000},
        {"mirror", CLI_LIST, &a.mirrors, .metavar = "DIR",
         .help = "a copy of the dataset's files, for reads that fail (may repeat)"},
        {"hedge-ms", CLI_U64, &a.hedge_ms, .metavar = "MS",
         .help = "ask again for a read that is later than this, of a mirror where there is one (default 0: never)",
         .max = 3600000},
        {"on-error", CLI_CHOICE, &a.on_error, .choices = on_errors,
         .help =
             "a sample that no copy gives: fail its batch, leave it out, or put the next one that fits in its place "
             "(default raise)"},
        {"parent-pid", CLI_U64, &a.parent_pid, .metavar = "PID", .help = "end when this parent process ends",
         .max = 1u << 30},
        {"json", CLI_FLAG, &a.json, .help = "the ready line as JSON"},
        {0},
    };
    const struct cli_option *const groups[] = {own, cli_dataset_options(&dataset_args),
                                               cli_serve_order_options(&order_args), NULL};
    int rc = cli_parse(cli_verb_find("serve"), groups, argc, argv, &paths);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (!a.name)
        return cli_usage("serve: no --name: trainers find the run by it. Add --name NAME");
    if (rfi_name_check(a.name, NULL) < 0)
        return cli_usage("serve: wrong --name '%.80s': 1 to 64 of A-Z a-z 0-9 _ -", a.name);
    if (a.prefetch && a.prefetch_samples)
        return cli_usage("serve: both --prefetch and --prefetch-samples. Give one of them");
    catch_early_stop();
    if ((code = cli_order_resolve(&order_args)) != CLI_OK)
        return code;
    rf_dataset *dataset = cli_open_dataset(&dataset_args, &paths, &code);
    if (!dataset)
        return code;
    code = serve(&a, &order_args, dataset);
    rf_dataset_close(dataset);
    return code;
}
