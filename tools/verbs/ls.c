/* `ringfeed ls`: the runs on this machine, and whether their owners live. */
#include "cli.h"

#include "segment/segment.h"

#include <time.h>

static int emit(void *ctx, const struct rfi_run_entry *r)
{
    struct cli_emit *e = ctx;
    static const char *const owners[] = {"alive", "dead", "unknown"};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    cli_emit_object(e, NULL);
    cli_emit_str(e, "name", r->name);
    cli_emit_str(e, "owner", owners[r->owner]);
    cli_emit_bool(e, "ready", r->ready);
    cli_emit_i64(e, "pid", r->pid);
    cli_emit_u64(e, "uid", r->uid);
    cli_emit_bytes(e, "control_bytes", r->control_bytes);
    cli_emit_bytes(e, "data_bytes", r->data_bytes);
    double age = r->created_ns ? (double)now.tv_sec - (double)r->created_ns * 1e-9 : 0;
    cli_emit_f64(e, "age_s", age > 0 ? age : 0, 0);
    cli_emit_close(e);
    return 0;
}

int verb_ls(int argc, char **argv)
{
    bool json = false;
    struct cli_list rest;
    struct rfi_error err;
    struct cli_emit e;
    const struct cli_option own[] = {{"json", CLI_FLAG, &json, .help = "one JSON object"}, {0}};
    const struct cli_option *const groups[] = {own, NULL};
    int rc = cli_parse(cli_verb_find("ls"), groups, argc, argv, &rest);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (rest.n)
        return cli_usage("ls: takes no argument, but '%s' was given", rest.items[0]);
    cli_emit_begin(&e, json);
    cli_emit_array(&e, "runs");
    if (rfi_segment_list(emit, &e, &err) < 0)
        return cli_fail(err.text);
    cli_emit_close(&e);
    return cli_emit_end(&e);
}
