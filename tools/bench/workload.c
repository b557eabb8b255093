/* `bench --workload`: MLPerf Storage's training shapes. datasize says how much data the rules ask for, datagen makes
 * it, run feeds emulated accelerators from it and says how busy they were kept. */
#include "bench/workload.h"

#include "bench/machine.h"
#include "bench/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char default_folder[] = "/var/tmp/ringfeed-bench";

__attribute__((format(printf, 1, 2))) static int fail(const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return cli_fail(text);
}

enum step { DATASIZE, DATAGEN, RUN };

/* ---- what was asked for ---- */

static int no_time(const struct bench_shape *s, const char *accelerator)
{
    char known[128] = "";
    size_t n = 0;
    for (int i = 0; i < BENCH_ACCELERATORS; i++)
        if (s->step_s[i] > 0)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", bench_accelerator_names[i]);
    return cli_usage("bench: %s%s%s has no published time a step (%s has: %s). Choose one of them, or give --step-ms, "
                     "which has no pass mark",
                     s->name, accelerator ? " on " : "", accelerator ? accelerator : "", s->name, n ? known : "none");
}

/* The time of a step from the table, or the user's own. */
static int choose_time(const struct bench_args *a, struct bench_job *j)
{
    if (a->step_given) {
        j->step_ns = (uint64_t)llround(a->step_ms * 1e6);
        j->mark = 0;
        return CLI_OK;
    }
    double s = a->accelerator_given ? j->shape->step_s[a->accelerator] : 0;
    if (s <= 0)
        return no_time(j->shape, a->accelerator_given ? bench_accelerator_names[a->accelerator] : NULL);
    j->step_ns = (uint64_t)llround(s * 1e9);
    j->mark = j->shape->mark;
    j->published = true;
    return CLI_OK;
}

/* `[datasize|datagen|run] [FOLDER]` */
static int read_words(const struct bench_args *a, enum step *ret_step, const char **ret_folder)
{
    static const char *const steps[] = {"datasize", "datagen", "run"};
    size_t at = 0;
    *ret_step = RUN;
    *ret_folder = default_folder;
    for (int i = 0; i < 3 && a->paths.n; i++)
        if (strcmp(a->paths.items[0], steps[i]) == 0) {
            *ret_step = (enum step)i;
            at = 1;
        }
    if (at < a->paths.n)
        *ret_folder = a->paths.items[at++];
    if (at < a->paths.n)
        return cli_usage("bench: %s: one folder is enough. Say [datasize|datagen|run] [FOLDER]", a->paths.items[at]);
    return CLI_OK;
}

static uint64_t host_memory(const struct bench_args *a)
{
    return a->host_memory ? a->host_memory : (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Free space where the folder is, or will be. */
static uint64_t free_bytes(const char *folder)
{
    char path[PATH_MAX];
    struct statvfs fs;
    snprintf(path, sizeof path, "%s", folder);
    while (statvfs(path, &fs) < 0) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path)
            return statvfs(slash ? "/" : ".", &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
        *slash = 0;
    }
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* ---- datasize ---- */

static void emit_asked(struct cli_emit *e, const struct bench_args *a, const struct bench_shape *s)
{
    cli_emit_str(e, "workload", s->name);
    cli_emit_u64(e, "accelerators", a->accelerators);
    cli_emit_u64(e, "batch", s->batch);
    cli_emit_u64(e, "sample_bytes", s->sample_bytes);
    cli_emit_u64(e, "sample_bytes_deviation", s->deviation);
    cli_emit_f64(e, "scale", a->scale, 6);
}

static int datasize(const struct bench_args *a, const struct bench_shape *s, const char *folder)
{
    struct cli_emit e;
    uint64_t memory = host_memory(a), samples = bench_shape_samples(s, a->scale, a->accelerators, memory);
    uint64_t bytes = (uint64_t)llround((double)samples * (double)s->sample_bytes * a->scale);
    cli_emit_begin(&e, a->json);
    cli_emit_str(&e, "bench", "datasize");
    emit_asked(&e, a, s);
    cli_emit_bytes(&e, "host_memory_bytes", memory);
    cli_emit_u64(&e, "samples", samples);
    cli_emit_u64(&e, "files", samples / s->samples_a_file);
    cli_emit_u64(&e, "samples_a_file", s->samples_a_file);
    cli_emit_bytes(&e, "bytes", bytes);
    cli_emit_u64(&e, "steps_an_epoch", samples / (s->batch * a->accelerators));
    cli_emit_str(&e, "folder", folder);
    cli_emit_bytes(&e, "free_bytes", free_bytes(folder));
    cli_emit_bool(&e, "fits", bytes <= free_bytes(folder));
    return cli_emit_end(&e);
}

/* ---- datagen ---- */

/* As many samples as the rules ask for, or as --bytes holds, or half of the free space: the least of them. */
static int choose_samples(const struct bench_args *a, const char *folder, struct bench_data *d)
{
    const struct bench_shape *s = d->shape;
    double bytes = fmax((double)s->sample_bytes * d->scale, 1);
    uint64_t asked = bench_shape_samples(s, d->scale, a->accelerators, host_memory(a)),
             least = s->batch * a->accelerators;
    double room = a->bytes ? (double)a->bytes : (double)free_bytes(folder) / 2;
    uint64_t n = (uint64_t)fmin((double)asked, room / bytes);
    if (a->bytes)
        n = (uint64_t)(room / bytes);
    if (n > s->samples_a_file)
        n -= n % s->samples_a_file;
    d->samples = n;
    if (n >= least)
        return CLI_OK;
    return fail("bench: %s: %.0f bytes hold %llu samples of %.0f bytes, and one step of %llu accelerators takes "
                "%llu. Give more --bytes, or smaller samples by --scale",
                folder, room, (unsigned long long)n, bytes, (unsigned long long)a->accelerators,
                (unsigned long long)least);
}

static void on_bytes(void *ctx, uint64_t bytes)
{
    cli_progress_at(ctx, bytes, "bytes");
}

/* The same data again is no work; other data in its place is not overwritten. */
static int check_place(const struct bench_data *d)
{
    struct bench_data there = *d;
    struct rfi_error err = {0};
    int rc = bench_data_find(&there, &err);
    if (rc < 0)
        return bench_fail(&err);
    if (rc == 0 || (there.scale == d->scale && there.seed == d->seed && there.samples == d->samples))
        return CLI_OK;
    return fail("bench: %s: holds %llu samples at scale %g, seed %llu, and %llu at %g, seed %llu are to be made. "
                "Remove it, or choose another folder",
                d->folder, (unsigned long long)there.samples, there.scale, (unsigned long long)there.seed,
                (unsigned long long)d->samples, d->scale, (unsigned long long)d->seed);
}

static int datagen(const struct bench_args *a, const struct bench_shape *s, const char *folder)
{
    struct bench_data d = {.shape = s, .scale = a->scale, .seed = a->order.o.seed};
    struct rfi_error err = {0};
    struct cli_progress progress;
    struct cli_emit e;
    int code = bench_data_place(&d, folder, &err) < 0 ? bench_fail(&err) : choose_samples(a, folder, &d);
    if (code != CLI_OK || (code = check_place(&d)) != CLI_OK)
        return code;
    uint64_t bytes = bench_data_bytes(&d);
    cli_progress_begin(&progress, "writing", bytes);
    int rc = bench_data_make(&d, on_bytes, &progress, &bench_interrupted, &err);
    cli_progress_end(&progress);
    if (rc < 0)
        return bench_fail(&err);
    uint64_t asked = bench_shape_samples(s, d.scale, a->accelerators, host_memory(a));
    cli_emit_begin(&e, a->json);
    cli_emit_str(&e, "bench", "datagen");
    emit_asked(&e, a, s);
    cli_emit_str(&e, "folder", d.folder);
    cli_emit_u64(&e, "seed", d.seed);
    cli_emit_u64(&e, "samples", d.samples);
    cli_emit_u64(&e, "files", bench_data_files(&d));
    cli_emit_bytes(&e, "bytes", bytes);
    cli_emit_f64(&e, "part_of_rules", (double)d.samples / (double)asked, 4);
    return cli_emit_end(&e);
}

/* ---- run ---- */

static int open_dataset(const struct bench_data *d, rf_dataset **ret)
{
    const char *const paths[] = {d->files};
    rf_dataset_options o;
    rf_dataset_options_init(&o);
    o.paths = paths;
    o.n_paths = 1;
    o.format = d->shape->layout == BENCH_RECORDS ? "raw" : d->shape->layout == BENCH_TFRECORD ? "tfrecord" : "files";
    o.record_bytes = d->shape->layout == BENCH_RECORDS ? bench_shape_bytes(d->shape, d->scale, d->seed, 0) : 0;
    return rf_dataset_open(&o, ret) < 0 ? cli_fail(rf_last_error()) : CLI_OK;
}

static int find_data(struct bench_job *j, const char *folder)
{
    struct rfi_error err = {0};
    j->data.shape = j->shape;
    if (bench_data_place(&j->data, folder, &err) < 0)
        return bench_fail(&err);
    int rc = bench_data_find(&j->data, &err);
    if (rc < 0)
        return bench_fail(&err);
    if (rc == 0 || !j->data.complete)
        return fail("bench: %s: %s. Make it: ringfeed bench datagen %s --workload %s", j->data.folder,
                    rc ? "the data is not complete" : "no data is there", folder, j->shape->name);
    return CLI_OK;
}

/* Batches are the shape's, ranks the accelerators, all as long as each other. */
static void set_order(struct bench_args *a, const struct bench_job *j)
{
    a->order.o.batch = j->shape->batch;
    a->order.o.tail = RF_TAIL_DROP;
    a->order.o.shuffle = RF_SHUFFLE_FULL;
    if (!a->cache_given)
        a->cache = BENCH_CACHE_AS_IS;
}

static int run(struct bench_args *a, struct bench_job *j, const char *folder)
{
    rf_dataset *named = NULL;
    struct rfi_error err = {0};
    int code = find_data(j, folder);
    if (code == CLI_OK)
        code = open_dataset(&j->data, &named);
    if (code != CLI_OK)
        return code;
    set_order(a, j);
    if (bench_source_open(named, 0, &j->source, &err) < 0) {
        code = bench_fail(&err);
    } else {
        bench_devices_find(rfi_dataset_of(named), &j->devices);
        code = a->find_max ? bench_accelerate_most(a, j) : bench_accelerate(a, j);
        bench_source_close(&j->source);
    }
    rf_dataset_close(named);
    return code;
}

int bench_workload(struct bench_args *a)
{
    struct bench_job j = {.shape = &bench_shapes[a->workload]};
    const char *folder;
    enum step step;
    int code = read_words(a, &step, &folder);
    if (code == CLI_OK && (step == RUN || a->accelerator_given))
        code = choose_time(a, &j);
    if (code != CLI_OK)
        return code;
    if (step == DATASIZE)
        return datasize(a, j.shape, folder);
    return step == DATAGEN ? datagen(a, j.shape, folder) : run(a, &j, folder);
}
