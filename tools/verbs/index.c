/* `ringfeed index`: one scan, written down. */
#include "cli.h"
#include "dataset_facts.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "dataset/index_file.h"

#include <sys/stat.h>

/* Only an index is replaced: one slip in -o would put the index in the place of the data. Looked at before
 * the scan, which may take long. */
static bool holds_something_else(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && !rfi_is_index_file(path);
}

static int on_progress(void *ctx, uint64_t done, uint64_t samples)
{
    (void)samples;
    cli_progress_at(ctx, done, "samples");
    return 0;
}

static int add_checksums(rf_dataset *d)
{
    struct cli_progress progress;
    rf_dataset_info info;
    rf_dataset_get_info(d, &info);
    cli_progress_begin(&progress, "checksums", info.samples);
    int rc = rf_dataset_add_checksums(d, on_progress, &progress);
    cli_progress_end(&progress);
    return rc;
}

int verb_index(int argc, char **argv)
{
    bool json = false, checksum = false;
    const char *output = NULL;
    struct cli_list paths;
    struct cli_dataset_args a;
    struct cli_emit e;
    rf_dataset_info info;
    const struct cli_option own[] = {
        {"o", CLI_STRING, &output, .metavar = "FILE.rfi", .help = "where to write the index (required)"},
        {"checksum", CLI_FLAG, &checksum,
         .help = "read every sample and store its CRC32C: a server then finds flipped or misdirected bytes"},
        {"json", CLI_FLAG, &json, .help = "one JSON object"},
        {0},
    };
    const struct cli_option *const groups[] = {own, cli_dataset_options(&a), NULL};
    int rc = cli_parse(cli_verb_find("index"), groups, argc, argv, &paths);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (!output || !*output)
        return cli_usage("-o: not given. Say where the index is to be written, like -o data.rfi");
    if (holds_something_else(output)) {
        cli_message("%s: holds something that is not an index, and would be lost. Name another file, or remove it",
                    output);
        return CLI_FAILED;
    }
    if (checksum && !rfi_crc32c_available()) {
        cli_message(
            "--checksum: this ringfeed was built without CRC32C. Build it with ISA-L (meson -Dchecksum=enabled)");
        return CLI_FAILED;
    }
    uint64_t started = rfi_now_ns();
    rf_dataset *d = cli_open_dataset(&a, &paths, &rc);
    if (!d)
        return rc;
    if ((checksum && add_checksums(d) < 0) || rf_dataset_write_index(d, output) < 0) {
        rc = cli_fail(rf_dataset_error(d));
        rf_dataset_close(d);
        return rc;
    }
    rf_dataset_get_info(d, &info);
    cli_emit_begin(&e, json);
    cli_emit_str(&e, "index", output);
    emit_dataset_facts(&e, d, &info);
    cli_emit_f64(&e, "seconds", (double)(rfi_now_ns() - started) * 1e-9, 6);
    rf_dataset_close(d);
    return cli_emit_end(&e);
}
