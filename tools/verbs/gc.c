/* `ringfeed gc`: removes the shared memory of dead runs, and nothing else. */
#include "cli.h"

#include "segment/segment.h"

static void emit(void *ctx, const char *name, uint64_t bytes)
{
    struct cli_emit *e = ctx;
    cli_emit_object(e, NULL);
    cli_emit_str(e, "name", name);
    cli_emit_bytes(e, "bytes", bytes);
    cli_emit_close(e);
}

int verb_gc(int argc, char **argv)
{
    bool json = false;
    struct cli_list rest;
    struct rfi_error err;
    struct cli_emit e;
    const struct cli_option own[] = {{"json", CLI_FLAG, &json, .help = "one JSON object"}, {0}};
    const struct cli_option *const groups[] = {own, NULL};
    int rc = cli_parse(cli_verb_find("gc"), groups, argc, argv, &rest);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (rest.n)
        return cli_usage("gc: takes no argument, but '%s' was given: it removes every dead run", rest.items[0]);
    cli_emit_begin(&e, json);
    cli_emit_array(&e, "removed");
    if (rfi_segment_gc(emit, &e, &err) < 0)
        return cli_fail(err.text);
    cli_emit_close(&e);
    return cli_emit_end(&e);
}
