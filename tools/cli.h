/* The command's frame: verb table, option parsing, messages, output. Verbs are one file each under
 * tools/verbs and contain no parsing and no printing of their own beyond these calls. */
#pragma once

#include "base/error.h"

#include <ringfeed/ringfeed.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* ---- verbs ---- */

struct cli_verb {
    const char *name;
    const char *arguments; /* "DATASET… -o FILE" */
    const char *summary; /* one line */
    const char *description; /* a paragraph for --help and the man page */
    int (*run)(int argc, char **argv); /* argv[0] is the verb; returns an exit code */
};

extern const struct cli_verb cli_verbs[]; /* ends with a NULL name */

/* One file each under verbs/. */
int verb_index(int argc, char **argv);
int verb_inspect(int argc, char **argv);
int verb_cat(int argc, char **argv);
int verb_samples(int argc, char **argv);
int verb_order(int argc, char **argv);
int verb_serve(int argc, char **argv);
int verb_attach(int argc, char **argv);
int verb_stat(int argc, char **argv);
int verb_checkpoint(int argc, char **argv);
int verb_verify(int argc, char **argv);
int verb_plan(int argc, char **argv);
int verb_bench(int argc, char **argv);
int verb_ls(int argc, char **argv);
int verb_gc(int argc, char **argv);

/* NULL when there is no such verb. */
const struct cli_verb *cli_verb_find(const char *name);

/* ---- options ---- */

enum cli_kind {
    CLI_FLAG, /* bool *; --x sets true */
    CLI_U64, /* uint64_t *; decimal, range-checked against min and max (max 0: none) */
    CLI_U32, /* uint32_t * */
    CLI_BYTES, /* uint64_t *; 4096, 64k, 4MiB, 1G (binary multiples, like fio) */
    CLI_DOUBLE, /* double *, range dmin..dmax */
    CLI_STRING, /* const char ** */
    CLI_LIST, /* struct cli_list *; may repeat */
    CLI_CHOICE, /* int *; index into choices (NULL-terminated) */
};

struct cli_list {
    const char **items;
    size_t n;
};

struct cli_option {
    const char *name; /* without the dashes; a one-letter name is a short option */
    enum cli_kind kind;
    void *target;
    const char *metavar;
    const char *help; /* one line, says the default */
    const char *const *choices;
    uint64_t min, max;
    double dmin, dmax;
    bool *given; /* may be NULL */
};

/* Parses options in any order among positionals ("--" ends options; --name=value works). Groups are
 * arrays ending with a NULL name; `groups` ends with NULL. --help prints and returns 1. Returns 0 or
 * a negative errno after having printed the error and a hint at --help (the verb returns CLI_USAGE).
 * `verb` NULL: the one being run. `positionals` receives pointers into argv; its items belong to the
 * frame and live until exit. NULL: any positional is an error. A verb must call this before it does
 * anything else: man pages and completion come from the tables given here. */
int cli_parse(const struct cli_verb *verb, const struct cli_option *const *groups, int argc, char **argv,
              struct cli_list *positionals);

/* Shared groups. Each init sets the defaults in the target and returns an option array that points
 * into it (storage inside the struct). */
struct cli_dataset_args {
    rf_dataset_options o;
    struct cli_option options[8]; /* --format --record-bytes --header-bytes --labels --label-field */
};
const struct cli_option *cli_dataset_options(struct cli_dataset_args *a);

struct cli_order_args {
    rf_order_options o;
    uint64_t world_size, ranks, first_rank; /* after cli_order_resolve: final */
    bool world_given, ranks_given, first_given;
    uint64_t epochs, start_epoch, epoch;
    bool epochs_given, start_given, epoch_given;
    uint64_t samples; /* --samples N: virtual */
    bool samples_given;
    int strategy, base, shuffle, tail, hash_key, rebalance_off;
    bool allow_gaps, allow_overlap, repeat_order, subset_sequence, base_given, threshold_given, rebalance_given;
    double rebalance_threshold;
    struct cli_option options[48];
};
const struct cli_option *cli_order_options(struct cli_order_args *a);
/* The same without --epoch and --samples, for verbs that deliver or plan: there they would mean nothing. */
const struct cli_option *cli_serve_order_options(struct cli_order_args *a);
/* Applies the launcher's environment (torchrun, Slurm, MPI; a flag beats it), the defaults and the
 * rulings (F + R > W refused), copies all into a->o. 0, or an exit code after a message. */
int cli_order_resolve(struct cli_order_args *a);

/* How a run is served: the options that serve and bench share. */
#define CLI_SPARES_CHOSEN UINT64_MAX
struct cli_serve_args {
    uint64_t workers, prefetch, prefetch_samples, ring_bytes, cache_bytes, queue_depth, heartbeat_ms, max_restarts,
        spares, replication, hedge_ms, cpu_budget;
    int engine, direct, pin, numa, on_error;
    struct cli_list mirrors;
    double slow_ratio;
    struct cli_option options[24];
};
const struct cli_option *cli_serve_options(struct cli_serve_args *a);
/* --prefetch-samples becomes --prefetch. 0, or an exit code after a message. */
int cli_serve_resolve(struct cli_serve_args *a, uint64_t batch);

/* Opens the dataset named by the positionals with progress on a terminal; NULL and a message (exit
 * code in *ret) on failure. */
rf_dataset *cli_open_dataset(struct cli_dataset_args *a, const struct cli_list *paths, int *ret);

/* ---- messages (stderr) ---- */

/* "ringfeed: " + text + newline. */
__attribute__((format(printf, 1, 2))) void cli_message(const char *fmt, ...);
/* A message for a negative errno with text, mapped to an exit code (EINVAL of options: 2, else 1). */
int cli_fail(const char *text);
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Progress line on stderr when it is a terminal and the work has lasted a second: bar, rate, time left. */
struct cli_progress {
    const char *what;
    uint64_t total; /* 0: unknown */
    uint64_t started_ns, shown_ns;
    bool terminal;
};
void cli_progress_begin(struct cli_progress *p, const char *what, uint64_t total);
void cli_progress_at(struct cli_progress *p, uint64_t done, const char *unit);
void cli_progress_end(struct cli_progress *p);

/* A rate as a whole number; what no integer can hold (a damaged segment says anything) becomes the largest. */
static inline uint64_t cli_whole(double x)
{
    return !(x > 0) ? 0 : x < 18446744073709549568.0 ? (uint64_t)x : UINT64_MAX;
}

/* Bytes of a batch's samples, all fields joined. */
static inline uint64_t cli_batch_bytes(const rf_batch *b)
{
    if (b->fixed_bytes && !b->field_lengths)
        return b->n_samples * b->fixed_bytes;
    uint64_t bytes = 0, n = b->field_lengths ? (uint64_t)b->n_samples * b->n_fields : b->n_samples;
    const uint64_t *lengths = b->field_lengths ? b->field_lengths : b->lengths;
    for (uint64_t i = 0; i < n; i++)
        bytes += lengths[i];
    return bytes;
}

/* ---- output (stdout): one walk that writes text or JSON ---- */

struct cli_emit {
    bool json;
    FILE *out;
    bool failed; /* out of memory while building */
    int depth;
    void *stack[16]; /* json-c objects */
    const char *names[16];
};
void cli_emit_begin(struct cli_emit *e, bool json); /* opens the top object */
void cli_emit_str(struct cli_emit *e, const char *key, const char *value); /* NULL: JSON null, text "-" */
void cli_emit_u64(struct cli_emit *e, const char *key, uint64_t value);
void cli_emit_i64(struct cli_emit *e, const char *key, int64_t value);
void cli_emit_f64(struct cli_emit *e, const char *key, double value, int digits);
void cli_emit_bytes(struct cli_emit *e, const char *key, uint64_t value); /* text: with a unit */
void cli_emit_bool(struct cli_emit *e, const char *key, bool value);
void cli_emit_null(struct cli_emit *e, const char *key);
void cli_emit_object(struct cli_emit *e, const char *key); /* opens */
void cli_emit_array(struct cli_emit *e, const char *key); /* opens; members' keys are NULL. An array of
    objects is a table in text: one aligned row an object, header from the keys */
void cli_emit_close(struct cli_emit *e); /* closes the innermost object or array */
/* Closes and writes; returns CLI_OK or CLI_FAILED (stdout full or closed). */
int cli_emit_end(struct cli_emit *e);

/* Flushes stdout and turns a write error into a message and CLI_FAILED. */
int cli_close_stdout(void);
