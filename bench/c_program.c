/* What somebody would write in an afternoon instead of using a loader: one thread a rank inside the trainer, the files
 * mapped, a shuffled array of sample numbers, memcpy into memory that is used again. No processes, no recovery, no exact
 * resume, a list of all samples in memory. The bar that `ringfeed serve` is measured against.
 *
 *     c_program [--threads N] [--epochs E] [--batch B] [--pread] DATASET… [--format F] [--record-bytes N]
 *
 * Prints one JSON object: samples, bytes, seconds, samples_per_s, bytes_per_s, cpu_seconds. The list of samples is made
 * and the files are mapped before the clock starts; page tables fill in the first epoch, as they do for ringfeed. */
#include "base/clock.h"
#include "dataset/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
    const unsigned char *base;
    int fd;
};

struct sample {
    uint64_t offset;
    uint32_t file, bytes;
};

struct program {
    struct file *files;
    struct sample *samples;
    uint64_t n, largest;
    uint64_t epochs, batch;
    uint32_t threads;
    bool pread;
};

struct worker {
    const struct program *p;
    uint32_t number;
    uint64_t samples, bytes;
    int error;
    pthread_t thread;
};

static int complain(const char *what, int error)
{
    fprintf(stderr, "c_program: %s: %s\n", what, strerror(error));
    return -1;
}

static uint64_t random_below(uint64_t *state, uint64_t n)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint64_t)((unsigned __int128)*state * n >> 64);
}

static int copy_one(const struct program *p, const struct sample *s, unsigned char *to)
{
    const struct file *f = &p->files[s->file];
    if (p->pread)
        return pread(f->fd, to, s->bytes, (off_t)s->offset) == (ssize_t)s->bytes ? 0 : EIO;
    memcpy(to, f->base + s->offset, s->bytes);
    return 0;
}

/* Every threads-th sample of the shuffled list, in batches, into two buffers that take turns. */
static void *run(void *arg)
{
    struct worker *w = arg;
    const struct program *p = w->p;
    uint64_t room = p->batch * p->largest, in_batch = 0;
    unsigned char *memory = malloc(2 * room), *buffer = memory;
    if (!memory) {
        w->error = ENOMEM;
        return NULL;
    }
    memset(memory, 0, 2 * room);
    for (uint64_t epoch = 0; epoch < p->epochs && !w->error; epoch++)
        for (uint64_t i = w->number; i < p->n && !w->error; i += p->threads) {
            const struct sample *s = &p->samples[i];
            w->error = copy_one(p, s, buffer + in_batch * p->largest);
            w->bytes += s->bytes;
            w->samples++;
            if (++in_batch == p->batch) {
                in_batch = 0;
                buffer = buffer == memory ? memory + room : memory;
            }
        }
    free(memory);
    return NULL;
}

static int open_files(struct program *p, const struct rfi_dataset *d)
{
    uint32_t n = rfi_dataset_n_files(d);
    p->files = calloc(n + 1u, sizeof *p->files);
    for (uint32_t i = 0; p->files && i < n; i++) {
        struct rfi_file file;
        struct stat st;
        rfi_dataset_file(d, i, &file);
        p->files[i].fd = open(file.path, O_RDONLY | O_CLOEXEC);
        if (p->files[i].fd < 0 || fstat(p->files[i].fd, &st) < 0)
            return complain(file.path, errno);
        p->files[i].base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, p->files[i].fd, 0);
        if (p->files[i].base == MAP_FAILED)
            return complain(file.path, errno);
    }
    return p->files ? 0 : complain("files", ENOMEM);
}

static int list_samples(struct program *p, const struct rfi_dataset *d)
{
    uint64_t state = 88172645463325252u;
    p->n = rfi_dataset_samples(d);
    p->samples = calloc(p->n + 1, sizeof *p->samples);
    if (!p->samples)
        return complain("samples", ENOMEM);
    for (uint64_t i = 0; i < p->n; i++) {
        struct rfi_extent e;
        if (rfi_dataset_extent(d, i, &e) < 0 || e.bytes > UINT32_MAX)
            return complain("samples", EBADMSG);
        p->samples[i] = (struct sample){.offset = e.offset, .file = e.file, .bytes = (uint32_t)e.bytes};
        p->largest = e.bytes > p->largest ? e.bytes : p->largest;
    }
    for (uint64_t i = p->n; i > 1; i--) {
        uint64_t j = random_below(&state, i);
        struct sample s = p->samples[i - 1];
        p->samples[i - 1] = p->samples[j];
        p->samples[j] = s;
    }
    return 0;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int measure(const struct program *p)
{
    struct worker *w = calloc(p->threads, sizeof *w);
    uint64_t samples = 0, bytes = 0, t0 = rfi_now_ns();
    double cpu = cpu_seconds();
    int error = w ? 0 : ENOMEM;
    for (uint32_t i = 0; !error && i < p->threads; i++) {
        w[i] = (struct worker){.p = p, .number = i};
        error = pthread_create(&w[i].thread, NULL, run, &w[i]);
    }
    for (uint32_t i = 0; !error && i < p->threads; i++) {
        pthread_join(w[i].thread, NULL);
        samples += w[i].samples;
        bytes += w[i].bytes;
        error = w[i].error;
    }
    free(w);
    if (error)
        return complain("thread", error);
    double seconds = (double)(rfi_now_ns() - t0) / 1e9;
    printf("{\"samples\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"samples_per_s\":%.0f,\"bytes_per_s\":%.0f,"
           "\"cpu_seconds\":%.6f}\n",
           (unsigned long long)samples, (unsigned long long)bytes, seconds, (double)samples / seconds,
           (double)bytes / seconds, cpu_seconds() - cpu);
    return 0;
}

static const struct option long_options[] = {
    {"threads", required_argument, NULL, 't'},      {"epochs", required_argument, NULL, 'e'},
    {"batch", required_argument, NULL, 'b'},        {"pread", no_argument, NULL, 'p'},
    {"format", required_argument, NULL, 'f'},       {"record-bytes", required_argument, NULL, 'r'},
    {"header-bytes", required_argument, NULL, 'H'}, {NULL, 0, NULL, 0}};

static bool parse(int argc, char **argv, struct program *p, rf_dataset_options *d)
{
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        uint64_t v = optarg ? strtoull(optarg, NULL, 10) : 0;
        if (c == 't')
            p->threads = (uint32_t)v;
        else if (c == 'e')
            p->epochs = v;
        else if (c == 'b')
            p->batch = v;
        else if (c == 'p')
            p->pread = true;
        else if (c == 'f')
            d->format = optarg;
        else if (c == 'r')
            d->record_bytes = v;
        else if (c == 'H')
            d->header_bytes = v;
        else
            return false;
    }
    d->paths = (const char *const *)argv + optind;
    d->n_paths = (size_t)(argc - optind);
    return d->n_paths && p->threads && p->epochs && p->batch;
}

int main(int argc, char **argv)
{
    struct program p = {.threads = 2, .epochs = 1, .batch = 256};
    rf_dataset_options options;
    rf_dataset *dataset;
    rf_dataset_options_init(&options);
    if (!parse(argc, argv, &p, &options)) {
        fprintf(stderr, "usage: c_program [--threads N] [--epochs E] [--batch B] [--pread] DATASET… [--format F]\n"
                        "                 [--record-bytes N] [--header-bytes N]\n");
        return 2;
    }
    if (rf_dataset_open(&options, &dataset) < 0) {
        fprintf(stderr, "c_program: %s\n", rf_last_error());
        return 1;
    }
    int rc = open_files(&p, rfi_dataset_of(dataset));
    if (rc == 0)
        rc = list_samples(&p, rfi_dataset_of(dataset));
    if (rc == 0)
        rc = measure(&p);
    free(p.files);
    free(p.samples);
    rf_dataset_close(dataset);
    return rc == 0 ? 0 : 1;
}
