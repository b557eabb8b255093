/* The dead still write: a worker is killed with O_DIRECT reads in flight, the parent drains its queue,
 * and from then on no byte of the region may change and the queue must serve the next worker. */
#include "pattern.h"

#include "base/clock.h"
#include "reader/uring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, READS = 64, FILL = 0x5c };

/* Deaths on one queue; RF_EXHAUSTIVE=1 asks for more. */
static uint32_t generations(void)
{
    return getenv("RF_EXHAUSTIVE") ? 500 : 50;
}

struct shared {
    _Atomic uint32_t stage; /* of the worker that will be killed: 1 starts, 2 has submitted everything */
    unsigned char pad[4092];
    unsigned char victim[READS * MIB]; /* where the killed workers read to */
    unsigned char served[READS * MIB]; /* where the next worker reads to */
};

struct fixture {
    struct shared *sh;
    unsigned char *file; /* what it holds */
    int fd;
    uint32_t reads; /* that the victim submits */
    bool reaps;
    uint64_t rng;
};

static uint32_t below(struct fixture *f, uint32_t n)
{
    f->rng = f->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f->rng >> 33) % n;
}

static pid_t fork_child(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(120);
    }
    return pid;
}

static void victim_body(struct rfi_reader *r, struct fixture *f)
{
    struct rfi_completion c[READS];
    atomic_store(&f->sh->stage, 1);
    for (uint32_t i = 0; i < f->reads; i++)
        r->ops->queue(r, &(struct rfi_read){.fd = f->fd,
                                            .dest = f->sh->victim + (size_t)i * MIB,
                                            .offset = (uint64_t)i * MIB,
                                            .bytes = MIB,
                                            .tag = i});
    if (r->ops->submit(r) < 0)
        _exit(121);
    atomic_store(&f->sh->stage, 2);
    while (f->reaps)
        r->ops->reap(r, c, READS, 1000000);
    for (;;)
        pause();
}

/* Reads everything once more, rotated, and checks it. */
static int serve_body(struct rfi_reader *r, struct fixture *f, uint32_t rotate, uint32_t depth)
{
    struct rfi_completion c[READS];
    uint32_t next = 0, ended = 0;
    while (ended < READS) {
        for (; next < READS && r->in_flight < depth; next++)
            r->ops->queue(r, &(struct rfi_read){.fd = f->fd,
                                                .dest = f->sh->served + (size_t)next * MIB,
                                                .offset = (uint64_t)((next + rotate) % READS) * MIB,
                                                .bytes = MIB,
                                                .tag = next % depth});
        int n = r->ops->reap(r, c, READS, 1000000000u);
        if (n < 0)
            return 122;
        for (int i = 0; i < n; i++)
            if (c[i].result != MIB)
                return 123;
        ended += (uint32_t)n;
    }
    for (uint32_t i = 0; i < READS; i++)
        if (memcmp(f->sh->served + (size_t)i * MIB, f->file + (size_t)((i + rotate) % READS) * MIB, MIB) != 0)
            return 124;
    return r->in_flight == 0 ? 0 : 125;
}

struct tally {
    uint32_t times[READS];
    uint32_t total;
};

static void count_seen(void *ctx, uint32_t tag, int32_t result)
{
    struct tally *t = ctx;
    (void)result;
    if (tag < READS)
        t->times[tag]++;
    t->total++;
}

/* Drains; returns how many steps it took. */
static unsigned drain(struct rfi_reader *r, struct tally *t)
{
    uint64_t limit = rfi_now_ns() + 60000000000u;
    for (unsigned steps = 1;; steps++) {
        int rc = r->ops->drain(r, count_seen, t);
        cr_assert_geq(rc, 0, "drain: %s", strerror(-rc));
        if (rc == 1)
            return steps;
        cr_assert_lt(rfi_now_ns(), limit, "the drain does not end");
        poll(&(struct pollfd){.fd = r->ops->drain_fd(r), .events = POLLIN}, 1, 1);
    }
}

/* Starts a victim and kills it at a random instant; returns the stage that it had reached. */
static uint32_t kill_one(struct rfi_reader *r, struct fixture *f)
{
    atomic_store(&f->sh->stage, 0);
    pid_t pid = fork_child();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        victim_body(r, f);
        _exit(126);
    }
    while (atomic_load(&f->sh->stage) == 0)
        ;
    uint64_t instant = rfi_now_ns() + below(f, 3000000);
    while (rfi_now_ns() < instant)
        ;
    cr_assert_eq(kill(pid, SIGKILL), 0);
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "the victim ended with %d", status);
    return atomic_load(&f->sh->stage);
}

static void serve_one(struct rfi_reader *r, struct fixture *f, uint32_t rotate, uint32_t depth)
{
    pid_t pid = fork_child();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        _exit(serve_body(r, f, rotate, depth));
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "the next worker ended with %d", WEXITSTATUS(status));
    struct tally none = {{0}, 0};
    cr_assert_eq(drain(r, &none), 1, "a worker that reaped everything leaves nothing to wait for");
    cr_assert_eq(none.total, 0);
}

static bool all_fill(const unsigned char *p, size_t n)
{
    return p[0] == FILL && memcmp(p, p + 1, n - 1) == 0;
}

static void check_tally(const struct fixture *f, const struct tally *t, uint32_t stage)
{
    for (uint32_t i = 0; i < READS; i++)
        cr_assert_leq(t->times[i], i < f->reads ? 1u : 0u, "tag %u completed %u times", i, t->times[i]);
    if (!f->reaps && stage == 2)
        cr_assert_eq(t->total, f->reads, "%u of %u completions found", t->total, f->reads);
}

static bool fixture_init(struct fixture *f, uint32_t reads, bool reaps)
{
    struct rfi_error err;
    struct rfi_dio dio;
    *f = (struct fixture){.reads = reads, .reaps = reaps, .rng = 42};
    if (rfi_reader_uring_probe(&err) < 0) {
        cr_skip_test("%s", err.text);
        return false;
    }
    f->fd = pattern_file((uint64_t)READS * MIB, O_DIRECT);
    if (f->fd < 0 || !rfi_dio_align(f->fd, &dio)) {
        cr_skip_test("no temporary folder here takes O_DIRECT");
        return false;
    }
    f->sh = mmap(NULL, sizeof *f->sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(f->sh, MAP_FAILED);
    f->file = malloc((size_t)READS * MIB);
    cr_assert(f->file);
    pattern_fill(f->file, 0, (size_t)READS * MIB);
    return true;
}

static void fixture_fini(struct fixture *f)
{
    munmap(f->sh, sizeof *f->sh);
    free(f->file);
    close(f->fd);
}

static void run_generations(struct rfi_reader *r, struct fixture *f, uint32_t depth, uint32_t n)
{
    uint32_t in_flight = 0, left = 0;
    for (uint32_t g = 0; g < n; g++) {
        struct tally t = {{0}, 0};
        memset(f->sh->victim, FILL, sizeof f->sh->victim);
        uint32_t stage = kill_one(r, f);
        bool waited = drain(r, &t) > 1;
        in_flight += waited;
        left += waited || t.total > 0;
        check_tally(f, &t, stage);
        /* From here on the region is the parent's: the device is kept busy by the next worker, so a late
         * read has all the time in the world to show. */
        memset(f->sh->victim, FILL, sizeof f->sh->victim);
        serve_one(r, f, g, depth);
        cr_assert(all_fill(f->sh->victim, sizeof f->sh->victim), "generation %u: a byte came after the drain", g);
    }
    fprintf(stderr, "drain: reads in flight after death in %u of %u generations\n", in_flight, n);
    /* Else the test proves nothing. How many are still in flight depends on the disk's speed. */
    cr_assert_geq(left, n / 2, "only %u deaths left reads in flight or completions unreaped", left);
}

Test(drain, no_byte_comes_after_the_drain_and_the_queue_serves_on, .timeout = 300)
{
    struct fixture f;
    struct rfi_reader r = {.ops = &rfi_reader_uring, .depth = READS};
    struct rfi_error err;
    if (!fixture_init(&f, READS, true))
        return;
    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_URING, READS, &err), 0, "%s", err.text);
    run_generations(&r, &f, READS, generations());
    r.ops->close(&r);
    fixture_fini(&f);
}

/* Pinned once and for all by the parent: the dead one's reads land there just as long. */
Test(drain, reads_into_registered_memory_are_drained_too, .timeout = 300)
{
    struct fixture f;
    struct rfi_reader r;
    struct rfi_error err;
    if (!fixture_init(&f, READS, true))
        return;
    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_URING, READS, &err), 0, "%s", err.text);
    memset(f.sh, 0, sizeof *f.sh);
    const struct rfi_landing all = {(unsigned char *)f.sh, 0, sizeof *f.sh, 1};
    int rc = r.ops->prepare(&r, &all, NULL);
    if (rc == -ENOMEM) {
        cr_skip_test("no memory may be locked here (ulimit -l)");
        return;
    }
    cr_assert_eq(rc, 0, "%s", strerror(-rc));
    run_generations(&r, &f, READS, generations() / 5);
    r.ops->close(&r);
    fixture_fini(&f);
}

/* 40 reads on a completion queue of 16, none reaped: the kernel holds 24 back, and after the death the
 * tail stands still until the parent asks for them. */
Test(drain, an_overflowed_completion_queue_is_drained_too, .timeout = 300)
{
    struct fixture f;
    struct rfi_reader r = {.ops = &rfi_reader_uring, .depth = 40};
    struct rfi_error err;
    if (!fixture_init(&f, 40, false))
        return;
    cr_assert_eq(rfi_uring_open_sized(&r, 40, 16, 16, &err), 0, "%s", err.text);
    run_generations(&r, &f, 16, generations());
    r.ops->close(&r);
    fixture_fini(&f);
}

/* Entries that were published but not handed over are forgotten, not read later. */
Test(drain, unsubmitted_entries_are_discarded, .timeout = 60)
{
    struct fixture f;
    struct rfi_reader r;
    struct rfi_error err;
    if (!fixture_init(&f, 0, false))
        return;
    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_URING, READS, &err), 0, "%s", err.text);
    memset(f.sh->victim, FILL, sizeof f.sh->victim);
    pid_t pid = fork_child();
    if (pid == 0) {
        struct rfi_read read = {.fd = f.fd, .dest = f.sh->victim, .bytes = MIB};
        for (read.tag = 0; read.tag < 10; read.tag++)
            r.ops->queue(&r, &read);
        rfi_uring_publish(&r); /* the kill comes between the tail's store and the syscall */
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    struct tally t = {{0}, 0};
    cr_assert_eq(drain(&r, &t), 1);
    cr_assert_eq(t.total, 0);
    serve_one(&r, &f, 3, READS);
    cr_assert(all_fill(f.sh->victim, sizeof f.sh->victim));
    r.ops->close(&r);
    fixture_fini(&f);
}

/* A worker that closes queues that are not its own must not harm their owners. */
Test(drain, an_abandoned_queue_lives_on_in_its_owner, .timeout = 60)
{
    struct fixture f;
    struct rfi_reader r;
    struct rfi_error err;
    if (!fixture_init(&f, 0, false))
        return;
    cr_assert_eq(rfi_reader_open(&r, RF_ENGINE_URING, READS, &err), 0, "%s", err.text);
    pid_t pid = fork_child();
    if (pid == 0) {
        int fd = r.ops->drain_fd(&r);
        r.ops->abandon(&r);
        _exit(fcntl(fd, F_GETFD) < 0 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "the child still had the descriptor");
    serve_one(&r, &f, 1, READS);
    r.ops->close(&r);
    fixture_fini(&f);
}
