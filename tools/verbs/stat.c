/* `ringfeed stat`: one reading of a running segment. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void emit_dataset(struct cli_emit *e, const rf_stat *s)
{
    cli_emit_object(e, "dataset");
    cli_emit_str(e, "format", s->format);
    cli_emit_u64(e, "files", s->files);
    cli_emit_u64(e, "samples", s->samples);
    cli_emit_bytes(e, "bytes", s->bytes);
    cli_emit_str(e, "fingerprint", s->fingerprint);
    cli_emit_close(e);
}

static void emit_rank(struct cli_emit *e, const rf_rank_stat *r)
{
    cli_emit_object(e, NULL);
    cli_emit_u64(e, "rank", r->rank);
    cli_emit_str(e, "status", rf_status_name(r->status));
    cli_emit_i64(e, "pid", r->pid);
    cli_emit_u64(e, "epoch", r->epoch);
    cli_emit_u64(e, "batch", r->batch);
    cli_emit_u64(e, "samples", r->samples);
    cli_emit_bytes(e, "bytes", r->bytes);
    cli_emit_f64(e, "samples_per_s", r->samples_per_s, 1);
    cli_emit_bytes(e, "bytes_per_s", cli_whole(r->bytes_per_s));
    cli_emit_u64(e, "prefetch_hits", r->prefetch_hits);
    cli_emit_u64(e, "prefetch_misses", r->prefetch_misses);
    cli_emit_f64(e, "wait_us_p50", r->wait_us_p50, 1);
    cli_emit_f64(e, "wait_us_p99", r->wait_us_p99, 1);
    cli_emit_f64(e, "wait_us_max", r->wait_us_max, 1);
    cli_emit_u64(e, "depth", r->depth);
    cli_emit_u64(e, "ready", r->ready);
    cli_emit_u64(e, "local_samples", r->local_samples);
    cli_emit_u64(e, "remote_samples", r->remote_samples);
    cli_emit_u64(e, "checkpoints", r->checkpoints);
    cli_emit_i64(e, "node", r->node);
    cli_emit_u64(e, "pages_checked", r->pages_checked);
    cli_emit_u64(e, "pages_on_node", r->pages_on_node);
    cli_emit_bytes(e, "ring_bytes", r->ring_bytes);
    cli_emit_bytes(e, "huge_bytes", r->huge_bytes);
    if (r->primary >= 0) {
        char text[64] = "";
        for (uint32_t k = 0; k < r->n_standbys; k++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%u", k ? "," : "", r->standbys[k]);
        cli_emit_i64(e, "primary", r->primary);
        cli_emit_str(e, "standbys", text);
    }
    cli_emit_close(e);
}

static void emit_worker(struct cli_emit *e, const rf_worker_stat *w)
{
    cli_emit_object(e, NULL);
    cli_emit_u64(e, "worker", w->worker);
    cli_emit_i64(e, "pid", w->pid);
    cli_emit_str(e, "status", rf_status_name(w->status));
    cli_emit_u64(e, "incarnation", w->incarnation);
    cli_emit_i64(e, "node", w->node);
    cli_emit_i64(e, "cpu", w->cpu);
    cli_emit_f64(e, "heartbeat_ms", w->heartbeat_ms, 1);
    cli_emit_u64(e, "samples", w->samples);
    cli_emit_bytes(e, "bytes", w->bytes);
    cli_emit_f64(e, "samples_per_s", w->samples_per_s, 1);
    cli_emit_u64(e, "reads", w->reads);
    cli_emit_f64(e, "utilization", w->utilization, 3);
    cli_emit_bool(e, "resting", w->resting);
    cli_emit_u64(e, "queue_depth", w->queue_depth);
    cli_emit_f64(e, "latency_us_p50", w->latency_us, 1);
    cli_emit_u64(e, "hedges", w->hedges);
    cli_emit_u64(e, "hedges_won", w->hedges_won);
    cli_emit_u64(e, "cache_hits", w->cache_hits);
    cli_emit_f64(e, "avg_load_time_us", w->avg_load_time_us, 1);
    cli_emit_close(e);
}

static void emit_fault(struct cli_emit *e, const rf_fault *f)
{
    cli_emit_object(e, NULL);
    cli_emit_u64(e, "epoch", f->epoch);
    cli_emit_u64(e, "rank", f->rank);
    cli_emit_u64(e, "batch", f->batch);
    cli_emit_u64(e, "slot", f->slot);
    cli_emit_u64(e, "sample", f->sample);
    if (f->substitute == UINT64_MAX)
        cli_emit_null(e, "substitute");
    else
        cli_emit_u64(e, "substitute", f->substitute);
    cli_emit_str(e, "file", f->path);
    cli_emit_u64(e, "offset", f->offset);
    cli_emit_u64(e, "error", f->error);
    cli_emit_close(e);
}

static void emit_history(struct cli_emit *e, const char *name, rf_party party, uint32_t number)
{
    rf_health h;
    if (rf_read_health(name, party, number, &h) < 0) /* it has ended in between */
        return;
    for (uint32_t i = 0; i < h.n_history; i++) {
        cli_emit_object(e, NULL);
        cli_emit_str(e, "party", party == RF_PARTY_RANK ? "rank" : "worker");
        cli_emit_u64(e, "number", number);
        cli_emit_f64(e, "seconds_ago", h.history[i].seconds_ago, 3);
        cli_emit_str(e, "status", rf_status_name(h.history[i].status));
        cli_emit_f64(e, "samples_per_s", h.history[i].samples_per_s, 1);
        cli_emit_close(e);
    }
}

static int emit(const rf_stat *s, bool json, bool history)
{
    struct cli_emit e;
    cli_emit_begin(&e, json);
    cli_emit_str(&e, "name", s->name);
    cli_emit_str(&e, "state", s->state);
    cli_emit_i64(&e, "pid", s->server_pid);
    cli_emit_f64(&e, "uptime_s", s->uptime_s, 1);
    cli_emit_str(&e, "engine", s->engine);
    cli_emit_str(&e, "engine_why", s->engine_why);
    cli_emit_f64(&e, "direct_us", s->direct_us, 1);
    cli_emit_f64(&e, "buffered_us", s->buffered_us, 1);
    cli_emit_f64(&e, "cpu_cores", s->cpu_cores, 3);
    cli_emit_u64(&e, "cpu_budget", s->cpu_budget ? s->cpu_budget : 100);
    cli_emit_u64(&e, "active_workers", s->active_workers);
    cli_emit_bytes(&e, "segment_bytes", s->segment_bytes);
    emit_dataset(&e, s);
    cli_emit_u64(&e, "world_size", s->world_size);
    cli_emit_u64(&e, "first_rank", s->first_rank);
    cli_emit_u64(&e, "epoch", s->epoch);
    cli_emit_u64(&e, "restarts", s->restarts);
    cli_emit_u64(&e, "rebalances", s->rebalances);
    cli_emit_f64(&e, "imbalance", s->imbalance, 3);
    cli_emit_str(&e, "balance", s->balance);
    cli_emit_u64(&e, "errors", s->errors);
    cli_emit_u64(&e, "substituted", s->substituted);
    cli_emit_u64(&e, "fenced", s->fenced);
    cli_emit_u64(&e, "moved", s->moved);
    cli_emit_u64(&e, "spare_queues", s->spare_queues);
    cli_emit_u64(&e, "spare_arenas", s->spare_arenas);
    cli_emit_u64(&e, "retired_queues", s->retired_queues);
    cli_emit_bytes(&e, "cache_bytes", s->cache_bytes);
    cli_emit_u64(&e, "cached_samples", s->cached_samples);
    cli_emit_bytes(&e, "cached_bytes", s->cached_bytes);
    cli_emit_u64(&e, "skipped", s->skipped);
    cli_emit_u64(&e, "wrong_copies", s->wrong_copies);
    cli_emit_u64(&e, "repaired", s->repaired);
    cli_emit_array(&e, "ranks");
    for (uint32_t i = 0; i < s->n_ranks; i++)
        emit_rank(&e, &s->ranks[i]);
    cli_emit_close(&e);
    cli_emit_array(&e, "workers");
    for (uint32_t i = 0; i < s->n_workers; i++)
        emit_worker(&e, &s->workers[i]);
    cli_emit_close(&e);
    cli_emit_array(&e, "faults");
    for (uint64_t i = 0; i < s->n_faults; i++)
        emit_fault(&e, &s->faults[i]);
    cli_emit_close(&e);
    if (history) {
        cli_emit_array(&e, "history");
        for (uint32_t i = 0; i < s->n_ranks; i++)
            emit_history(&e, s->name, RF_PARTY_RANK, s->ranks[i].rank);
        for (uint32_t i = 0; i < s->n_workers; i++)
            emit_history(&e, s->name, RF_PARTY_WORKER, i);
        cli_emit_close(&e);
    }
    return cli_emit_end(&e);
}

int verb_stat(int argc, char **argv)
{
    bool json = false, history = false;
    struct cli_list names;
    rf_stat s;
    const struct cli_option own[] = {{"json", CLI_FLAG, &json, .help = "one JSON object"},
                                     {"history", CLI_FLAG, &history, .help = "what became of ranks and workers, too"},
                                     {0}};
    const struct cli_option *const groups[] = {own, NULL};
    int rc = cli_parse(cli_verb_find("stat"), groups, argc, argv, &names);
    if (rc)
        return rc > 0 ? CLI_OK : CLI_USAGE;
    if (names.n != 1)
        return cli_usage("stat: one NAME is needed, %zu were given. See `ringfeed ls`", names.n);
    rc = rf_stat_read(names.items[0], &s);
    if (rc < 0)
        return rc == -EINVAL ? cli_usage("%s", rf_last_error()) : cli_fail(rf_last_error());
    int code = emit(&s, json, history);
    rf_stat_free(&s);
    return code;
}
