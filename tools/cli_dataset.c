/* The dataset options that every verb with a DATASET shares, and opening it with progress. */
#include "cli_internal.h"

#include "dataset/formats/format.h"

#include <errno.h>
#include <string.h>

/* The names come from the table of formats: adding one changes no text here. */
static const char *format_help(void)
{
    static char text[512];
    size_t n = (size_t)snprintf(text, sizeof text, "read the files as this format:");
    for (const struct rfi_format *const *f = rfi_formats; *f && n < sizeof text; f++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %s", f == rfi_formats ? "" : ",", (*f)->name);
    if (n < sizeof text)
        snprintf(text + n, sizeof text - n, " (default: detected by content)");
    return text;
}

/* A wrong option or an empty path is wrong usage, malformed content a failure. The text of the first
 * kind begins with the option's name; paths in texts are absolute or come with another errno. */
static int open_failed(int rc, const char *text)
{
    bool usage = rc == -EINVAL && (strncmp(text, "--", 2) == 0 || strncmp(text, "DATASET:", 8) == 0);
    return usage ? cli_usage("%s", text) : cli_fail(text);
}

const struct cli_option *cli_dataset_options(struct cli_dataset_args *a)
{
    rf_dataset_options *o = &a->o;
    rf_dataset_options_init(o);
    const struct cli_option table[] = {
        {.name = "format", .kind = CLI_STRING, .target = &o->format, .metavar = "NAME", .help = format_help()},
        {.name = "record-bytes",
         .kind = CLI_BYTES,
         .target = &o->record_bytes,
         .metavar = "N",
         .min = 1,
         .help = "raw fixed-size records of N bytes"},
        {.name = "header-bytes",
         .kind = CLI_BYTES,
         .target = &o->header_bytes,
         .metavar = "N",
         .help = "raw: skip N bytes at the start of each file (default 0)"},
        {.name = "labels",
         .kind = CLI_STRING,
         .target = &o->labels,
         .metavar = "FILE",
         .help = "labels, one a sample: an IDX or integer .npy file, or one integer a line"},
        {.name = "label-field",
         .kind = CLI_STRING,
         .target = &o->label_field,
         .metavar = "NAME",
         .help = "webdataset: the field that holds the label (default cls)"},
        {0},
    };
    _Static_assert(sizeof table <= sizeof a->options, "cli_dataset_args.options is too small");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        a->options[i] = table[i];
    return a->options;
}

static int on_progress(void *ctx, uint64_t files_done, uint64_t files, uint64_t samples)
{
    struct cli_progress *p = ctx;
    if (files > 1) {
        p->total = files;
        cli_progress_at(p, files_done, "files");
    } else { /* one large file: there is no telling how far it is, but it can be seen to move */
        cli_progress_at(p, samples, "samples");
    }
    return 0;
}

rf_dataset *cli_open_dataset(struct cli_dataset_args *a, const struct cli_list *paths, int *ret)
{
    rf_dataset *d = NULL;
    struct cli_progress progress;
    if (!paths->n) {
        *ret = cli_usage("DATASET: not given. Name a file, a directory, a quoted glob or an index (.rfi)");
        return NULL;
    }
    a->o.paths = paths->items;
    a->o.n_paths = paths->n;
    a->o.progress = on_progress;
    a->o.progress_ctx = &progress;
    cli_progress_begin(&progress, "scanning", 0);
    int rc = rf_dataset_open(&a->o, &d);
    cli_progress_end(&progress);
    a->o.progress = NULL; /* it points into this frame */
    a->o.progress_ctx = NULL;
    *ret = rc < 0 ? open_failed(rc, rf_last_error()) : CLI_OK;
    return rc < 0 ? NULL : d;
}
