/* `ringfeed samples`: one line a sample. Millions of lines are the normal case, so a line is put
 * together by hand in one buffer and not by the emitter. */
#include "cli.h"

#include "base/bytes.h"

#include <string.h>
#include <unistd.h>

enum { NUMBER_MAX = 20 };

static void put(const char *text)
{
    fputs_unlocked(text, stdout);
}

static void put_u64(uint64_t v)
{
    char text[NUMBER_MAX], *p = text + sizeof text;
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    fwrite_unlocked(p, 1, (size_t)(text + sizeof text - p), stdout);
}

static void put_i64(int64_t v)
{
    if (v < 0)
        putc_unlocked('-', stdout);
    put_u64(v < 0 ? -(uint64_t)v : (uint64_t)v);
}

/* Text columns: a tab or line feed in a name must not look like the end of a column. */
static void put_column(const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '\t')
            put("\\t");
        else if (c == '\n')
            put("\\n");
        else if (c == '\\')
            put("\\\\");
        else
            putc_unlocked(c, stdout);
    }
}

/* Length of the valid UTF-8 sequence at s (RFC 3629), 0 when there is none. */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                             : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

/* Names are bytes, JSON is text: what is not UTF-8 becomes U+FFFD, as everywhere in this command. */
static void put_json(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    putc_unlocked('"', stdout);
    while (*s) {
        size_t n = utf8_length(s);
        if (!n)
            put("\xef\xbf\xbd");
        else if (*s == '"' || *s == '\\')
            fprintf(stdout, "\\%c", *s);
        else if (*s < 0x20)
            fprintf(stdout, "\\u%04x", *s);
        else
            fwrite_unlocked(s, 1, n, stdout);
        s += n ? n : 1;
    }
    putc_unlocked('"', stdout);
}

static void print_text(const rf_sample *s)
{
    put_u64(s->index);
    put("\t");
    put_column(s->file);
    put("\t");
    put_u64(s->offset);
    put("\t");
    put_u64(s->payload_bytes);
    put("\t");
    if (s->has_label)
        put_i64(s->label);
    else
        put("-");
    put("\t");
    put_column(s->key ? s->key : "-");
    put("\n");
}

static void print_json(const rf_sample *s)
{
    put("{\"index\":");
    put_u64(s->index);
    put(",\"file\":");
    put_json(s->file);
    put(",\"offset\":");
    put_u64(s->offset);
    put(",\"bytes\":");
    put_u64(s->payload_bytes);
    put(",\"extent_bytes\":");
    put_u64(s->bytes);
    put(",\"label\":");
    if (s->has_label)
        put_i64(s->label);
    else
        put("null");
    put(",\"key\":");
    if (s->key)
        put_json(s->key);
    else
        put("null");
    put("}\n");
}

static int print_all(rf_dataset *d, uint64_t from, uint64_t to, bool json)
{
    struct cli_progress progress;
    cli_progress_begin(&progress, "samples", to - from);
    if (isatty(STDOUT_FILENO))
        progress.terminal = false; /* the lines themselves are the progress */
    for (uint64_t i = from; i < to; i++) {
        rf_sample s;
        if (rf_dataset_sample(d, i, &s) < 0) {
            cli_progress_end(&progress);
            fflush(stdout);
            return cli_fail(rf_dataset_error(d));
        }
        if (json)
            print_json(&s);
        else
            print_text(&s);
        if (i % 4096 == 0)
            cli_progress_at(&progress, i - from, "samples");
        if (ferror_unlocked(stdout))
            break;
    }
    cli_progress_end(&progress);
    return cli_close_stdout();
}

int verb_samples(int argc, char **argv)
{
    bool json = false;
    uint64_t from = 0, count = UINT64_MAX;
    struct cli_list paths;
    struct cli_dataset_args a;
    rf_dataset_info info;
    const struct cli_option own[] = {
        {"from", CLI_U64, &from, .metavar = "A", .help = "first sample (default 0)"},
        {"count", CLI_U64, &count, .metavar = "K", .help = "at most so many (default: all)"},
        {"json", CLI_FLAG, &json, .help = "one JSON object a line"},
        {0},
    };
    const struct cli_option *const groups[] = {own, cli_dataset_options(&a), NULL};
    int rc = cli_parse(cli_verb_find("samples"), groups, argc, argv, &paths);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    rf_dataset *d = cli_open_dataset(&a, &paths, &rc);
    if (!d)
        return rc;
    rf_dataset_get_info(d, &info);
    from = rfi_min(from, info.samples);
    rc = print_all(d, from, from + rfi_min(count, info.samples - from), json);
    rf_dataset_close(d);
    return rc;
}
