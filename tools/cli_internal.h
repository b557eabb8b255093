/* What the files of the frame share with each other and not with the verbs. */
#pragma once

#include "cli.h"

#include <string.h>

/* What cli_parse does with the tables it is given. */
enum cli_mode {
    CLI_MODE_RUN, /* parse */
    CLI_MODE_MAN, /* write the verb's man page instead */
    CLI_MODE_COMPLETION, /* write the verb's part of the completion script instead */
};

struct cli_frame {
    const struct cli_verb *verb; /* being run; NULL before one is known */
    enum cli_mode mode;
};
extern struct cli_frame cli_frame;

void cli_help_verb(FILE *out, const struct cli_verb *verb, const struct cli_option *const *groups);
void cli_help_main(FILE *out);
void cli_man_verb(FILE *out, const struct cli_verb *verb, const struct cli_option *const *groups);
void cli_man_main(FILE *out);
void cli_completion_verb(FILE *out, const struct cli_verb *verb, const struct cli_option *const *groups);
int cli_completion_main(FILE *out);

/* Values: 0 and *ret, or a negative errno and the reason ("is not a number") in *why. */
int cli_value_u64(const char *text, uint64_t *ret, const char **why);
int cli_value_bytes(const char *text, uint64_t *ret, const char **why);
int cli_value_double(const char *text, double *ret, const char **why);

/* Appends a table of options to a group under construction; returns where the next goes. */
static inline struct cli_option *cli_add(struct cli_option *at, const struct cli_option *table, size_t n)
{
    memcpy(at, table, n * sizeof *table);
    return at + n;
}
#define CLI_ADD(at, table) cli_add(at, table, sizeof table / sizeof *table)

/* Memory that lives until exit and stays reachable (no verb frees what it parsed). Never NULL. */
void *cli_keep(size_t bytes);

/* Closest of the names `next(ctx)` yields to `word`, or NULL when none is close. */
const char *cli_closest(const char *word, const char *(*next)(void *ctx), void *ctx);

/* Writes text with control characters as \n, \t or \xNN: file names are not to be trusted. */
void cli_print_escaped(FILE *out, const char *text);

/* Takes the progress line off the screen, if there is one, so that a message does not run into it. */
void cli_progress_clear(void);

/* ---- launcher ---- */

/* What torchrun, Slurm or MPI say about this process. A value is absent when its `_from` is NULL. */
struct cli_launch {
    const char *launcher; /* NULL: none found */
    uint64_t world_size, ranks, first_rank;
    const char *world_from, *ranks_from, *first_from; /* the variables, for messages */
};

/* Reads the environment for what is asked. 0, or a negative errno with *err filled in. */
int cli_launch_read(bool want_world, bool want_ranks, bool want_first, struct cli_launch *ret, struct rfi_error *err);
