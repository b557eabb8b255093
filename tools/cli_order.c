/* The order options that order, serve, plan and verify share, and how world size, ranks and first
 * rank follow from flags, launcher and defaults. */
#include "cli_internal.h"

#include "order/names.h"

#include <string.h>

static const char *const bases[] = {"round-robin", "contiguous", "hash", "range", "stratified", NULL};
static const char *const on_off[] = {"on", "off", NULL};

enum { MOST_RANKS = 1000000 };

static struct cli_option *add_ranks(struct cli_option *at, struct cli_order_args *a)
{
    const struct cli_option table[] = {
        {.name = "world-size",
         .kind = CLI_U64,
         .target = &a->world_size,
         .metavar = "W",
         .min = 1,
         .max = MOST_RANKS,
         .given = &a->world_given,
         .help = "ranks in all, over all servers (default: the launcher's, else F + R)"},
        {.name = "ranks",
         .kind = CLI_U64,
         .target = &a->ranks,
         .metavar = "R",
         .min = 1,
         .max = MOST_RANKS,
         .given = &a->ranks_given,
         .help = "ranks held by this server (default: the launcher's local size, else W - F)"},
        {.name = "first-rank",
         .kind = CLI_U64,
         .target = &a->first_rank,
         .metavar = "F",
         .max = MOST_RANKS,
         .given = &a->first_given,
         .help = "global number of this server's first rank (default: the launcher's, else 0)"},
        {.name = "batch",
         .kind = CLI_U64,
         .target = &a->o.batch,
         .metavar = "B",
         .min = 1,
         .help = "samples a batch (default 1)"},
    };
    return CLI_ADD(at, table);
}

static struct cli_option *add_partition(struct cli_option *at, struct cli_order_args *a)
{
    rf_order_options *o = &a->o;
    const struct cli_option table[] = {
        {.name = "strategy",
         .kind = CLI_CHOICE,
         .target = &a->strategy,
         .choices = rfi_strategy_names,
         .help = "which samples belong to which rank (default round-robin)"},
        {.name = "base",
         .kind = CLI_CHOICE,
         .target = &a->base,
         .choices = bases,
         .given = &a->base_given,
         .help = "adaptive: the strategy that it starts from (default round-robin)"},
        {.name = "rebalance",
         .kind = CLI_CHOICE,
         .target = &a->rebalance_off,
         .choices = on_off,
         .given = &a->rebalance_given,
         .help = "adaptive: move batches from slow ranks to fast ones (default on)"},
        {.name = "rebalance-threshold",
         .kind = CLI_DOUBLE,
         .target = &a->rebalance_threshold,
         .metavar = "T",
         .dmin = 0.01,
         .dmax = 0.99,
         .given = &a->threshold_given,
         .help = "adaptive: move when 1 - slowest / median throughput stays above T (default 0.2)"},
        {.name = "ranges",
         .kind = CLI_STRING,
         .target = &o->ranges,
         .metavar = "LO:HI,...",
         .help = "range: one half-open range a rank, in rank order"},
        {.name = "allow-gaps", .kind = CLI_FLAG, .target = &a->allow_gaps, .help = "range: samples may be in no range"},
        {.name = "allow-overlap",
         .kind = CLI_FLAG,
         .target = &a->allow_overlap,
         .help = "range: samples may be in several ranges"},
        {.name = "hash-partitions",
         .kind = CLI_U64,
         .target = &o->hash_partitions,
         .metavar = "P",
         .min = 1,
         .help = "hash: virtual partitions (default 1024, at least 16 W)"},
        {.name = "hash-seed",
         .kind = CLI_U64,
         .target = &o->hash_seed,
         .metavar = "S",
         .help = "hash: its seed (default 0)"},
        {.name = "hash-key",
         .kind = CLI_CHOICE,
         .target = &a->hash_key,
         .choices = rfi_hash_key_names,
         .help = "hash: what is hashed (default index)"},
    };
    return CLI_ADD(at, table);
}

static struct cli_option *add_shuffle(struct cli_option *at, struct cli_order_args *a)
{
    rf_order_options *o = &a->o;
    const struct cli_option table[] = {
        {.name = "shuffle",
         .kind = CLI_CHOICE,
         .target = &a->shuffle,
         .choices = rfi_shuffle_names,
         .help = "order of the samples within an epoch (default none)"},
        {.name = "block-samples",
         .kind = CLI_U64,
         .target = &o->block_samples,
         .metavar = "K",
         .min = 1,
         .help = "block: samples a block (default 4 MiB worth)"},
        {.name = "window-blocks",
         .kind = CLI_U64,
         .target = &o->window_blocks,
         .metavar = "M",
         .min = 1,
         .help = "block: blocks a window (default 16)"},
        {.name = "seed",
         .kind = CLI_U64,
         .target = &o->seed,
         .metavar = "S",
         .help = "seed of the shuffle (default 0)"},
        {.name = "repeat-order",
         .kind = CLI_FLAG,
         .target = &a->repeat_order,
         .help = "every epoch in the same order, that of epoch 0 (default: an order of its own for each)"},
        {.name = "epochs",
         .kind = CLI_U64,
         .target = &a->epochs,
         .metavar = "E",
         .given = &a->epochs_given,
         .help = "how many epochs (default 1; 0 serves for ever)"},
        {.name = "start-epoch",
         .kind = CLI_U64,
         .target = &a->start_epoch,
         .metavar = "E",
         .given = &a->start_given,
         .help = "number of the first epoch (default 0)"},
        {.name = "tail",
         .kind = CLI_CHOICE,
         .target = &a->tail,
         .choices = rfi_tail_names,
         .help = "what becomes of samples that do not fill a batch on every rank (default uneven)"},
    };
    return CLI_ADD(at, table);
}

static struct cli_option *add_selection(struct cli_option *at, struct cli_order_args *a)
{
    rf_order_options *o = &a->o;
    const struct cli_option table[] = {
        {.name = "subset",
         .kind = CLI_STRING,
         .target = &o->subset,
         .metavar = "A:B|FILE",
         .help = "only samples A to B-1, or those listed in FILE, one index a line"},
        {.name = "subset-sequence",
         .kind = CLI_FLAG,
         .target = &a->subset_sequence,
         .help = "the --subset file is a sequence: samples come in its order, and may repeat"},
        {.name = "split",
         .kind = CLI_STRING,
         .target = &o->split,
         .metavar = "NAME:PART,...",
         .help = "divide the samples at random, as in train:0.9,val:0.1"},
        {.name = "use", .kind = CLI_STRING, .target = &o->use, .metavar = "NAME", .help = "the part of --split to use"},
        {.name = "classes",
         .kind = CLI_U64,
         .target = &o->classes,
         .metavar = "C",
         .min = 1,
         .help = "refuse a dataset that has not exactly C classes"},
    };
    return CLI_ADD(at, table);
}

static struct cli_option *add_virtual(struct cli_option *at, struct cli_order_args *a)
{
    const struct cli_option table[] = {
        {.name = "epoch",
         .kind = CLI_U64,
         .target = &a->epoch,
         .metavar = "E",
         .given = &a->epoch_given,
         .help = "exactly this one epoch"},
        {.name = "samples",
         .kind = CLI_U64,
         .target = &a->samples,
         .metavar = "N",
         .given = &a->samples_given,
         .help = "N samples that need not exist, instead of DATASET"},
    };
    return CLI_ADD(at, table);
}

static struct cli_option *add_shared(struct cli_order_args *a)
{
    memset(a, 0, sizeof *a);
    rf_order_options_init(&a->o);
    if (!a->o.batch)
        a->o.batch = 1;
    a->strategy = (int)a->o.strategy;
    a->shuffle = (int)a->o.shuffle;
    a->tail = (int)a->o.tail;
    a->hash_key = (int)a->o.hash_key;
    a->epochs = 1;
    a->rebalance_threshold = 0.2;
    struct cli_option *at = add_ranks(a->options, a);
    at = add_partition(at, a);
    at = add_shuffle(at, a);
    return add_selection(at, a);
}

const struct cli_option *cli_serve_order_options(struct cli_order_args *a)
{
    *add_shared(a) = (struct cli_option){0};
    return a->options;
}

const struct cli_option *cli_order_options(struct cli_order_args *a)
{
    *add_virtual(add_shared(a), a) = (struct cli_option){0};
    return a->options;
}

/* The rulings: W is the flag's, the launcher's, else F + R; R the flag's, the launcher's, else W - F;
 * F the flag's, the launcher's, else 0; nothing at all is 1, 1, 0. */
static void apply_defaults(struct cli_order_args *a, const struct cli_launch *l)
{
    bool world = a->world_given || l->world_from, ranks = a->ranks_given || l->ranks_from;
    if (!a->first_given)
        a->first_rank = l->first_from ? l->first_rank : 0;
    if (!a->world_given && l->world_from)
        a->world_size = l->world_size;
    if (!a->ranks_given && l->ranks_from)
        a->ranks = l->ranks;
    if (!ranks)
        a->ranks = world ? (a->world_size > a->first_rank ? a->world_size - a->first_rank : 0) : 1;
    if (!world)
        a->world_size = a->first_rank + a->ranks;
}

static const char *origin(bool given, const char *flag, const char *variable)
{
    return given ? flag : variable ? variable : "by default";
}

static int check_ranks(const struct cli_order_args *a, const struct cli_launch *l)
{
    if (a->ranks && a->first_rank + a->ranks <= a->world_size && a->world_size <= MOST_RANKS)
        return CLI_OK;
    return cli_usage("ranks %llu (%s) from first rank %llu (%s) do not fit in world size %llu (%s). Correct "
                     "--world-size, --ranks or --first-rank",
                     (unsigned long long)a->ranks, origin(a->ranks_given, "--ranks", l->ranks_from),
                     (unsigned long long)a->first_rank, origin(a->first_given, "--first-rank", l->first_from),
                     (unsigned long long)a->world_size, origin(a->world_given, "--world-size", l->world_from));
}

int cli_order_resolve(struct cli_order_args *a)
{
    struct cli_launch launch;
    struct rfi_error err = {0};
    rf_order_options *o = &a->o;
    if (a->epoch_given && (a->epochs_given || a->start_given))
        return cli_usage("both --epoch and --%s. --epoch is exactly one epoch; give one of them",
                         a->epochs_given ? "epochs" : "start-epoch");
    if (cli_launch_read(!a->world_given, !a->ranks_given, !a->first_given, &launch, &err) < 0)
        return cli_usage("%s", err.text);
    apply_defaults(a, &launch);
    int rc = check_ranks(a, &launch);
    if (rc != CLI_OK)
        return rc;
    o->world_size = (uint32_t)a->world_size;
    o->strategy = (rf_strategy)a->strategy;
    o->base = (rf_strategy)a->base;
    if (o->strategy != RF_ADAPTIVE && (a->base_given || a->threshold_given || a->rebalance_given))
        return cli_usage("--base, --rebalance and --rebalance-threshold are of --strategy adaptive. Add it, or leave "
                         "them out");
    o->shuffle = (rf_shuffle)a->shuffle;
    o->tail = (rf_tail)a->tail;
    o->hash_key = (rf_hash_key)a->hash_key;
    o->allow_gaps = a->allow_gaps;
    o->repeat_order = a->repeat_order;
    o->subset_sequence = a->subset_sequence;
    o->allow_overlap = a->allow_overlap;
    o->samples = a->samples_given ? a->samples : 0;
    return rf_order_validate(o) < 0 ? cli_usage("%s", rf_last_error()) : CLI_OK;
}
