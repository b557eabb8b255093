/* Man pages from the same tables as --help, so that they cannot be wrong about an option. */
#include "cli_internal.h"

#include <ctype.h>
#include <string.h>

/* Text as roff: no byte of it may be taken for a request or an escape. */
static void roff(FILE *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c == '\\')
            fputs("\\e", out);
        else if (*c == '-')
            fputs("\\-", out);
        else if ((*c == '.' || *c == '\'') && (c == text || c[-1] == '\n'))
            fprintf(out, "\\&%c", *c);
        else
            fputc(*c, out);
    }
}

static void upper(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(toupper((unsigned char)*text), out);
}

static void header(FILE *out, const char *verb, const char *summary)
{
    fputs("'\\\" -*- coding: utf-8 -*-\n.TH RINGFEED", out);
    if (verb) {
        fputs("\\-", out);
        upper(out, verb);
    }
    fprintf(out, " 1 \"\" \"ringfeed %d.%d.%d\" \"User Commands\"\n", RF_VERSION_MAJOR, RF_VERSION_MINOR,
            RF_VERSION_PATCH);
    fprintf(out, ".SH NAME\nringfeed%s%s \\- ", verb ? "\\-" : "", verb ? verb : "");
    roff(out, summary);
    fputc('\n', out);
}

static void option(FILE *out, const struct cli_option *o)
{
    fprintf(out, ".TP\n.B %s", o->name[1] ? "\\-\\-" : "\\-");
    roff(out, o->name);
    if (o->metavar || o->choices)
        fputs(" \\fI", out);
    if (o->metavar)
        roff(out, o->metavar);
    for (size_t i = 0; !o->metavar && o->choices && o->choices[i]; i++) {
        fputs(i ? "|" : "", out);
        roff(out, o->choices[i]);
    }
    fputs("\\fR\n", out);
    roff(out, o->help ? o->help : "");
    fputs(".\n", out);
}

static void footer(FILE *out, const char *but)
{
    fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage.\n.SH SEE ALSO\n", out);
    const char *between = "";
    if (but) {
        fputs(".BR ringfeed (1)", out);
        between = ",\n";
    }
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        if (but && !strcmp(but, v->name))
            continue;
        fprintf(out, "%s.BR ringfeed\\-%s (1)", between, v->name);
        between = ",\n";
    }
    fputc('\n', out);
}

void cli_man_verb(FILE *out, const struct cli_verb *verb, const struct cli_option *const *groups)
{
    static const struct cli_option help = {.name = "help", .help = "show the options and exit"};
    header(out, verb->name, verb->summary);
    fprintf(out, ".SH SYNOPSIS\n.B ringfeed %s\n", verb->name);
    roff(out, verb->arguments);
    fputs("\n.SH DESCRIPTION\n", out);
    roff(out, verb->description);
    fputs("\n.SH OPTIONS\n", out);
    for (; *groups; groups++)
        for (const struct cli_option *o = *groups; o->name; o++)
            option(out, o);
    option(out, &help);
    footer(out, verb->name);
}

void cli_man_main(FILE *out)
{
    header(out, NULL, "one shared-memory data loader for all GPUs of a server");
    fputs(
        ".SH SYNOPSIS\n.B ringfeed\n\\fIVERB\\fR [ARGUMENTS]\n.SH DESCRIPTION\n"
        "A server process fills one ring of batches in POSIX shared memory for each rank; trainers attach by name and\n"
        "take batches without a copy. Which samples are in a batch depends on the dataset, the options, the seed and\n"
        "the epoch alone, so what is delivered can be printed beforehand and checked afterwards.\n"
        ".PP\nDATASET is one or more paths: a file, a directory, a quoted glob, or an index file (.rfi).\n"
        ".SH VERBS\n",
        out);
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        fprintf(out, ".TP\n.B %s\n", v->name);
        roff(out, v->summary);
        fputc('\n', out);
    }
    fputs(".SH ENVIRONMENT\nWorld size, ranks and first rank come from torchrun (WORLD_SIZE, RANK, LOCAL_RANK,\n"
          "LOCAL_WORLD_SIZE, GROUP_RANK), Open MPI (OMPI_COMM_WORLD_*), MPICH (PMI_SIZE, PMI_RANK, MPI_LOCALNRANKS,\n"
          "MPI_LOCALRANKID) or Slurm (SLURM_NTASKS, SLURM_PROCID, SLURM_LOCALID, SLURM_NODEID,\n"
          "SLURM_TASKS_PER_NODE, SLURM_NTASKS_PER_NODE) where no option gives them.\n"
          ".SH FILES\n.TP\n.I /dev/shm/ringfeed.NAME\ncontrol object of a run\n"
          ".TP\n.I /dev/shm/ringfeed.NAME.data\nits payload\n",
          out);
    footer(out, NULL);
}
