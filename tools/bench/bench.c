#include "bench/bench.h"

#include "order/names.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

volatile sig_atomic_t bench_interrupted;

const char *bench_run_name(const struct bench_args *a)
{
    static char name[RF_NAME_MAX + 1];
    if (a->name)
        return a->name;
    snprintf(name, sizeof name, "bench-%d", (int)getpid());
    return name;
}

const char *bench_command(void)
{
    static char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return n > 0 && access(path, X_OK) == 0 ? path : "/proc/self/exe";
}

void bench_server_options(const struct bench_args *a, rf_server_options *ret)
{
    const struct cli_serve_args *s = &a->serve;
    rf_server_options_init(ret);
    ret->command = bench_command();
    ret->ranks = (uint32_t)a->order.ranks;
    ret->first_rank = (uint32_t)a->order.first_rank;
    ret->start_epoch = a->order.start_epoch;
    ret->workers = (uint32_t)s->workers;
    ret->prefetch = s->prefetch;
    ret->ring_bytes = s->ring_bytes;
    ret->cache_bytes = s->cache_bytes;
    ret->queue_depth = (uint32_t)s->queue_depth;
    ret->cpu_budget = (uint32_t)s->cpu_budget;
    ret->engine = (rf_engine)s->engine;
    ret->direct = (rf_switch)s->direct;
    ret->pin = s->pin ? RF_OFF : RF_AUTO;
    ret->numa = s->numa ? RF_OFF : RF_AUTO;
    ret->heartbeat_ms = (uint32_t)s->heartbeat_ms;
    ret->max_restarts = (uint32_t)s->max_restarts;
    ret->spares = s->spares == CLI_SPARES_CHOSEN ? -1 : (int)s->spares;
    ret->replication = (uint32_t)s->replication;
    ret->slow_ratio = s->slow_ratio;
    ret->mirrors = (const char *const *)s->mirrors.items;
    ret->n_mirrors = s->mirrors.n;
    ret->hedge_ms = (uint32_t)s->hedge_ms;
    ret->on_error = (rf_on_error)s->on_error;
    ret->rebalance_threshold = a->order.rebalance_threshold;
    ret->rebalance_off = a->order.rebalance_off;
}

void bench_setup_init(const struct bench_args *a, struct bench_setup *ret)
{
    *ret = (struct bench_setup){.name = bench_run_name(a),
                                .epochs = a->order.epochs_given ? a->order.epochs : 1,
                                .ramp_ns = (uint64_t)llround(a->ramp_s * 1e9),
                                .runtime_ns = (uint64_t)llround(a->runtime_s * 1e9),
                                .runs = a->runs,
                                .bare = a->bare == 0,
                                .limit = a->limit == 0,
                                .step = {.touch = a->touch},
                                .interrupted = &bench_interrupted};
    bench_server_options(a, &ret->server);
}

int bench_fail(const struct rfi_error *err)
{
    return err->code == -EINVAL ? cli_usage("%s", err->text) : cli_fail(err->text);
}

void bench_emit_dataset(struct cli_emit *e, rf_dataset *d)
{
    rf_dataset_info info;
    rf_dataset_get_info(d, &info);
    cli_emit_object(e, "dataset");
    cli_emit_str(e, "format", info.format);
    cli_emit_u64(e, "files", info.files);
    cli_emit_u64(e, "samples", info.samples);
    cli_emit_bytes(e, "bytes", info.bytes);
    cli_emit_f64(e, "mean_bytes", info.mean_bytes, 1);
    cli_emit_str(e, "fingerprint", info.fingerprint);
    cli_emit_close(e);
}

void bench_emit_order(struct cli_emit *e, const struct bench_args *a)
{
    const rf_order_options *o = &a->order.o;
    cli_emit_object(e, "order");
    cli_emit_u64(e, "batch", o->batch);
    cli_emit_u64(e, "world_size", o->world_size);
    cli_emit_u64(e, "ranks", a->order.ranks);
    cli_emit_str(e, "strategy", rfi_strategy_names[o->strategy]);
    cli_emit_str(e, "shuffle", rfi_shuffle_names[o->shuffle]);
    cli_emit_str(e, "tail", rfi_tail_names[o->tail]);
    cli_emit_u64(e, "seed", o->seed);
    if (a->runtime_s > 0)
        cli_emit_f64(e, "runtime_s", a->runtime_s, 3);
    else
        cli_emit_u64(e, "epochs", a->order.epochs_given ? a->order.epochs : 1);
    cli_emit_f64(e, "ramp_time_s", a->ramp_s, 3);
    cli_emit_close(e);
}
