/* The bash completion script, from the same tables as --help. */
#include "cli_internal.h"

#include <string.h>

/* Words after which a run's name, not a file, is expected. */
static bool takes_run_name(const struct cli_verb *verb)
{
    return !strncmp(verb->arguments, "NAME", 4);
}

void cli_completion_verb(FILE *out, const struct cli_verb *verb, const struct cli_option *const *groups)
{
    fprintf(out, "    %s)\n        words='", verb->name);
    for (const struct cli_option *const *g = groups; *g; g++)
        for (const struct cli_option *o = *g; o->name; o++)
            fprintf(out, "%s%s ", o->name[1] ? "--" : "-", o->name);
    fprintf(out, "--help'\n        names=%s\n        case $previous in\n", takes_run_name(verb) ? "yes" : "");
    for (const struct cli_option *const *g = groups; *g; g++)
        for (const struct cli_option *o = *g; o->name; o++) {
            if (o->kind == CLI_FLAG)
                continue;
            fprintf(out, "        %s%s) value=yes choices='", o->name[1] ? "--" : "-", o->name);
            for (size_t i = 0; o->choices && o->choices[i]; i++)
                fprintf(out, "%s%s", i ? " " : "", o->choices[i]);
            fputs("' ;;\n", out);
        }
    fputs("        esac\n        ;;\n", out);
}

static const char script_head[] = "# bash completion for ringfeed; generated from its option tables\n"
                                  "_ringfeed()\n"
                                  "{\n"
                                  "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
                                  "    local words='' names='' value='' choices='' run\n"
                                  "    COMPREPLY=()\n";

static const char script_tail[] =
    "    esac\n"
    "    if [[ -n $value ]]; then\n"
    "        if [[ -n $choices ]]; then\n"
    "            mapfile -t COMPREPLY < <(compgen -W \"$choices\" -- \"$word\")\n"
    "        else\n"
    "            mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
    "        fi\n"
    "    elif [[ $word == -* ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
    "    elif [[ -n $names ]]; then\n"
    "        for run in /dev/shm/ringfeed.*; do\n"
    "            run=${run#/dev/shm/ringfeed.}\n"
    "            [[ $run == '*' || $run == *.data || $run != \"$word\"* ]] || COMPREPLY+=(\"$run\")\n"
    "        done\n"
    "    else\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
    "    fi\n"
    "}\n"
    "complete -o filenames -F _ringfeed ringfeed\n";

int cli_completion_main(FILE *out)
{
    fputs(script_head, out);
    fputs("    if [[ $COMP_CWORD -eq 1 ]]; then\n        mapfile -t COMPREPLY < <(compgen -W '", out);
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "%s ", v->name);
    fputs("help --help --version' -- \"$word\")\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n", out);
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        char name[32], help[] = "--help";
        snprintf(name, sizeof name, "%s", v->name);
        char *argv[] = {name, help, NULL};
        cli_frame.verb = v;
        cli_frame.mode = CLI_MODE_COMPLETION;
        int rc = v->run(2, argv);
        if (rc != CLI_OK)
            return rc;
    }
    fputs(script_tail, out);
    return cli_close_stdout();
}
