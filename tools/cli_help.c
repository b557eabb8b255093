/* --help, of the command and of a verb, from the tables. */
#include "cli_internal.h"

#include <string.h>

enum { TEXT_COLUMNS = 100, OPTION_COLUMNS = 30 };

static int columns_of(const char *text, size_t n)
{
    int w = 0;
    for (size_t i = 0; i < n; i++)
        w += ((unsigned char)text[i] & 0xc0) != 0x80;
    return w;
}

/* Words of `text` from column `at` on, broken before the last column and indented. */
static void wrap(FILE *out, const char *text, int at, int indent)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        int w = columns_of(text, n);
        if (at > indent && at + 1 + w > TEXT_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', out);
            at++;
        }
        fwrite(text, 1, n, out);
        at += w;
        text += n + (text[n] == ' ');
    }
    fputc('\n', out);
}

/* "--name VALUE" with the choices spelt out when there is no metavar. */
static int print_option_name(FILE *out, const struct cli_option *o)
{
    int w = fprintf(out, "  %s%s", o->name[1] ? "    --" : "-", o->name);
    if (o->metavar)
        w += fprintf(out, " %s", o->metavar);
    for (size_t i = 0; !o->metavar && o->choices && o->choices[i]; i++)
        w += fprintf(out, "%s%s", i ? "|" : " ", o->choices[i]);
    return w;
}

static void print_option(FILE *out, const struct cli_option *o)
{
    int w = print_option_name(out, o);
    if (w + 2 > OPTION_COLUMNS) {
        fputc('\n', out);
        w = 0;
    }
    fprintf(out, "%*s", OPTION_COLUMNS - w, "");
    wrap(out, o->help ? o->help : "", OPTION_COLUMNS, OPTION_COLUMNS);
}

void cli_help_verb(FILE *out, const struct cli_verb *verb, const struct cli_option *const *groups)
{
    static const struct cli_option help = {.name = "help", .help = "show this and exit"};
    fprintf(out, "Usage: ringfeed %s%s%s\n\n", verb->name, *verb->arguments ? " " : "", verb->arguments);
    wrap(out, verb->description, 0, 0);
    fputs("\nOptions:\n", out);
    for (; *groups; groups++)
        for (const struct cli_option *o = *groups; o->name; o++)
            print_option(out, o);
    print_option(out, &help);
}

void cli_help_main(FILE *out)
{
    fputs("Usage: ringfeed VERB [ARGUMENTS]\n\n"
          "One shared-memory data loader for all GPUs of a server.\n\nVerbs:\n",
          out);
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "  %-10s %s\n", v->name, v->summary);
    fputs("\nDATASET is one or more paths: files, directories, quoted globs, or an index (.rfi).\n"
          "'ringfeed VERB --help' says more, and so do the man pages. 'ringfeed --version' prints the version.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
          out);
}
