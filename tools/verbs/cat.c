/* `ringfeed cat`: one sample's bytes, copied in pieces so that its size does not matter. */
#include "cli.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20, MAX_FIELDS = 64 };

static int copy(int fd, const char *path, uint64_t offset, uint64_t bytes)
{
    static unsigned char piece[PIECE_BYTES];
    struct rfi_error err;
    while (bytes) {
        ssize_t n = pread(fd, piece, rfi_min(bytes, sizeof piece), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rfi_fail(&err, errno, "%s: cannot read at offset %llu: %s. Check the disk", path,
                     (unsigned long long)offset, strerror(errno));
        if (n == 0)
            rfi_fail(&err, ESTALE, "%s: ends at offset %llu: it was cut after it was indexed. Index it again", path,
                     (unsigned long long)offset);
        if (n <= 0)
            return cli_fail(err.text);
        if (fwrite(piece, 1, (size_t)n, stdout) != (size_t)n)
            return cli_close_stdout();
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return CLI_OK;
}

static int copy_fields(const rf_sample *s, const rf_field *fields, int n, const char *only)
{
    struct rfi_error err;
    int rc = CLI_OK, found = 0;
    int fd = open(s->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        rfi_fail(&err, errno, "%s: cannot be opened: %s. Check the file", s->file, strerror(errno));
        return cli_fail(err.text);
    }
    for (int k = 0; k < n && rc == CLI_OK; k++) {
        if (only && strcmp(fields[k].name, only) != 0)
            continue;
        found++;
        rc = copy(fd, s->file, s->offset + fields[k].offset, fields[k].bytes);
    }
    close(fd);
    if (!found) {
        rfi_fail(&err, ENOENT, "--field %s: sample %llu has no such field. Look at 'ringfeed inspect'", only,
                 (unsigned long long)s->index);
        return cli_fail(err.text);
    }
    return rc == CLI_OK ? cli_close_stdout() : rc;
}

int verb_cat(int argc, char **argv)
{
    uint64_t i = 0;
    bool given = false;
    const char *field = NULL;
    struct cli_list paths;
    struct cli_dataset_args a;
    rf_field fields[MAX_FIELDS];
    rf_sample s;
    const struct cli_option own[] = {
        {"i", CLI_U64, &i, .metavar = "N", .help = "number of the sample, from 0 (required)", .given = &given},
        {"field", CLI_STRING, &field, .metavar = "FIELD", .help = "only this field (default: all, in file order)"},
        {0},
    };
    const struct cli_option *const groups[] = {own, cli_dataset_options(&a), NULL};
    int rc = cli_parse(cli_verb_find("cat"), groups, argc, argv, &paths);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (!given)
        return cli_usage("-i: not given. Say which sample, like -i 0");
    rf_dataset *d = cli_open_dataset(&a, &paths, &rc);
    if (!d)
        return rc;
    int n = rf_dataset_sample(d, i, &s);
    if (n >= 0)
        n = rf_dataset_sample_fields(d, i, fields, MAX_FIELDS);
    rc = n < 0 ? cli_fail(rf_dataset_error(d)) : copy_fields(&s, fields, n, field);
    rf_dataset_close(d);
    return rc;
}
