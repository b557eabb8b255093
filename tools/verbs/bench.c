/* `ringfeed bench`: its options, and which kind of bench they ask for. */
#include "bench/bench.h"
#include "bench/shapes.h"

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

/* What belongs together. A workload says itself what its batches are and who gets them. */
static int check_kind(const struct bench_args *a)
{
    const struct cli_order_args *o = &a->order;
    if (a->compare && (a->workload_given || a->sweep.n || (a->cache_given && a->cache == BENCH_CACHE_BOTH)))
        return cli_usage("bench: --compare goes with no --workload, no --sweep, and one state of the --cache");
    if (a->step_given && !a->workload_given && !a->compare)
        return cli_usage("bench: --step-ms is of a --workload or of --compare. Add one of them, or leave it out");
    if (!a->workload_given && (a->accelerator_given || a->accelerators_given || a->find_max || a->drop_bytes ||
                               a->bytes || a->scale < 1 || a->host_memory))
        return cli_usage("bench: --accelerator, --accelerators, --find-max, --drop-bytes, --bytes, --scale and "
                         "--host-memory are of a --workload. Add it, or leave them out");
    if (a->workload_given && (o->o.batch != 1 || o->world_given || o->ranks_given || o->first_given || o->shuffle ||
                              o->strategy || o->tail || a->dataset.o.format || a->sweep.n))
        return cli_usage(
            "bench: batch, ranks, shuffle, strategy, tail, format and sweeps are not free with --workload: it "
            "says them itself. Leave them out");
    return CLI_OK;
}

int verb_bench(int argc, char **argv)
{
    struct bench_args a = {.runs = 1, .cache = BENCH_CACHE_BOTH, .accelerators = 1, .scale = 1};
    const struct cli_option own[] = {
        {"runtime", CLI_DOUBLE, &a.runtime_s, .metavar = "SECONDS",
         .help = "measure for so long, whatever the epoch (default: whole epochs, see --epochs)", .dmin = 0.001,
         .dmax = 1e6},
        {"ramp-time", CLI_DOUBLE, &a.ramp_s, .metavar = "SECONDS",
         .help = "run so long before anything counts (default 0; the first ring of each rank never counts)", .dmin = 0,
         .dmax = 1e6},
        {"runs", CLI_U64, &a.runs, .metavar = "N", .given = &a.runs_given,
         .help = "measure N times: median and range (default 1)", .min = 1, .max = 1000},
        {"cache", CLI_CHOICE, &a.cache, .choices = caches, .given = &a.cache_given,
         .help = "page cache before each run: read the dataset first, drop it, leave it, or measure warm and then cold "
                 "(default both)"},
        {"sweep", CLI_LIST, &a.sweep, .metavar = "KEY=V,V,...",
         .help = "measure at each value of queue-depth, block (bytes of a record), batch or workers; repeat: all "
                 "combinations"},
        {"compare", CLI_STRING, &a.compare, .metavar = "NAME,...",
         .help =
             "other loaders over the same files, in turns: torch, webdataset, gather (NumPy), c-mmap, c-pread; --runs "
             "is 5 then"},
        {"touch", CLI_FLAG, &a.touch, .help = "trainers read every byte of each batch (default: they touch none)"},
        {"bare", CLI_CHOICE, &a.bare, .choices = on_off,
         .help = "run a bare io_uring loop over the same reads beside each run (default on)"},
        {"limit", CLI_CHOICE, &a.limit, .choices = on_off,
         .help = "measure what device, CPUs and memory allow (default on)"},
        {"name", CLI_STRING, &a.name, .metavar = "NAME", .help = "name of the runs (default bench-PID)"},
        {"json", CLI_FLAG, &a.json, .help = "everything as one JSON object"},
        {0},
    };
    const struct cli_option workload[] = {
        {"workload", CLI_CHOICE, &a.workload, .choices = bench_shape_names, .given = &a.workload_given,
         .help = "a training shape of MLPerf Storage, on emulated accelerators; then the arguments are "
                 "[datasize|datagen|run] [FOLDER] (default: run /var/tmp/ringfeed-bench)"},
        {"accelerator", CLI_CHOICE, &a.accelerator, .choices = bench_accelerator_names, .given = &a.accelerator_given,
         .help = "whose published time a step takes"},
        {"accelerators", CLI_U64, &a.accelerators, .metavar = "N", .given = &a.accelerators_given,
         .help = "how many, a rank each (default 1); with --find-max the most to try", .min = 1, .max = 4096},
        {"step-ms", CLI_DOUBLE, &a.step_ms, .metavar = "MS", .given = &a.step_given,
         .help = "time of a step in place of a published one, without a pass mark then; with --compare all trainers "
                 "pause so long a batch",
         .dmin = 0.001, .dmax = 1e7},
        {"find-max", CLI_FLAG, &a.find_max,
         .help = "look for the largest number of accelerators that pass (90 % where there is no mark), each on a fresh "
                 "run"},
        {"drop-bytes", CLI_FLAG, &a.drop_bytes,
         .help = "give each batch back before its step, as the reference benchmark drops what it has read (default: "
                 "held for the step)"},
        {"bytes", CLI_BYTES, &a.bytes, .metavar = "BYTES",
         .help = "datagen: how much data (default: as the rules ask, at most half of the free space)", .min = 1},
        {"scale", CLI_DOUBLE, &a.scale, .metavar = "F",
         .help = "datasize and datagen: samples of F times their published bytes (default 1)", .dmin = 1e-7, .dmax = 1},
        {"host-memory", CLI_BYTES, &a.host_memory, .metavar = "BYTES",
         .help = "datasize and datagen: memory that the data shall be five times as large as (default: this machine's)",
         .min = 1},
        {0},
    };
    const struct cli_option *const groups[] = {
        own, workload, cli_serve_options(&a.serve), cli_dataset_options(&a.dataset), cli_serve_order_options(&a.order),
        NULL};
    int rc = cli_parse(cli_verb_find("bench"), groups, argc, argv, &a.paths), code;
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if ((code = check(&a)) != CLI_OK || (code = check_kind(&a)) != CLI_OK ||
        (code = cli_order_resolve(&a.order)) != CLI_OK ||
        (code = cli_serve_resolve(&a.serve, a.order.o.batch)) != CLI_OK)
        return code;
    catch_signals();
    if (a.compare && !a.runs_given)
        a.runs = 5;
    return a.workload_given ? bench_workload(&a) : a.compare ? bench_compare(&a) : bench_throughput(&a);
}
