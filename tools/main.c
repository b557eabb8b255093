/* The command: finds the verb and runs it. */
#include "cli_internal.h"

#include "base/failpoint.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* With 0, 1 or 2 closed, the segment would be opened under that number and the next message written
 * into it. Opened for the wrong direction, so that using them still fails. */
static void hold_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            _exit(CLI_FAILED);
}

static const char *next_verb(void *ctx)
{
    const struct cli_verb **at = ctx;
    return (*at)->name ? (*at)++->name : NULL;
}

static int no_such_verb(const char *name)
{
    const struct cli_verb *at = cli_verbs;
    const char *near = cli_closest(name, next_verb, &at);
    return near ? cli_usage("%s: no such verb. Did you mean %s?", name, near) : cli_usage("%s: no such verb", name);
}

/* The verb's own --help path writes the page: the tables exist only while it runs. */
static int describe(enum cli_mode mode, const char *name)
{
    const struct cli_verb *v = cli_verb_find(name);
    if (!v)
        return no_such_verb(name);
    char verb_name[32], help[] = "--help";
    snprintf(verb_name, sizeof verb_name, "%s", v->name);
    char *argv[] = {verb_name, help, NULL};
    cli_frame.verb = v;
    cli_frame.mode = mode;
    int rc = v->run(2, argv);
    return rc == CLI_OK ? cli_close_stdout() : rc;
}

static int man(const char *name)
{
    if (name)
        return describe(CLI_MODE_MAN, name);
    cli_man_main(stdout);
    return cli_close_stdout();
}

static int special(int argc, char **argv)
{
    const char *word = argv[1], *name = argc > 2 ? argv[2] : NULL;
    if (!strcmp(word, "--version")) {
        printf("ringfeed %s\n", rf_version());
        return cli_close_stdout();
    }
    if (!strcmp(word, "--man"))
        return man(name);
    if (!strcmp(word, "--completion"))
        return cli_completion_main(stdout);
    if (name)
        return describe(CLI_MODE_RUN, name);
    cli_help_main(stdout);
    return cli_close_stdout();
}

static bool is_special(const char *word)
{
    static const char *const words[] = {"--help", "-h", "help", "--version", "--man", "--completion"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(word, words[i]))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    hold_standard_files();
    if (rfi_fail_points_list(stdout))
        return cli_close_stdout();
    if (argc < 2) {
        cli_help_main(stderr);
        return CLI_USAGE;
    }
    if (is_special(argv[1]))
        return special(argc, argv);
    cli_frame.verb = cli_verb_find(argv[1]);
    if (!cli_frame.verb)
        return no_such_verb(argv[1]);
    return cli_frame.verb->run(argc - 1, argv + 1);
}
