/* The least that reading can cost: an io_uring loop and nothing else. It makes the same reads as ringfeed
 * (same sizes, same order, same queue depth, into a ring of memory of the same kind) without batches,
 * rings or trainers; "delivered bytes/s over bare loop" is the ratio that bench reports.
 *
 *     bare_loop [OPTIONS] DATASET…                     what rank 0 of an order reads
 *     printf 'file\t0\t4096\n' | bare_loop [OPTIONS]   these reads
 *
 * Prints one JSON object: reads, bytes, seconds, bytes_per_s, cpu_seconds, syscalls. Files are opened
 * before the clock starts. */
#include "reads.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "segment/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HUGE = 2 << 20, DEPTH_MAX = 4096 };

struct options {
    uint32_t depth;
    uint64_t buffer_bytes;
    bool direct;
    bool fixed_buffers, fixed_files; /* registered with the io_uring */
};

/* One read in flight. Memory is given out in order and taken back in order. */
struct flight {
    size_t number; /* of the read */
    uint64_t wanted; /* bytes that must come; fewer are an error */
};

struct loop {
    struct io_uring ring;
    const struct reads *reads;
    const struct options *o;
    int *fds;
    unsigned char *memory;
    uint64_t head; /* virtual: bytes given out since the start */
    uint64_t *starts; /* [depth_ring]: where read i's memory began, at i mod 2^k */
    bool *over;
    size_t window; /* size of starts and over, a power of two */
    size_t next, oldest; /* reads: to be issued, not yet over */
    struct flight flights[DEPTH_MAX];
    uint32_t free_tags[DEPTH_MAX], n_free;
    uint64_t syscalls, bytes;
};

static int complain(const char *what, int error)
{
    fprintf(stderr, "bare_loop: %s: %s\n", what, strerror(error));
    return -1;
}

/* ---- set-up ---- */

static int open_files(struct loop *l)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    l->fds = calloc(l->reads->n_files + 1, sizeof *l->fds);
    if (!l->fds)
        return complain("files", ENOMEM);
    for (size_t i = 0; i < l->reads->n_files; i++) {
        l->fds[i] = open(l->reads->files[i], O_RDONLY | O_CLOEXEC | (l->o->direct ? O_DIRECT : 0));
        if (l->fds[i] < 0)
            return complain(l->reads->files[i], errno);
    }
    return 0;
}

/* As ringfeed's arenas: shared memory, made by the same function, so with huge pages where the kernel has them. */
static int map_memory(struct loop *l)
{
    uint64_t bytes = rfi_align_up(l->o->buffer_bytes, HUGE);
    int fd = memfd_create("bare_loop", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || !(l->memory = rfi_pages_map(fd, bytes, PROT_READ | PROT_WRITE)) ||
        rfi_pages_populate(fd, l->memory, 0, bytes) < 0)
        return complain("memory", errno);
    close(fd);
    return 0;
}

static int open_ring(struct loop *l)
{
    int rc = io_uring_queue_init(l->o->depth, &l->ring, IORING_SETUP_COOP_TASKRUN);
    if (rc == -EINVAL) /* before Linux 5.19 */
        rc = io_uring_queue_init(l->o->depth, &l->ring, 0);
    if (rc < 0)
        return complain("io_uring", -rc);
    if (l->o->fixed_buffers &&
        (rc = io_uring_register_buffers(&l->ring, &(struct iovec){l->memory, rfi_align_up(l->o->buffer_bytes, HUGE)},
                                        1)) < 0)
        return complain("registered buffers", -rc);
    if (l->o->fixed_files && (rc = io_uring_register_files(&l->ring, l->fds, (unsigned)l->reads->n_files)) < 0)
        return complain("registered files", -rc);
    for (uint32_t i = 0; i < l->o->depth; i++)
        l->free_tags[l->n_free++] = i;
    for (l->window = 1; l->window < l->reads->n + 1 && l->window < 1 << 20;)
        l->window *= 2;
    l->starts = calloc(l->window, sizeof *l->starts);
    l->over = calloc(l->window, sizeof *l->over);
    return l->starts && l->over ? 0 : complain("io_uring", ENOMEM);
}

/* ---- the loop ---- */

/* What is asked of the kernel for a read: the extent, rounded outwards to A for O_DIRECT. */
static void extent_of(const struct loop *l, const struct read *r, uint64_t *ret_from, uint64_t *ret_bytes)
{
    uint64_t a = l->o->direct ? l->reads->align : 1;
    *ret_from = rfi_align_down(r->offset, a);
    *ret_bytes = rfi_align_up(r->offset + r->bytes, a) - *ret_from;
}

/* Memory for the next read, not wrapping, if nothing in flight lies there. */
static bool take_memory(struct loop *l, uint64_t bytes, uint64_t *ret)
{
    uint64_t total = rfi_align_down(l->o->buffer_bytes, l->reads->align), at = l->head;
    if (at % total + bytes > total)
        at += total - at % total;
    if (l->oldest < l->next && at + bytes - l->starts[l->oldest % l->window] > total)
        return false;
    *ret = at;
    l->head = rfi_align_up(at + bytes, l->reads->align);
    return true;
}

static bool issue(struct loop *l)
{
    const struct read *r = &l->reads->items[l->next];
    uint64_t from, bytes, at;
    extent_of(l, r, &from, &bytes);
    if (l->n_free == 0 || l->next - l->oldest >= l->window || !take_memory(l, bytes, &at))
        return false;
    uint32_t tag = l->free_tags[--l->n_free];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
    uint64_t total = rfi_align_down(l->o->buffer_bytes, l->reads->align);
    int fd = l->o->fixed_files ? (int)r->file : l->fds[r->file];
    if (l->o->fixed_buffers)
        io_uring_prep_read_fixed(sqe, fd, l->memory + at % total, (unsigned)bytes, from, 0);
    else
        io_uring_prep_read(sqe, fd, l->memory + at % total, (unsigned)bytes, from);
    if (l->o->fixed_files)
        sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = tag;
    l->flights[tag] = (struct flight){.number = l->next, .wanted = r->offset + r->bytes - from};
    l->starts[l->next % l->window] = at;
    l->over[l->next % l->window] = false;
    l->next++;
    return true;
}

static int complete(struct loop *l, const struct io_uring_cqe *cqe)
{
    const struct flight *f = &l->flights[cqe->user_data];
    const struct read *r = &l->reads->items[f->number];
    if (cqe->res < 0)
        return complain(l->reads->files[r->file], -cqe->res);
    if ((uint64_t)cqe->res < f->wanted)
        return complain(l->reads->files[r->file], ENODATA);
    l->bytes += r->bytes;
    l->over[f->number % l->window] = true;
    l->free_tags[l->n_free++] = (uint32_t)cqe->user_data;
    return 0;
}

static int reap(struct loop *l)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    int rc = 0;
    io_uring_for_each_cqe(&l->ring, head, cqe)
    {
        n++;
        if ((rc = complete(l, cqe)) < 0)
            break;
    }
    io_uring_cq_advance(&l->ring, n);
    while (l->oldest < l->next && l->over[l->oldest % l->window])
        l->oldest++;
    return rc;
}

static int run(struct loop *l)
{
    while (l->oldest < l->reads->n) {
        while (l->next < l->reads->n && issue(l))
            ;
        int rc = io_uring_submit_and_wait(&l->ring, 1);
        l->syscalls++;
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
            return complain("io_uring", -rc);
        if (reap(l) < 0)
            return -1;
    }
    return 0;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int measure(struct loop *l)
{
    double cpu = cpu_seconds();
    uint64_t t0 = rfi_now_ns();
    if (run(l) < 0)
        return -1;
    double seconds = (double)(rfi_now_ns() - t0) / 1e9;
    printf("{\"reads\":%zu,\"bytes\":%llu,\"seconds\":%.6f,\"bytes_per_s\":%.0f,\"cpu_seconds\":%.6f,\"syscalls\":%llu,"
           "\"depth\":%u,\"direct\":%s,\"align\":%llu,\"piece\":%u,\"buffer_bytes\":%llu}\n",
           l->reads->n, (unsigned long long)l->bytes, seconds, seconds > 0 ? (double)l->bytes / seconds : 0.0,
           cpu_seconds() - cpu, (unsigned long long)l->syscalls, l->o->depth, l->o->direct ? "true" : "false",
           (unsigned long long)l->reads->align, l->reads->piece, (unsigned long long)l->o->buffer_bytes);
    return 0;
}

static int bare_loop(const struct reads *reads, const struct options *o)
{
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        return complain("loop", ENOMEM);
    l->reads = reads;
    l->o = o;
    if (o->buffer_bytes < 2 * ((uint64_t)reads->piece + 2 * reads->align)) {
        fprintf(stderr, "bare_loop: --buffer-bytes %llu does not hold two reads of %u\n",
                (unsigned long long)o->buffer_bytes, reads->piece);
        free(l);
        return -1;
    }
    int rc = open_files(l);
    if (rc == 0)
        rc = map_memory(l);
    if (rc == 0)
        rc = open_ring(l);
    if (rc == 0)
        rc = measure(l);
    free(l->fds); /* the rest ends with the process */
    free(l->starts);
    free(l->over);
    free(l);
    return rc;
}

/* ---- options ---- */

static const struct option long_options[] = {{"depth", required_argument, NULL, 'd'},
                                             {"buffer-bytes", required_argument, NULL, 'b'},
                                             {"piece", required_argument, NULL, 'p'},
                                             {"direct", no_argument, NULL, 'D'},
                                             {"fixed-buffers", no_argument, NULL, 'F'},
                                             {"fixed-files", no_argument, NULL, 'X'},
                                             {"format", required_argument, NULL, 'f'},
                                             {"record-bytes", required_argument, NULL, 'r'},
                                             {"header-bytes", required_argument, NULL, 'H'},
                                             {"batch", required_argument, NULL, 'B'},
                                             {"seed", required_argument, NULL, 's'},
                                             {"epochs", required_argument, NULL, 'e'},
                                             {"world-size", required_argument, NULL, 'W'},
                                             {"rank", required_argument, NULL, 'R'},
                                             {"shuffle", required_argument, NULL, 'S'},
                                             {"help", no_argument, NULL, 'h'},
                                             {NULL, 0, NULL, 0}};

static const char usage[] =
    "usage: bare_loop [--depth N] [--direct] [--fixed-buffers] [--fixed-files] [--buffer-bytes N] [--piece N]\n"
    "         DATASET… [--format F]\n"
    "         [--record-bytes N] [--header-bytes N] [--batch B] [--shuffle none|full|block] [--seed S]\n"
    "         [--epochs E] [--world-size W] [--rank R]\n"
    "       bare_loop [--depth N] [--direct] [--buffer-bytes N] [--piece N] < list of \"file TAB offset TAB bytes\"\n";

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && *ret <= max;
}

static bool set_number(int option, uint64_t v, struct options *o, struct reads *r, struct reads_order *order)
{
    switch (option) {
    case 'd':
        o->depth = (uint32_t)v;
        return v >= 1 && v <= DEPTH_MAX;
    case 'b':
        o->buffer_bytes = v;
        return v <= (uint64_t)1 << 40;
    case 'p':
        r->piece = (uint32_t)v;
        return v >= 512 && v % 512 == 0 && v <= 1 << 30;
    case 'r':
        order->record_bytes = v;
        return true;
    case 'H':
        order->header_bytes = v;
        return true;
    case 'B':
        order->batch = v;
        return v >= 1 && v <= 1 << 24;
    case 's':
        order->seed = v;
        return true;
    case 'e':
        order->epochs = v;
        return v >= 1;
    case 'W':
        order->world_size = (uint32_t)v;
        return v >= 1 && v <= 1000000;
    case 'R':
        order->rank = (uint32_t)v;
        return v < 1000000;
    default:
        return false;
    }
}

static bool set_shuffle(const char *text, int *ret)
{
    static const char *const names[] = {"none", "full", "block"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

static bool parse(int argc, char **argv, struct options *o, struct reads *r, struct reads_order *order)
{
    int c;
    bool ok = true;
    while (ok && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        uint64_t v;
        if (c == 'D')
            o->direct = true;
        else if (c == 'F')
            o->fixed_buffers = true;
        else if (c == 'X')
            o->fixed_files = true;
        else if (c == 'f')
            order->format = optarg;
        else if (c == 'S')
            ok = set_shuffle(optarg, &order->shuffle);
        else if (c == 'h' || c == '?')
            ok = false;
        else
            ok = parse_number(optarg, UINT64_MAX, &v) && set_number(c, v, o, r, order);
    }
    order->paths = (const char *const *)argv + optind;
    order->n_paths = (size_t)(argc - optind);
    return ok && order->rank < order->world_size;
}

int main(int argc, char **argv)
{
    struct options o = {.depth = 32, .buffer_bytes = 64 << 20};
    struct reads reads = {.piece = 1 << 20};
    struct reads_order order = {.batch = 1, .epochs = 1, .world_size = 1};
    if (!parse(argc, argv, &o, &reads, &order)) {
        fputs(usage, stderr);
        return 2;
    }
    reads.direct = o.direct;
    int rc = order.n_paths ? reads_from_dataset(&reads, &order) : reads_from_stdin(&reads);
    if (rc == 0)
        rc = bare_loop(&reads, &o);
    reads_free(&reads);
    return rc == 0 ? 0 : 1;
}
