/* One worker and one trainer of a whole run in one process and thread, so that a tool can count what a batch costs:
 * claim, order, plan, copy, publish, take, release. No process is forked and nobody waits.
 *
 *     worker_cost [--batches N] [--batch B] [--engine auto|uring|pread|null|mapped] [--record-bytes N] FILE
 *
 * Prints one JSON object: batches, samples, seconds, ns_a_sample. bench/check_cost.py counts its instructions. */
#include "coordinator/internal.h"

#include "base/clock.h"
#include "worker/job.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    uint64_t batches, batch, record_bytes;
    rf_engine engine;
};

static int complain(const char *what)
{
    fprintf(stderr, "worker_cost: %s\n", what);
    return 1;
}

/* The trainer's half: as rf_next and rf_release, without their checks. */
static void take_and_release(struct rfi_ring *r, uint64_t *next)
{
    while (rfi_ring_look(r, *next) == RFI_TAKE_READY)
        rfi_ring_release(r, ++*next);
}

static int go(struct rfi_coordinator *c, uint64_t batches)
{
    struct rfi_jobs jobs;
    struct rfi_ring *ring = &c->run.rings[0];
    uint64_t taken = 0, t0;
    c->setup.worker_node = c->placement.worker_node[0];
    c->run.workers[0].queue = 0;
    if (rfi_jobs_init(&jobs, &c->setup, 0) < 0)
        return complain("out of memory");
    t0 = rfi_now_ns();
    while (taken < batches) {
        while (taken + jobs.used < batches && rfi_jobs_claim(&jobs, 0) > 0)
            rfi_jobs_issue(&jobs);
        rfi_jobs_issue(&jobs);
        if (jobs.in_flight && rfi_jobs_reap(&jobs, 1000000) < 0)
            return complain("the reader failed");
        uint64_t before = taken;
        take_and_release(ring, &taken);
        if (taken == before && !jobs.used)
            return complain("stuck: an error, or fewer batches than asked for");
    }
    double seconds = (double)(rfi_now_ns() - t0) / 1e9;
    uint64_t samples = taken * c->run.config.batch;
    printf("{\"batches\":%llu,\"samples\":%llu,\"seconds\":%.6f,\"ns_a_sample\":%.1f}\n", (unsigned long long)taken,
           (unsigned long long)samples, seconds, seconds * 1e9 / (double)samples);
    return 0;
}

static int serve(const struct options *o, rf_dataset *dataset)
{
    struct rfi_error err = {0};
    rf_order_options order;
    char name[32];
    rf_order_options_init(&order);
    order.world_size = 1;
    order.batch = o->batch;
    order.shuffle = RF_SHUFFLE_FULL;
    snprintf(name, sizeof name, "worker-cost-%d", (int)getpid());
    struct rfi_serve_options options = {.name = name,
                                        .dataset = rfi_dataset_of(dataset),
                                        .order = &order,
                                        .ranks = 1,
                                        .workers = 1,
                                        .engine = o->engine,
                                        .direct = RF_OFF,
                                        .heartbeat_ms = 1000,
                                        .timeout_ms = 1000,
                                        .numa = RF_OFF};
    struct rfi_coordinator c = {.o = &options, .err = &err};
    int rc = rfi_birth(&c) < 0 ? complain(err.text) : go(&c, o->batches);
    rfi_death(&c);
    return rc;
}

static const struct option long_options[] = {{"batches", required_argument, NULL, 'n'},
                                             {"batch", required_argument, NULL, 'b'},
                                             {"engine", required_argument, NULL, 'e'},
                                             {"record-bytes", required_argument, NULL, 'r'},
                                             {NULL, 0, NULL, 0}};

static bool set_engine(const char *text, rf_engine *ret)
{
    static const char *const names[] = {"auto", "uring", "pread", "null", "mapped"};
    for (int i = 0; i < 5; i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = (rf_engine)i;
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    struct options o = {.batches = 1000, .batch = 256, .record_bytes = 2048, .engine = RF_ENGINE_MAPPED};
    bool ok = true;
    for (int c; ok && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        uint64_t v = strtoull(optarg ? optarg : "", NULL, 10);
        if (c == 'n')
            o.batches = v;
        else if (c == 'b')
            o.batch = v;
        else if (c == 'r')
            o.record_bytes = v;
        else
            ok = c == 'e' && set_engine(optarg, &o.engine);
    }
    if (!ok || optind + 1 != argc || !o.batch || !o.batches)
        return complain("usage: worker_cost [--batches N] [--batch B] [--engine NAME] [--record-bytes N] FILE");
    rf_dataset_options options;
    rf_dataset *dataset;
    rf_dataset_options_init(&options);
    options.paths = (const char *const *)argv + optind;
    options.n_paths = 1;
    options.format = "raw";
    options.record_bytes = o.record_bytes;
    if (rf_dataset_open(&options, &dataset) < 0)
        return complain(rf_last_error());
    int rc = serve(&o, dataset);
    rf_dataset_close(dataset);
    return rc;
}
