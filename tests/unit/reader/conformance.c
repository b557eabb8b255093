/* What every engine must do, run for every engine. The null engine moves no bytes: for it only counts
 * and results are looked at, and that memory stays untouched. */
#include "pattern.h"

#include "base/clock.h"
#include "reader/reader.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

enum { FILE_BYTES = (9 << 20) + 777, GUARD = 0xAA };

static rf_engine engines[] = {RF_ENGINE_URING, RF_ENGINE_PREAD, RF_ENGINE_NULL, RF_ENGINE_MAPPED};

#define ENGINE_TEST(name)                                                                   \
    ParameterizedTestParameters(conformance, name)                                          \
    {                                                                                       \
        return cr_make_param_array(rf_engine, engines, sizeof engines / sizeof engines[0]); \
    }                                                                                       \
    ParameterizedTest(rf_engine *engine, conformance, name, .timeout = 60)

static bool open_engine(struct rfi_reader *r, rf_engine engine, uint32_t depth)
{
    struct rfi_error err;
    if (engine == RF_ENGINE_URING && rfi_reader_uring_probe(&err) < 0) {
        cr_skip_test("%s", err.text);
        return false;
    }
    cr_assert_eq(rfi_reader_open(r, engine, depth, &err), 0, "%s", err.text);
    cr_assert_eq(r->depth, depth);
    return true;
}

/* Reaps until nothing is in flight; the results by tag. */
static void reap_all(struct rfi_reader *r, int32_t *results, bool *seen)
{
    struct rfi_completion c[7];
    while (r->in_flight > 0) {
        int n = r->ops->reap(r, c, 7, 1000000000u);
        cr_assert_geq(n, 0, "reap: %s", strerror(-n));
        for (int i = 0; i < n; i++) {
            cr_assert_lt(c[i].tag, r->depth);
            cr_assert_not(seen[c[i].tag], "tag %u came twice", c[i].tag);
            seen[c[i].tag] = true;
            results[c[i].tag] = c[i].result;
        }
    }
}

/* As a worker does it: what can be read at once is, in lists; the rest is queued. */
static void start(struct rfi_reader *r, const struct rfi_read *reads, uint32_t n, int32_t *results, bool *seen)
{
    int32_t now[RFI_AT_ONCE_MOST];
    uint32_t refused = n, counted = 0;
    bool empty = false;
    cr_assert_leq(n, RFI_AT_ONCE_MOST);
    for (uint32_t i = 0; i < n; i++)
        empty |= reads[i].bytes == 0;
    if (r->ops->at_once && !empty)
        refused = r->ops->at_once(r, reads, n, now);
    for (uint32_t i = 0; i < n; i++) {
        int32_t result = !r->ops->at_once || empty ? -EAGAIN : refused == 0 ? (int32_t)reads[i].bytes : now[i];
        counted += result != (int32_t)reads[i].bytes;
        if (result == -EAGAIN) {
            r->ops->queue(r, &reads[i]);
            continue;
        }
        seen[reads[i].tag] = true;
        results[reads[i].tag] = result;
    }
    cr_assert_eq(counted, refused, "%u reads were not made, and %u are said to be", counted, refused);
}

static int32_t one(struct rfi_reader *r, struct rfi_read read)
{
    int32_t result[64] = {0};
    bool seen[64] = {false};
    start(r, &read, 1, result, seen);
    reap_all(r, result, seen);
    cr_assert(seen[read.tag]);
    return result[read.tag];
}

static uint64_t rng_state = 12345;

static uint64_t rng(uint64_t below)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (rng_state >> 20) % below;
}

/* One round of `n` random reads. `unit` is what offsets, sizes and memory are multiples of. */
static void random_round(struct rfi_reader *r, rf_engine engine, int fd, uint32_t n, uint64_t unit, unsigned char *area,
                         size_t part)
{
    struct rfi_read reads[64];
    int32_t results[64] = {0};
    bool seen[64] = {false};
    memset(area, GUARD, part * n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bytes = (rng(rng(4) ? 20000 : part) + unit) / unit * unit;
        reads[i] = (struct rfi_read){.fd = fd,
                                     .dest = area + part * i,
                                     .offset = rng(FILE_BYTES) / unit * unit,
                                     .bytes = (uint32_t)(bytes > part ? part : bytes),
                                     .tag = (i * 5 + 3) % n};
    }
    start(r, reads, n, results, seen);
    reap_all(r, results, seen);
    for (uint32_t i = 0; i < n; i++) {
        const struct rfi_read *q = &reads[i];
        uint64_t left = FILE_BYTES - q->offset;
        int32_t want = (int32_t)(q->bytes < left || engine == RF_ENGINE_NULL ? q->bytes : left);
        cr_assert(seen[q->tag]);
        cr_assert_eq(results[q->tag], want, "read %u: %d, not %d", i, results[q->tag], want);
        if (engine == RF_ENGINE_NULL)
            want = 0;
        cr_assert(pattern_is(q->dest, q->offset, (size_t)want), "read %u: wrong bytes", i);
        /* Nothing behind the last byte is written; but a direct read may use all that it asked for, since
         * the device gives whole blocks at the end of a file. */
        for (size_t at = unit > 1 ? q->bytes : (size_t)want; at < part; at++)
            cr_assert_eq(((unsigned char *)q->dest)[at], GUARD, "read %u wrote behind its end", i);
    }
}

ENGINE_TEST(random_reads_give_the_bytes_of_the_file)
{
    enum { DEPTH = 61, PART = 1 << 17 };
    struct rfi_reader r;
    int fd = pattern_file(FILE_BYTES, 0);
    unsigned char *area = malloc((size_t)DEPTH * PART);
    cr_assert(fd >= 0 && area);
    if (!open_engine(&r, *engine, DEPTH))
        return;
    for (int round = 0; round < 10; round++)
        random_round(&r, *engine, fd, DEPTH, 1, area, PART);
    r.ops->close(&r);
    free(area);
    close(fd);
}

ENGINE_TEST(direct_reads_give_the_bytes_of_the_file)
{
    enum { DEPTH = 16, PART = RFI_READ_MAX };
    struct rfi_reader r;
    struct rfi_dio dio;
    int fd = pattern_file(FILE_BYTES, O_DIRECT);
    if (fd < 0 || !rfi_dio_align(fd, &dio)) {
        cr_skip_test("no temporary folder here takes O_DIRECT");
        return;
    }
    if (!open_engine(&r, *engine, DEPTH))
        return;
    uint64_t unit = dio.memory > dio.offset ? dio.memory : dio.offset;
    unsigned char *area = mmap(NULL, (size_t)DEPTH * PART, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(area, MAP_FAILED);
    /* The engine may know some of the memory beforehand, and a second queue be like the first. */
    const struct rfi_landing half = {area, 0, (size_t)DEPTH * PART / 2 + 4096, 1};
    if (r.ops->prepare)
        cr_assert_eq(r.ops->prepare(&r, &half, NULL), 0);
    random_round(&r, *engine, fd, DEPTH, unit, area, PART);
    if (r.ops->prepare) {
        struct rfi_reader second;
        cr_assert(open_engine(&second, *engine, DEPTH));
        cr_assert_eq(second.ops->prepare(&second, &half, &r), 0);
        r.ops->close(&r);
        r = second;
    }
    random_round(&r, *engine, fd, DEPTH, unit, area, PART);
    r.ops->close(&r);
    munmap(area, (size_t)DEPTH * PART);
}

ENGINE_TEST(a_read_at_the_end_is_short_and_one_behind_it_is_empty)
{
    struct rfi_reader r;
    unsigned char buf[4096];
    int fd = pattern_file(10000, 0);
    cr_assert(fd >= 0);
    if (*engine == RF_ENGINE_NULL || !open_engine(&r, *engine, 4))
        return;
    for (int again = 0; again < 6; again++) { /* engines may change their mind about a file */
        cr_assert_eq(one(&r, (struct rfi_read){.fd = fd, .dest = buf, .offset = 9000, .bytes = 4096}), 1000);
        cr_assert(pattern_is(buf, 9000, 1000));
    }
    cr_assert_eq(one(&r, (struct rfi_read){.fd = fd, .dest = buf, .offset = 10000, .bytes = 4096}), 0);
    cr_assert_eq(one(&r, (struct rfi_read){.fd = fd, .dest = buf, .offset = INT64_MAX - 4096, .bytes = 4096}), 0);
    cr_assert_eq(one(&r, (struct rfi_read){.fd = fd, .dest = buf, .offset = 0, .bytes = 0}), 0);
    r.ops->close(&r);
}

ENGINE_TEST(a_failing_read_is_a_completion_with_its_errno)
{
    struct rfi_reader r;
    unsigned char buf[4096];
    int fd = pattern_file(10000, 0), dir = open("/", O_RDONLY | O_DIRECTORY);
    void *forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(fd >= 0 && dir >= 0 && forbidden != MAP_FAILED);
    if (*engine == RF_ENGINE_NULL || !open_engine(&r, *engine, 4))
        return;
    cr_assert_eq(one(&r, (struct rfi_read){.fd = 9999, .dest = buf, .bytes = 1}), -EBADF);
    cr_assert_eq(one(&r, (struct rfi_read){.fd = dir, .dest = buf, .bytes = 1}), -EISDIR);
    for (int again = 0; again < 6; again++)
        cr_assert_eq(one(&r, (struct rfi_read){.fd = fd, .dest = forbidden, .bytes = 4096}), -EFAULT);
    cr_assert_eq(one(&r, (struct rfi_read){.fd = fd, .dest = buf, .bytes = 4096}), 4096, "unharmed afterwards");
    cr_assert(pattern_is(buf, 0, 4096));
    r.ops->close(&r);
}

/* A failing entry in the middle must not keep those behind it from being handed over. */
ENGINE_TEST(a_failing_read_does_not_hold_up_those_behind_it)
{
    struct rfi_reader r;
    unsigned char buf[8][512];
    int32_t results[8];
    bool seen[8] = {false};
    int fd = pattern_file(10000, 0);
    cr_assert(fd >= 0);
    if (*engine == RF_ENGINE_NULL || !open_engine(&r, *engine, 8))
        return;
    struct rfi_read reads[8];
    for (uint32_t i = 0; i < 8; i++)
        reads[i] =
            (struct rfi_read){.fd = i % 3 == 1 ? -1 : fd, .dest = buf[i], .offset = 512 * i, .bytes = 512, .tag = i};
    start(&r, reads, 8, results, seen);
    cr_assert_eq(r.ops->submit(&r), 0);
    reap_all(&r, results, seen);
    for (uint32_t i = 0; i < 8; i++)
        cr_assert_eq(results[i], i % 3 == 1 ? -EBADF : 512, "read %u: %d", i, results[i]);
    r.ops->close(&r);
}

ENGINE_TEST(reaping_takes_at_most_cap_and_loses_nothing)
{
    struct rfi_reader r;
    unsigned char buf[512];
    struct rfi_completion c[64];
    unsigned count[64] = {0};
    int fd = pattern_file(1 << 20, 0);
    cr_assert(fd >= 0);
    if (!open_engine(&r, *engine, 64))
        return;
    /* Keeps the queue full while taking one at a time: the indices wrap several times. */
    uint32_t started = 0, ended = 0;
    while (ended < 1000) {
        while (started < 1000 && r.in_flight < 64) {
            r.ops->queue(&r, &(struct rfi_read){.fd = fd, .dest = buf, .bytes = 512, .tag = started % 64});
            started++;
        }
        int n = r.ops->reap(&r, c, 1 + ended % 3, 1000000000u);
        cr_assert(n >= 0 && n <= (int)(1 + ended % 3));
        for (int i = 0; i < n; i++)
            count[c[i].tag]++;
        ended += (uint32_t)n;
        cr_assert_eq(r.in_flight, started - ended);
    }
    for (uint32_t i = 0; i < 64; i++)
        cr_assert_eq(count[i], 1000 / 64 + (i < 1000 % 64), "tag %u came %u times", i, count[i]);
    r.ops->close(&r);
}

ENGINE_TEST(reaping_with_nothing_in_flight_returns_at_once)
{
    struct rfi_reader r;
    struct rfi_completion c;
    if (!open_engine(&r, *engine, 4))
        return;
    uint64_t t0 = rfi_now_ns();
    cr_assert_eq(r.ops->reap(&r, &c, 1, 30000000000u), 0);
    cr_assert_lt(rfi_now_ns() - t0, 10000000000u);
    cr_assert_eq(r.ops->drain(&r, NULL, NULL), 1);
    r.ops->close(&r);
}

ENGINE_TEST(a_depth_of_nothing_is_refused)
{
    struct rfi_reader r;
    struct rfi_error err;
    cr_assert_eq(rfi_reader_open(&r, *engine, 0, &err), -EINVAL);
}

Test(conformance, an_unknown_engine_is_refused)
{
    struct rfi_reader r;
    struct rfi_error err;
    cr_assert_eq(rfi_reader_open(&r, (rf_engine)77, 4, &err), -EINVAL);
    cr_assert(strstr(err.text, "77"));
}

Test(conformance, null_touches_no_memory)
{
    struct rfi_reader r;
    struct rfi_error err;
    void *forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_NULL, 4, &err), 0);
    cr_assert_eq(one(&r, (struct rfi_read){.fd = -1, .dest = forbidden, .bytes = 4096, .tag = 2}), 4096);
    r.ops->close(&r);
}

static void on_alarm(int sig)
{
    (void)sig;
}

/* Only io_uring can wait: a read of an empty pipe ends when somebody writes. */
Test(conformance, uring_waits_no_longer_than_told_and_survives_signals, .timeout = 60)
{
    struct rfi_reader r;
    struct rfi_completion c;
    char buf[16];
    int p[2];
    if (!open_engine(&r, RF_ENGINE_URING, 4))
        return;
    cr_assert_eq(pipe(p), 0);
    r.ops->queue(&r, &(struct rfi_read){.fd = p[0], .dest = buf, .bytes = 16, .tag = 3});
    uint64_t t0 = rfi_now_ns();
    cr_assert_eq(r.ops->reap(&r, &c, 1, 20000000), 0);
    cr_assert_geq(rfi_now_ns() - t0, 20000000u);

    struct sigaction sa = {.sa_handler = on_alarm}; /* without SA_RESTART: every wait is interrupted */
    struct itimerval every = {.it_interval = {.tv_usec = 500}, .it_value = {.tv_usec = 500}};
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(r.ops->reap(&r, &c, 1, 5000000), 0);
    cr_assert_eq(write(p[1], "sixteen bytes...", 16), 16);
    int n;
    while ((n = r.ops->reap(&r, &c, 1, 5000000)) == 0)
        ;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    cr_assert_eq(n, 1);
    cr_assert(c.tag == 3 && c.result == 16 && memcmp(buf, "sixteen bytes...", 16) == 0);
    r.ops->close(&r);
}
