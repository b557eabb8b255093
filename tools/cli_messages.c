/* Everything the command says on stderr: one line a message, "ringfeed: WHAT: WHY. WHAT TO DO". */
#include "cli_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void cli_print_escaped(FILE *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        unsigned char u = (unsigned char)*c;
        if (u == '\n')
            fputs("\\n", out);
        else if (u == '\t')
            fputs("\\t", out);
        else if (u < 0x20 || u == 0x7f)
            fprintf(out, "\\x%02x", u);
        else
            fputc(u, out);
    }
}

/* One write a message, so that lines of processes that share stderr do not mix. */
static void write_line(const char *text, const char *tail)
{
    char *line = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&line, &bytes);
    if (!f) {
        fprintf(stderr, "ringfeed: %s%s\n", text, tail);
        return;
    }
    fputs("ringfeed: ", f);
    cli_print_escaped(f, text);
    fputs(tail, f);
    fputc('\n', f);
    fclose(f);
    fflush(stdout);
    cli_progress_clear();
    fwrite(line, 1, bytes, stderr);
    free(line);
}

void cli_message(const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    write_line(text, "");
}

int cli_fail(const char *text)
{
    write_line(text && *text ? text : "failed for an unknown reason", "");
    return CLI_FAILED;
}

int cli_usage(const char *fmt, ...)
{
    char text[4096], tail[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t n = strlen(text);
    snprintf(tail, sizeof tail, "%s See 'ringfeed %s%s--help'", n && strchr(".?", text[n - 1]) ? "" : ".",
             cli_frame.verb ? cli_frame.verb->name : "", cli_frame.verb ? " " : "");
    write_line(text, tail);
    return CLI_USAGE;
}

int cli_close_stdout(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_OK;
    return cli_fail("standard output: cannot write all of it (full or closed). Look at the disk or the reader");
}
