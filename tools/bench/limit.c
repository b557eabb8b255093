#include "bench/limit.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "bench/machine.h"
#include "bench/random.h"
#include "plan/plan.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILES_MOST = 256,
    PROBE_READS = 4096,
    LARGE = 1 << 20,
    SMALL = 4096,
    COPY_BYTES = 64 << 20,
    COPIES = 6,
    THREADS_MOST = 64
};
static const uint64_t PROBE_NS = 500000000, PROBE_RAMP_NS = 100000000;

/* The same places in every probe of a dataset. */
static uint64_t next_random(uint64_t *state)
{
    return bench_mix(*state += BENCH_GOLDEN);
}

/* ---- the device ---- */

struct probed {
    uint32_t files[FILES_MOST]; /* of the dataset, spread evenly */
    uint32_t n;
};

static int add_random(const struct rfi_dataset *d, const struct probed *p, struct reads *r, uint64_t bytes,
                      uint64_t *state, struct rfi_error *err)
{
    for (size_t i = 0; i < PROBE_READS; i++) {
        uint32_t f = (uint32_t)(next_random(state) % p->n);
        uint64_t file = rfi_dataset_file_bytes(d, p->files[f]), whole = rfi_align_down(rfi_min(bytes, file), r->align);
        if (whole == 0)
            continue;
        uint64_t at = rfi_align_down(next_random(state) % (file - whole + 1), r->align);
        if (reads_extent(r, f, at, whole, err) < 0)
            return err->code;
    }
    return 0;
}

/* A list of random O_DIRECT reads for each loop; n stays 0 where there is nothing to read. */
static int make_lists(const struct rfi_dataset *d, uint64_t bytes, uint64_t align, struct reads *lists, unsigned loops,
                      struct rfi_error *err)
{
    struct probed p = {.n = (uint32_t)rfi_min(rfi_dataset_n_files(d), FILES_MOST)};
    uint64_t state = bytes;
    int rc = 0;
    for (unsigned i = 0; i < loops && rc == 0; i++) {
        lists[i] = (struct reads){.align = align, .piece = LARGE, .direct = true};
        for (uint32_t f = 0; f < p.n && rc == 0; f++) {
            struct rfi_file file;
            uint32_t number;
            p.files[f] = (uint32_t)((uint64_t)f * rfi_dataset_n_files(d) / p.n);
            rfi_dataset_file(d, p.files[f], &file);
            rc = reads_file(&lists[i], file.path, &number, err);
        }
        if (rc == 0)
            rc = add_random(d, &p, &lists[i], rfi_max(bytes, align), &state, err);
    }
    return rc;
}

static int probe(const struct rfi_dataset *d, uint64_t bytes, uint64_t align, uint32_t depth, unsigned loops,
                 const volatile sig_atomic_t *interrupted, struct bare_result *ret, struct rfi_error *err)
{
    struct bare_options o = {.depth = depth,
                             .buffer_bytes = rfi_max(4 * LARGE, (uint64_t)depth * (bytes + 2 * align)),
                             .direct = true,
                             .fixed_buffers = true,
                             .ramp_ns = PROBE_RAMP_NS,
                             .runtime_ns = PROBE_NS};
    struct reads *lists = calloc(loops, sizeof *lists);
    *ret = (struct bare_result){0};
    int rc = lists ? make_lists(d, bytes, align, lists, loops, err) : rfi_fail(err, ENOMEM, "out of memory");
    if (rc == 0 && lists[0].n)
        rc = bench_beside(lists, loops, &o, interrupted, ret, err);
    for (unsigned i = 0; i < loops && lists; i++)
        reads_free(&lists[i]);
    free(lists);
    return rc;
}

static int measure_device(const struct rfi_dataset *d, unsigned loops, const volatile sig_atomic_t *interrupted,
                          struct bench_limit *ret, struct rfi_error *err)
{
    struct bare_result large, small;
    uint64_t align;
    bool direct;
    int rc = rfi_plan_align(d, &align, &direct, err);
    if (rc == 0 && !direct)
        rc = rfi_fail(err, ENOTSUP, "its files do not take O_DIRECT");
    if (rc == 0)
        rc = probe(d, LARGE, align, 32, loops, interrupted, &large, err);
    if (rc == 0)
        rc = probe(d, SMALL, align, 128, loops, interrupted, &small, err);
    if (rc == -EINTR)
        return rc;
    if (rc == 0 && large.seconds > 0 && small.seconds > 0) {
        ret->device_bytes_per_s = (double)large.bytes / large.seconds;
        ret->device_iops = (double)small.reads / small.seconds;
    } else {
        snprintf(ret->not_probed, sizeof ret->not_probed, "%.190s", rc < 0 ? err->text : "its files are too small");
    }
    return 0;
}

/* ---- the memory ---- */

struct copier {
    unsigned char *from, *to;
};

static void *copy(void *arg)
{
    struct copier *c = arg;
    for (int i = 0; i < COPIES; i++)
        memcpy(c->to, c->from, COPY_BYTES);
    return NULL;
}

static bool touch(struct copier *c)
{
    c->from = malloc(COPY_BYTES);
    c->to = malloc(COPY_BYTES);
    if (c->from && c->to) {
        memset(c->from, 1, COPY_BYTES);
        memset(c->to, 2, COPY_BYTES);
    }
    return c->from && c->to;
}

/* A copying thread a core; bytes over the bus: each copied byte is loaded and stored. */
static double measure_memory(unsigned cores)
{
    struct copier c[THREADS_MOST] = {{0}};
    pthread_t threads[THREADS_MOST];
    unsigned n = cores < THREADS_MOST ? cores : THREADS_MOST, touched = 0, started = 0;
    while (touched < n && touch(&c[touched]))
        touched++;
    uint64_t from = rfi_now_ns();
    while (started < touched && pthread_create(&threads[started], NULL, copy, &c[started]) == 0)
        started++;
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    double seconds = (double)(rfi_now_ns() - from) * 1e-9;
    for (unsigned i = 0; i < n; i++) {
        free(c[i].from);
        free(c[i].to);
    }
    return seconds > 0 ? 2.0 * COPY_BYTES * COPIES * started / seconds : 0;
}

int bench_limit_measure(const struct rfi_dataset *d, unsigned loops, const volatile sig_atomic_t *interrupted,
                        struct bench_limit *ret, struct rfi_error *err)
{
    *ret = (struct bench_limit){.binds = -1, .cores = bench_cores()};
    ret->memory_bytes_per_s = measure_memory(ret->cores);
    return measure_device(d, loops, interrupted, ret, err);
}

/* ---- what follows ---- */

/* Over the bus: O_DIRECT, stored once by the device; cached, loaded and stored by the copy; not cached, stored in the
 * cache before that; touched, loaded once more. */
static double passes_of(const struct bench_run *run, double device_part, bool touched)
{
    double passes = run->chosen.direct ? 1 : 2 + (device_part < 1 ? device_part : 1);
    return passes + (touched ? 1 : 0);
}

void bench_limit_apply(struct bench_limit *l, const struct bench_run *run, const struct bare_result *bare,
                       double delivered_part, bool touched)
{
    double delivered = (double)run->window.bytes;
    if (delivered <= 0)
        return;
    uint64_t from_device = run->io_known ? run->io_bytes : run->device_known ? run->device.bytes : 0;
    l->device_part = (double)from_device / delivered;
    bool uses_device = l->device_part > 0.01;
    if (uses_device && l->device_bytes_per_s > 0)
        l->terms[BENCH_DEVICE_BANDWIDTH] = l->device_bytes_per_s / l->device_part;
    if (uses_device && l->device_iops > 0 && run->device_known && run->device.reads) {
        l->device_read_bytes = delivered / (double)run->device.reads;
        l->terms[BENCH_DEVICE_IOPS] = l->device_iops * l->device_read_bytes;
    }
    if (bare && bare->bytes && bare->cpu_seconds > 0) {
        l->cpu_s_per_byte = bare->cpu_seconds / ((double)bare->bytes * delivered_part);
        l->terms[BENCH_CPU] = l->cores / l->cpu_s_per_byte;
    }
    l->passes = passes_of(run, l->device_part, touched);
    l->terms[BENCH_MEMORY] = l->memory_bytes_per_s / l->passes;
    for (int i = 0; i < BENCH_TERMS; i++)
        if (l->terms[i] > 0 && (l->binds < 0 || l->terms[i] < l->terms[l->binds]))
            l->binds = i;
}
