/* `ringfeed serve`: options to rfi_serve, and the ready line. */
#include "cli.h"

#include "checkpoint/find.h"
#include "coordinator/serve.h"
#include "topology/topology.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const dead_rank[] = {"wait", "redistribute", NULL};

struct serve_args {
    const char *name;
    struct cli_serve_args how;
    uint64_t timeout_ms, parent_pid;
    int on_dead_rank;
    const char *checkpoint;
    uint64_t checkpoint_every;
    struct cli_list resume;
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
        total += run->ranks[i].total_samples;
    return total;
}

/* Said once: an end of data at once looks like a fault to whoever did not expect it. */
static void say_when_empty(const struct rfi_run_view *run)
{
    bool any = false;
    for (uint32_t i = 0; i < run->config.ranks; i++) {
        if (run->config.epochs ? run->ranks[i].total_samples != 0 : run->ranks[i].lens.len != 0)
            return;
        any |= run->ranks[i].lens.len != 0;
    }
    if (run->config.samples == 0)
        cli_message("the dataset is empty: every trainer gets the end of data at once");
    else if (any)
        cli_message("nothing is left to deliver: the checkpoint stands behind the last epoch. Every trainer gets the "
                    "end of data at once; give more --epochs to go on");
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
    char engine[RFI_ENGINE_NAME];
    rfi_run_engine_name(&run->config, atomic_load_explicit(&run->coordinator->reading, memory_order_relaxed), engine);
    if (s->json)
        printf("{\"event\":\"ready\",\"name\":\"%s\",\"engine\":\"%s\",\"workers\":%u}\n", run->segment.name, engine,
               run->config.workers);
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

/* Where --resume goes on: 1 and *ret, 0 for the beginning, or -1 after a message. */
static int find_resume(const struct serve_args *a, struct rfi_state *ret)
{
    struct rfi_error note, err = {0};
    int rc = rfi_resume_find(a->resume.items, a->resume.n, a->name, a->checkpoint, ret, &note, &err);
    if (note.code)
        cli_message("%s", note.text);
    if (rc < 0)
        cli_fail(err.text);
    return rc < 0 ? -1 : rc;
}

static int serve(const struct serve_args *a, const struct cli_order_args *order, rf_dataset *dataset)
{
    struct rfi_state resume = {0};
    struct serving serving = {.json = a->json};
    struct rfi_error err = {0};
    const struct cli_serve_args *how = &a->how;
    struct rfi_serve_options o = {
        .name = a->name,
        .dataset = rfi_dataset_of(dataset),
        .order = &order->o,
        .ranks = (uint32_t)order->ranks,
        .first_rank = (uint32_t)order->first_rank,
        .workers = (uint32_t)how->workers,
        .epochs = order->epochs_given ? order->epochs : 1,
        .start_epoch = order->start_epoch,
        .prefetch = how->prefetch,
        .ring_bytes = how->ring_bytes,
        .cache_bytes = how->cache_bytes,
        .queue_depth = (uint32_t)how->queue_depth,
        .cpu_budget = (uint32_t)how->cpu_budget,
        .engine = (rf_engine)how->engine,
        .direct = (rf_switch)how->direct,
        .pin = how->pin ? RF_OFF : RF_AUTO,
        .numa = how->numa ? RF_OFF : RF_AUTO,
        .heartbeat_ms = (uint32_t)how->heartbeat_ms,
        .timeout_ms = (uint32_t)a->timeout_ms,
        .max_restarts = (uint32_t)how->max_restarts,
        .slow_ratio = how->slow_ratio,
        .replication = (uint32_t)how->replication,
        .spares = how->spares == CLI_SPARES_CHOSEN ? RFI_SPARES_CHOSEN : (uint32_t)how->spares,
        .mirrors = (const char *const *)how->mirrors.items,
        .n_mirrors = (uint32_t)how->mirrors.n,
        .hedge_ms = (uint32_t)how->hedge_ms,
        .on_error = (rf_on_error)how->on_error,
        .parent_pid = (int64_t)a->parent_pid,
        .checkpoint = a->checkpoint,
        .checkpoint_every = a->checkpoint_every,
        .rebalance = !order->rebalance_off,
        .rebalance_threshold = order->rebalance_threshold,
        .redistribute = a->on_dead_rank == 1,
        .ready = on_ready,
        .tick = on_tick,
        .ctx = &serving,
    };
    rf_set_log(say, NULL);
    signal(SIGPIPE, SIG_IGN);
    int found = find_resume(a, &resume);
    if (found < 0)
        return CLI_FAILED;
    o.resume = found ? &resume : NULL;
    if (found)
        o.start_epoch = resume.start_epoch;
    int rc = rfi_serve(&o, &err);
    rfi_state_fini(&resume);
    cli_progress_end(&serving.progress);
    if (rc < 0)
        return rc == -EINVAL ? cli_usage("%s", err.text) : cli_fail(err.text);
    return CLI_OK;
}

int verb_serve(int argc, char **argv)
{
    struct serve_args a = {.timeout_ms = 30000};
    struct cli_dataset_args dataset_args;
    struct cli_order_args order_args;
    struct cli_list paths;
    int code;
    const struct cli_option own[] = {
        {"name", CLI_STRING, &a.name, .metavar = "NAME",
         .help = "name of the run, 1 to 64 of A-Z a-z 0-9 _ - (required)"},
        {"timeout-ms", CLI_U64, &a.timeout_ms, .metavar = "MS",
         .help = "how long a trainer waits for a batch (default 30000)", .min = 1, .max = 86400000},
        {"checkpoint", CLI_STRING, &a.checkpoint, .metavar = "FILE",
         .help =
             "write the run's position there, at the end and as --checkpoint-every says; FILE.prev is the one before"},
        {"checkpoint-every", CLI_U64, &a.checkpoint_every, .metavar = "SAMPLES",
         .help = "a checkpoint whenever so many samples were released on this server (default 0: only at the end)"},
        {"resume", CLI_LIST, &a.resume, .metavar = "FILE|auto",
         .help =
             "go on where FILE says (repeat for several servers' files), or where the dead run or --checkpoint stands"},
        {"on-dead-rank", CLI_CHOICE, &a.on_dead_rank, .choices = dead_rank,
         .help =
             "a trainer died: wait for another one, or redistribute its samples to the living ranks (default wait)"},
        {"parent-pid", CLI_U64, &a.parent_pid, .metavar = "PID", .help = "end when this parent process ends",
         .max = 1u << 30},
        {"json", CLI_FLAG, &a.json, .help = "the ready line as JSON"},
        {0},
    };
    const struct cli_option *const groups[] = {own, cli_serve_options(&a.how), cli_dataset_options(&dataset_args),
                                               cli_serve_order_options(&order_args), NULL};
    int rc = cli_parse(cli_verb_find("serve"), groups, argc, argv, &paths);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (!a.name)
        return cli_usage("serve: no --name: trainers find the run by it. Add --name NAME");
    if (rfi_name_check(a.name, NULL) < 0)
        return cli_usage("serve: wrong --name '%.80s': 1 to 64 of A-Z a-z 0-9 _ -", a.name);
    if (a.checkpoint_every && !a.checkpoint)
        return cli_usage("serve: --checkpoint-every without --checkpoint FILE. Name the file too");
    catch_early_stop();
    if ((code = cli_order_resolve(&order_args)) != CLI_OK ||
        (code = cli_serve_resolve(&a.how, order_args.o.batch)) != CLI_OK)
        return code;
    rf_dataset *dataset = cli_open_dataset(&dataset_args, &paths, &code);
    if (!dataset)
        return code;
    code = serve(&a, &order_args, dataset);
    rf_dataset_close(dataset);
    return code;
}
