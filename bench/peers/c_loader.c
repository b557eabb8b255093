/* The baselines that a loader has to be worth its name against: a plain program of a few threads that copies samples
 * into reused buffers, by memcpy from mapped files or by pread. No prefetch, no other process, no device queue.
 *
 *     c_loader mmap|pread FOLDER --rank R --batch B --threads T [--seconds S] [--step-us N]
 *
 * FOLDER is a job of `ringfeed bench --compare` (bench/peers/README.md). The threads take whole batches in turn. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MOST = 256 };

struct sample {
    uint32_t file, reserved;
    uint64_t offset, bytes;
};

struct job {
    bool map;
    const char *folder;
    unsigned rank, threads;
    uint64_t batch;
    double seconds;
    uint64_t step_ns;
    struct sample *samples;
    uint64_t *order; /* [n] */
    uint64_t n;
    char *text; /* of files.txt: `files` lead into it */
    char **files;
    unsigned char **maps;
    size_t *sizes;
    int *fds;
    size_t n_files;
    _Atomic uint64_t next; /* batch that nobody has taken */
    uint64_t until_ns; /* 0: none */
};

struct thread {
    struct job *job;
    pthread_t id;
    unsigned char *buffer; /* one batch; used again and again */
    uint64_t samples, bytes;
};

static void die(const char *what)
{
    fprintf(stderr, "c_loader: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A whole file of the job, and its size. */
static void *slurp(const struct job *j, const char *name, size_t *ret_bytes)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", j->folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die(path);
    unsigned char *p = malloc((size_t)st.st_size + 1);
    for (off_t at = 0; p && at < st.st_size;) {
        ssize_t n = read(fd, p + at, (size_t)(st.st_size - at));
        if (n <= 0)
            die(path);
        at += n;
    }
    if (!p)
        die(path);
    close(fd);
    p[st.st_size] = 0;
    *ret_bytes = (size_t)st.st_size;
    return p;
}

static void grow(struct job *j, size_t cap)
{
    j->files = realloc(j->files, cap * sizeof *j->files);
    j->maps = realloc(j->maps, cap * sizeof *j->maps);
    j->sizes = realloc(j->sizes, cap * sizeof *j->sizes);
    j->fds = realloc(j->fds, cap * sizeof *j->fds);
    if (!j->files || !j->maps || !j->sizes || !j->fds)
        die("files");
}

static void open_file(struct job *j, char *path)
{
    size_t i = j->n_files++;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die(path);
    j->files[i] = path;
    j->fds[i] = fd;
    j->maps[i] = NULL;
    j->sizes[i] = (size_t)st.st_size;
    if (!j->map || !st.st_size)
        return;
    j->maps[i] = mmap(NULL, j->sizes[i], PROT_READ, MAP_SHARED, fd, 0);
    if (j->maps[i] == MAP_FAILED)
        die(path);
}

static void open_files(struct job *j)
{
    size_t bytes, cap = 0;
    j->text = slurp(j, "files.txt", &bytes);
    for (char *line = strtok(j->text, "\n"); line; line = strtok(NULL, "\n")) {
        if (j->n_files == cap)
            grow(j, cap = cap ? 2 * cap : 64);
        open_file(j, line);
    }
}

static void close_job(struct job *j)
{
    for (size_t i = 0; i < j->n_files; i++) {
        if (j->maps[i])
            munmap(j->maps[i], j->sizes[i]);
        close(j->fds[i]);
    }
    free(j->files);
    free(j->maps);
    free(j->sizes);
    free(j->fds);
    free(j->text);
    free(j->samples);
    free(j->order);
}

static void read_job(struct job *j)
{
    char name[64];
    size_t bytes;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    j->samples = slurp(j, "samples.bin", &bytes);
    snprintf(name, sizeof name, "order-%u.bin", j->rank);
    j->order = slurp(j, name, &bytes);
    j->n = bytes / sizeof *j->order;
    open_files(j);
}

static void copy_sample(const struct job *j, const struct sample *s, unsigned char *to)
{
    if (j->map) {
        memcpy(to, j->maps[s->file] + s->offset, s->bytes);
        return;
    }
    for (uint64_t done = 0; done < s->bytes;) {
        ssize_t n = pread(j->fds[s->file], to + done, s->bytes - done, (off_t)(s->offset + done));
        if (n <= 0)
            die(j->files[s->file]);
        done += (uint64_t)n;
    }
}

/* The largest batch of the order: the buffer is made once, and touched. */
static unsigned char *make_buffer(const struct job *j)
{
    uint64_t most = 1;
    for (uint64_t at = 0; at < j->n; at += j->batch) {
        uint64_t bytes = 0;
        for (uint64_t i = at; i < at + j->batch && i < j->n; i++)
            bytes += j->samples[j->order[i]].bytes;
        most = bytes > most ? bytes : most;
    }
    unsigned char *p = malloc(most);
    if (!p)
        die("buffer");
    memset(p, 0, most);
    return p;
}

static void *work(void *arg)
{
    struct thread *t = arg;
    struct job *j = t->job;
    for (;;) {
        uint64_t at = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed) * j->batch, bytes = 0;
        if (at >= j->n || (j->until_ns && now_ns() >= j->until_ns))
            break;
        for (uint64_t i = at; i < at + j->batch && i < j->n; i++) {
            const struct sample *s = &j->samples[j->order[i]];
            copy_sample(j, s, t->buffer + bytes);
            bytes += s->bytes;
            t->samples++;
        }
        t->bytes += bytes;
        if (j->step_ns)
            nanosleep(&(struct timespec){(time_t)(j->step_ns / 1000000000u), (long)(j->step_ns % 1000000000u)}, NULL);
    }
    return NULL;
}

static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void run(struct job *j)
{
    struct thread threads[THREADS_MOST] = {{0}};
    uint64_t samples = 0, bytes = 0;
    char line[8];
    for (unsigned i = 0; i < j->threads; i++)
        threads[i] = (struct thread){.job = j, .buffer = make_buffer(j)};
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(1);
    double cpu = cpu_seconds();
    uint64_t from = now_ns();
    j->until_ns = j->seconds > 0 ? from + (uint64_t)(j->seconds * 1e9) : 0;
    for (unsigned i = 0; i < j->threads; i++)
        if (pthread_create(&threads[i].id, NULL, work, &threads[i]) != 0)
            die("thread");
    for (unsigned i = 0; i < j->threads; i++) {
        pthread_join(threads[i].id, NULL);
        samples += threads[i].samples;
        bytes += threads[i].bytes;
    }
    double seconds = (double)(now_ns() - from) * 1e-9;
    cpu = cpu_seconds() - cpu;
    for (unsigned i = 0; i < j->threads; i++)
        free(threads[i].buffer);
    printf("{\"samples\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"cpu_seconds\":%.6f,\"cpu_bytes\":%llu,"
           "\"version\":\"%u threads\"}\n",
           (unsigned long long)samples, (unsigned long long)bytes, seconds, cpu, (unsigned long long)bytes, j->threads);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rank", required_argument, NULL, 'r'},    {"batch", required_argument, NULL, 'b'},
        {"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
        {"step-us", required_argument, NULL, 'u'}, {NULL, 0, NULL, 0}};
    struct job j = {.batch = 1, .threads = 1};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'r')
            j.rank = (unsigned)atoi(optarg);
        else if (c == 'b')
            j.batch = strtoull(optarg, NULL, 10);
        else if (c == 't')
            j.threads = (unsigned)atoi(optarg);
        else if (c == 's')
            j.seconds = strtod(optarg, NULL);
        else if (c == 'u')
            j.step_ns = (uint64_t)(strtod(optarg, NULL) * 1e3);
        else
            return 2;
    }
    if (argc - optind != 2 || j.batch < 1 || j.threads < 1 || j.threads > THREADS_MOST) {
        fputs("usage: c_loader mmap|pread FOLDER --rank R --batch B --threads T [--seconds S] [--step-us N]\n", stderr);
        return 2;
    }
    j.map = strcmp(argv[optind], "mmap") == 0;
    j.folder = argv[optind + 1];
    read_job(&j);
    run(&j);
    close_job(&j);
    return 0;
}
