/* `ringfeed bench`: its options, and which kind of bench they ask for. */
#include "bench/bench.h"

#include "segment/names.h"

#include <signal.h>

static const char *const caches[] = {"warm", "cold", "as-is", "both", NULL};
static const char *const on_off[] = {"on", "off", NULL};

static void on_signal(int sig)
{
    (void)sig;
    bench_interrupted = 1;
}

/* A run is stopped and cleared away; nothing is printed of it. */
static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int check(const struct bench_args *a)
{
    if (a->name && rfi_name_check(a->name, NULL) < 0)
        return cli_usage("bench: wrong --name '%.80s': 1 to 64 of A-Z a-z 0-9 _ -", a->name);
    if (a->order.epochs_given && a->order.epochs == 0 && a->runtime_s <= 0)
        return cli_usage("bench: --epochs 0 has no end. Give --runtime SECONDS");
    return CLI_OK;
}

int verb_bench(int argc, char **argv)
{
    struct bench_args a = {.runs = 1, .cache = BENCH_CACHE_BOTH};
    const struct cli_option own[] = {
        {"runtime", CLI_DOUBLE, &a.runtime_s, .metavar = "SECONDS",
         .help = "measure for so long, whatever the epoch (default: whole epochs, see --epochs)", .dmin = 0.001,
         .dmax = 1e6},
        {"ramp-time", CLI_DOUBLE, &a.ramp_s, .metavar = "SECONDS",
         .help = "run so long before anything counts (default 0; the first ring of each rank never counts)", .dmin = 0,
         .dmax = 1e6},
        {"runs", CLI_U64, &a.runs, .metavar = "N", .help = "measure N times: median and range (default 1)", .min = 1,
         .max = 1000},
        {"cache", CLI_CHOICE, &a.cache, .choices = caches, .given = &a.cache_given,
         .help = "page cache before each run: read the dataset first, drop it, leave it, or measure warm and then cold "
                 "(default both)"},
        {"sweep", CLI_LIST, &a.sweep, .metavar = "KEY=V,V,...",
         .help = "measure at each value of queue-depth, block (bytes of a record), batch or workers; repeat: all "
                 "combinations"},
        {"touch", CLI_FLAG, &a.touch, .help = "trainers read every byte of each batch (default: they touch none)"},
        {"bare", CLI_CHOICE, &a.bare, .choices = on_off,
         .help = "run a bare io_uring loop over the same reads beside each run (default on)"},
        {"limit", CLI_CHOICE, &a.limit, .choices = on_off,
         .help = "measure what device, CPUs and memory allow (default on)"},
        {"name", CLI_STRING, &a.name, .metavar = "NAME", .help = "name of the runs (default bench-PID)"},
        {"json", CLI_FLAG, &a.json, .help = "everything as one JSON object"},
        {0},
    };
    const struct cli_option *const groups[] = {own, cli_serve_options(&a.serve), cli_dataset_options(&a.dataset),
                                               cli_serve_order_options(&a.order), NULL};
    int rc = cli_parse(cli_verb_find("bench"), groups, argc, argv, &a.paths), code;
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if ((code = check(&a)) != CLI_OK || (code = cli_order_resolve(&a.order)) != CLI_OK ||
        (code = cli_serve_resolve(&a.serve, a.order.o.batch)) != CLI_OK)
        return code;
    catch_signals();
    return bench_throughput(&a);
}
