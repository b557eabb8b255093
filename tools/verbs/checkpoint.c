/* checkpoint: where a run stands, now, into a file or on stdout. */
#include "cli.h"

#include "checkpoint/handle.h"

#include <errno.h>

static int emit(const rf_checkpoint *c, bool json)
{
    struct cli_emit e;
    const struct rfi_state *s = &c->state;
    const struct rfi_stage_state *now = rfi_state_last(s);
    cli_emit_begin(&e, json);
    cli_emit_str(&e, "name", s->name);
    cli_emit_str(&e, "run", s->run);
    cli_emit_str(&e, "fingerprint", s->fingerprint);
    cli_emit_i64(&e, "time_s", s->time_s);
    cli_emit_u64(&e, "world_size", now->o.world_size);
    cli_emit_u64(&e, "seed", now->o.seed);
    cli_emit_u64(&e, "stages", s->n_stages);
    cli_emit_u64(&e, "moves", now->n_moves);
    cli_emit_array(&e, "ranks");
    for (uint32_t r = 0; r < now->o.world_size; r++) {
        if (!now->known[r])
            continue;
        cli_emit_object(&e, NULL);
        cli_emit_u64(&e, "rank", r);
        cli_emit_u64(&e, "epoch", now->at[r].epoch);
        cli_emit_u64(&e, "batch", now->at[r].batch);
        cli_emit_close(&e);
    }
    cli_emit_close(&e);
    return cli_emit_end(&e);
}

int verb_checkpoint(int argc, char **argv)
{
    const char *out = NULL;
    bool json = false;
    struct cli_list names;
    const struct cli_option own[] = {
        {"o", CLI_STRING, &out, .metavar = "FILE", .help = "write it there; FILE.prev is the one before"},
        {"json", CLI_FLAG, &json, .help = "what stands in it, as one JSON object"},
        {0},
    };
    const struct cli_option *const groups[] = {own, NULL};
    rf_checkpoint *c;
    int rc = cli_parse(cli_verb_find("checkpoint"), groups, argc, argv, &names);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (names.n != 1)
        return cli_usage("checkpoint: one NAME is needed, %zu were given. See `ringfeed ls`", names.n);
    rc = rf_checkpoint_take(names.items[0], &c);
    if (rc < 0)
        return rc == -EINVAL ? cli_usage("%s", rf_last_error()) : cli_fail(rf_last_error());
    int code = out && rf_checkpoint_save(c, out) < 0 ? cli_fail(rf_last_error()) : emit(c, json);
    rf_checkpoint_close(c);
    return code;
}
