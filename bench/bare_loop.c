/* The bare io_uring loop (bare.h) as a program.
 *
 *     bare_loop [OPTIONS] DATASET…                     what rank 0 of an order reads
 *     printf 'file\t0\t4096\n' | bare_loop [OPTIONS]   these reads
 *
 * Prints one JSON object: reads, bytes, seconds, bytes_per_s, cpu_seconds, syscalls. Files are opened
 * before the clock starts. */
#include "bare.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bare_loop(const struct reads *reads, const struct bare_options *o, struct rfi_error *err)
{
    struct bare_loop *l;
    struct bare_result r;
    int rc = bare_create(reads, o, &l, err);
    if (rc < 0)
        return rc;
    rc = bare_run(l, &r, err);
    bare_destroy(l);
    if (rc < 0)
        return rc;
    printf("{\"reads\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"bytes_per_s\":%.0f,\"cpu_seconds\":%.6f,"
           "\"syscalls\":%llu,\"depth\":%u,\"direct\":%s,\"align\":%llu,\"piece\":%u,\"buffer_bytes\":%llu}\n",
           (unsigned long long)r.reads, (unsigned long long)r.bytes, r.seconds,
           r.seconds > 0 ? (double)r.bytes / r.seconds : 0.0, r.cpu_seconds, (unsigned long long)r.syscalls, o->depth,
           o->direct ? "true" : "false", (unsigned long long)reads->align, reads->piece,
           (unsigned long long)o->buffer_bytes);
    return 0;
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

static bool set_number(int option, uint64_t v, struct bare_options *o, struct reads *r, struct reads_order *order)
{
    switch (option) {
    case 'd':
        o->depth = (uint32_t)v;
        return v >= 1 && v <= BARE_DEPTH_MAX;
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

static bool parse(int argc, char **argv, struct bare_options *o, struct reads *r, struct reads_order *order)
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
    struct bare_options o = {.depth = 32, .buffer_bytes = 64 << 20};
    struct reads reads = {.piece = 1 << 20};
    struct reads_order order = {.batch = 1, .epochs = 1, .world_size = 1};
    struct rfi_error err = {0};
    if (!parse(argc, argv, &o, &reads, &order)) {
        fputs(usage, stderr);
        return 2;
    }
    reads.direct = o.direct;
    int rc = order.n_paths ? reads_from_paths(&reads, &order, &err) : reads_from_stdin(&reads, &err);
    if (rc == 0)
        rc = bare_loop(&reads, &o, &err);
    if (rc < 0)
        fprintf(stderr, "bare_loop: %s\n", err.text);
    reads_free(&reads);
    return rc == 0 ? 0 : 1;
}
