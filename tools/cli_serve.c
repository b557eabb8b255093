/* The options of how a run is served that every verb which starts one shares. */
#include "cli_internal.h"

#include "run/run.h"
#include "topology/topology.h"

static const char *const engines[] = {"auto", "uring", "pread", "null", "mapped", NULL};
static const char *const switches[] = {"auto", "on", "off", NULL};
static const char *const on_errors[] = {"raise", "skip", "replace", NULL};
static const char *const auto_off[] = {"auto", "off", NULL};

static struct cli_option *add_reading(struct cli_option *at, struct cli_serve_args *a)
{
    const struct cli_option table[] = {
        {"workers", CLI_U64, &a->workers, .metavar = "N",
         .help = "worker processes, at most 64 (default: by cores and ranks; as many of them read as are of use)",
         .max = RFI_MAX_WORKERS},
        {"prefetch", CLI_U64, &a->prefetch, .metavar = "BATCHES",
         .help = "batches a ring, at least 2 (default 4, at most 64 MiB a rank; grows where it helps)", .max = 4096},
        {"prefetch-samples", CLI_U64, &a->prefetch_samples, .metavar = "N",
         .help = "the same in samples, rounded up to batches"},
        {"ring-bytes", CLI_BYTES, &a->ring_bytes, .metavar = "BYTES",
         .help = "arena of each rank (default: from --prefetch)"},
        {"cache-bytes", CLI_BYTES, &a->cache_bytes, .metavar = "BYTES",
         .help = "of the dataset kept in shared memory over the epochs, for all ranks (default 0)"},
        {"queue-depth", CLI_U64, &a->queue_depth, .metavar = "N",
         .help = "reads in flight a worker (default: found out while reading, at most 64)", .max = 4096},
        {"cpu-budget", CLI_U64, &a->cpu_budget, .metavar = "PERCENT",
         .help = "CPU time for the server, in percent of the cores it may use (default 100: no limit)", .min = 1,
         .max = 100},
        {"engine", CLI_CHOICE, &a->engine, .choices = engines,
         .help = "how to read (default auto: mapped while the data is in memory, else uring, else pread)"},
        {"direct", CLI_CHOICE, &a->direct, .choices = switches,
         .help = "O_DIRECT (default auto: for data that memory does not hold)"},
        {"pin", CLI_CHOICE, &a->pin, .choices = auto_off, .help = "pin workers to cores (default auto)"},
        {"numa", CLI_CHOICE, &a->numa, .choices = auto_off, .help = "bind arenas to NUMA nodes (default auto)"},
    };
    return CLI_ADD(at, table);
}

static struct cli_option *add_faults(struct cli_option *at, struct cli_serve_args *a)
{
    const struct cli_option table[] = {
        {"heartbeat-ms", CLI_U64, &a->heartbeat_ms, .metavar = "MS",
         .help = "a worker that hangs for this long is killed and started again (default 1000)", .min = 10,
         .max = 3600000},
        {"max-restarts", CLI_U64, &a->max_restarts, .metavar = "N",
         .help = "deaths in a row without a batch before a worker is given up (default 100)", .max = 1000000},
        {"spares", CLI_U64, &a->spares, .metavar = "N",
         .help = "io_urings, and arenas for all ranks each, kept for a device that hangs (default 1)", .max = 63},
        {"replication", CLI_U64, &a->replication, .metavar = "K",
         .help = "workers that read for a rank: a primary, and standbys on other cores and nodes (default 1: any may)",
         .min = 1, .max = RFI_KEEPERS_MOST},
        {"slow-ratio", CLI_DOUBLE, &a->slow_ratio, .metavar = "R",
         .help = "slow is who has less than this part of its peers' median throughput (default 0.5)", .dmin = 0,
         .dmax = 1},
        {"mirror", CLI_LIST, &a->mirrors, .metavar = "DIR",
         .help = "a copy of the dataset's files, for reads that fail (may repeat)"},
        {"hedge-ms", CLI_U64, &a->hedge_ms, .metavar = "MS",
         .help = "ask again for a read that is later than this, of a mirror where there is one (default 0: never)",
         .max = 3600000},
        {"on-error", CLI_CHOICE, &a->on_error, .choices = on_errors,
         .help =
             "a sample that no copy gives: fail its batch, leave it out, or put the next one that fits in its place "
             "(default raise)"},
    };
    return CLI_ADD(at, table);
}

const struct cli_option *cli_serve_options(struct cli_serve_args *a)
{
    *a = (struct cli_serve_args){
        .heartbeat_ms = 1000, .max_restarts = 100, .spares = CLI_SPARES_CHOSEN, .slow_ratio = 0.5, .replication = 1};
    *add_faults(add_reading(a->options, a), a) = (struct cli_option){0};
    return a->options;
}

int cli_serve_resolve(struct cli_serve_args *a, uint64_t batch)
{
    if (a->prefetch && a->prefetch_samples)
        return cli_usage("%s: both --prefetch and --prefetch-samples. Give one of them", cli_frame.verb->name);
    if (a->prefetch_samples) /* rounded up to whole batches */
        a->prefetch = a->prefetch_samples / batch + (a->prefetch_samples % batch != 0);
    return CLI_OK;
}
