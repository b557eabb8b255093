/* Birth, ownership, attaching and removal of a run's two objects; a hostile header. */
#include "segment/segment.h"

#include "segment/pages.h"
#include "segment/room.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIGNATURE = 77, N = 3 };

static const struct rfi_region_request requests[N] = {{8, 10}, {100, 100}, {1, 0}};

static const char *name_of(const char *what)
{
    static char name[65];
    snprintf(name, sizeof name, "unit-%s-%d", what, (int)getpid());
    return name;
}

static void create(const char *name, struct rfi_segment *s)
{
    struct rfi_error err = {0};
    cr_assert_eq(rfi_segment_create(name, requests, N, 100000, SIGNATURE, NULL, NULL, s, &err), 0, "%s", err.text);
}

static bool exists(const char *name, const char *suffix)
{
    char path[128];
    snprintf(path, sizeof path, "/dev/shm/ringfeed.%s%s", name, suffix);
    return access(path, F_OK) == 0;
}

Test(segment, names_are_checked)
{
    struct rfi_error err;
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = 0;
    cr_assert_eq(rfi_name_check(longest, &err), -EINVAL);
    longest[64] = 0;
    cr_assert_eq(rfi_name_check(longest, &err), 0);
    const char *wrong[] = {"", "a.b", "a/b", "../x", "a b", "\xc3\xa4", "x\n", NULL};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(rfi_name_check(wrong[i], &err), -EINVAL);
}

Test(segment, layout_is_page_aligned_disjoint_and_refuses_overflow)
{
    struct rfi_region_shared r[N];
    struct rfi_error err;
    uint64_t bytes, end = RFI_HEADER_BYTES;
    cr_assert_eq(rfi_segment_layout(requests, N, r, &bytes, &err), 0);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(r[i].offset % 4096, 0);
        cr_assert_geq(r[i].offset, end);
        cr_assert_eq(r[i].bytes, (uint64_t)requests[i].element_bytes * requests[i].count);
        end = r[i].offset + r[i].bytes;
    }
    cr_assert_leq(end, bytes);
    const struct rfi_region_request absurd[2] = {{UINT32_MAX, UINT64_MAX / 2}, {1, UINT64_MAX}};
    cr_assert_eq(rfi_segment_layout(absurd, 1, r, &bytes, &err), -EOVERFLOW);
    cr_assert_eq(rfi_segment_layout(absurd + 1, 1, r, &bytes, &err), -EOVERFLOW);
}

Test(segment, is_born_private_and_zero_and_is_attached_when_ready)
{
    struct rfi_segment s, a;
    struct rfi_error err = {0};
    struct stat st;
    const char *name = name_of("born");
    umask(0);
    create(name, &s);
    cr_assert(fstat(s.control_fd, &st) == 0 && (st.st_mode & 0777) == 0600);
    cr_assert(fstat(s.data_fd, &st) == 0 && (st.st_mode & 0777) == 0600);
    cr_assert_eq((uintptr_t)s.control % (2 << 20), 0);
    for (uint64_t i = 0; i < s.regions[1].bytes; i++)
        cr_assert_eq(((unsigned char *)rfi_segment_region(&s, 1))[i], 0);
    cr_assert_eq(rfi_segment_attach(name, SIGNATURE, true, &a, &err), -EAGAIN);
    rfi_segment_ready(&s);
    memcpy(rfi_segment_region(&s, 0), "hello", 6);
    cr_assert_eq(rfi_segment_attach(name, SIGNATURE, true, &a, &err), 0, "%s", err.text);
    cr_assert_str_eq(rfi_segment_region(&a, 0), "hello");
    cr_assert_eq(a.data_bytes, s.data_bytes);
    unsigned char *page = rfi_segment_map_rw(&a, a.regions[1].offset, 4096, &err);
    cr_assert_not_null(page);
    page[5] = 9;
    cr_assert_eq(((unsigned char *)rfi_segment_region(&s, 1))[5], 9);
    munmap(page, 4096);
    rfi_segment_detach(&a);
    cr_assert_eq(rfi_segment_attach(name, SIGNATURE + 1, true, &a, &err), -EPROTO);
    rfi_segment_destroy(&s);
    cr_assert(!exists(name, "") && !exists(name, ".data"));
    cr_assert_eq(rfi_segment_attach(name, SIGNATURE, true, &a, &err), -ENOENT);
}

Test(segment, a_living_owner_keeps_its_name)
{
    struct rfi_segment s, other;
    struct rfi_error err = {0};
    const char *name = name_of("taken");
    create(name, &s);
    cr_assert_eq(rfi_segment_create(name, requests, N, 100, SIGNATURE, NULL, NULL, &other, &err), -EEXIST);
    cr_assert(strstr(err.text, name) && strstr(err.text, "taken"), "%s", err.text);
    cr_assert_eq(rfi_segment_reclaim(name, &err), -EBUSY);
    cr_assert(exists(name, "") && exists(name, ".data"));
    rfi_segment_destroy(&s);
}

/* A child makes the segment and is killed; `with_fork`: its own child goes on living, as a worker would that
 * has let go of the lock. */
static void die_as_owner(const char *name, bool with_fork, int *ret_orphan)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rfi_segment s;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (rfi_segment_create(name, requests, N, 100000, SIGNATURE, NULL, NULL, &s, NULL) < 0)
            _exit(1);
        rfi_segment_ready(&s);
        pid_t worker = with_fork ? fork() : -1;
        if (worker == 0) {
            rfi_segment_disown(&s);
            (void)!write(fds[1], "x", 1);
            alarm(20);
            pause();
            _exit(0);
        }
        if (!with_fork)
            (void)!write(fds[1], "x", 1);
        (void)!write(fds[1], &worker, sizeof worker);
        pause();
        _exit(0);
    }
    pid_t worker = -1;
    char buf[1 + sizeof worker];
    size_t n = 0;
    while (n < sizeof buf) {
        ssize_t got = read(fds[0], buf + n, sizeof buf - n);
        cr_assert_gt(got, 0);
        n += (size_t)got;
    }
    /* The two writers' bytes come in either order: 'x' is no byte of a small pid's high bytes. */
    memcpy(&worker, buf[0] == 'x' ? buf + 1 : buf, sizeof worker);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
    *ret_orphan = worker;
}

Test(segment, a_dead_owner_loses_its_name_at_once, .timeout = 30)
{
    struct rfi_segment s;
    const char *name = name_of("dead");
    int orphan;
    die_as_owner(name, true, &orphan);
    cr_assert(exists(name, "") && exists(name, ".data"));
    create(name, &s); /* although a process with the old mapping lives */
    rfi_segment_destroy(&s);
    cr_assert(!exists(name, "") && !exists(name, ".data"));
    if (orphan > 1)
        kill(orphan, SIGKILL);
}

static int count_one(void *ctx, const struct rfi_run_entry *e)
{
    const char **want = ctx;
    if (!strcmp(e->name, want[0])) {
        cr_assert_eq(e->owner, RFI_OWNER_ALIVE);
        want[2] = "seen";
    }
    if (!strcmp(e->name, want[1])) {
        cr_assert_eq(e->owner, RFI_OWNER_DEAD);
        want[3] = "seen";
    }
    return 0;
}

Test(segment, list_tells_and_gc_removes_the_dead_only, .timeout = 30)
{
    struct rfi_segment s;
    struct rfi_error err = {0};
    char alive[65], dead[65], foreign[128], empty[128];
    int orphan, fd;
    snprintf(alive, sizeof alive, "%s", name_of("alive"));
    snprintf(dead, sizeof dead, "%s", name_of("gone"));
    create(alive, &s);
    die_as_owner(dead, false, &orphan);
    snprintf(foreign, sizeof foreign, "/dev/shm/ringfeed.%s", name_of("foreign"));
    cr_assert_geq(fd = open(foreign, O_CREAT | O_WRONLY, 0600), 0);
    cr_assert_eq(write(fd, "not one of ours, but with the prefix", 36), 36);
    close(fd);
    snprintf(empty, sizeof empty, "/dev/shm/ringfeed.%s", name_of("empty"));
    cr_assert_geq(fd = open(empty, O_CREAT | O_WRONLY, 0600), 0);
    close(fd);
    const char *ctx[4] = {alive, dead, NULL, NULL};
    cr_assert_eq(rfi_segment_list(count_one, ctx, &err), 0, "%s", err.text);
    cr_assert(ctx[2] && ctx[3]);
    cr_assert_eq(rfi_segment_gc(NULL, NULL, &err), 0, "%s", err.text);
    cr_assert(exists(alive, "") && !exists(dead, "") && !exists(dead, ".data"));
    cr_assert(access(foreign, F_OK) == 0 && access(empty, F_OK) == 0);
    unlink(foreign);
    unlink(empty);
    rfi_segment_destroy(&s);
}

Test(segment, serve_takes_over_an_empty_object_but_no_foreign_one)
{
    struct rfi_segment s;
    struct rfi_error err = {0};
    char path[128];
    const char *name = name_of("half");
    snprintf(path, sizeof path, "/dev/shm/ringfeed.%s", name);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    create(name, &s);
    rfi_segment_destroy(&s);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert_eq(write(fd, "something else", 14), 14);
    close(fd);
    cr_assert_eq(rfi_segment_create(name, requests, N, 100, SIGNATURE, NULL, NULL, &s, &err), -EPROTO);
    cr_assert(strstr(err.text, name), "%s", err.text);
    unlink(path);
}

Test(segment, no_room_is_an_error_with_the_number)
{
    struct rfi_segment s;
    struct rfi_error err = {0};
    const char *name = name_of("room");
    uint64_t shm_free, size, want;
    cr_assert_eq(rfi_room_shm(&shm_free, &size, &err), 0);
    want = size + (1 << 20);
    cr_assert_eq(rfi_segment_create(name, requests, N, want, SIGNATURE, NULL, NULL, &s, &err), -ENOSPC);
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)(want / 10000000));
    cr_assert(strstr(err.text, "/dev/shm") && strstr(err.text, number), "%s", err.text);
    cr_assert(!exists(name, "") && !exists(name, ".data"));
}

/* Bytes of the mapping at `p` that are mapped by huge pages. */
static uint64_t huge_bytes(const void *p)
{
    char line[512];
    uint64_t from, to, kib, sum = 0;
    bool inside = false;
    FILE *f = fopen("/proc/self/smaps", "re");
    cr_assert(f != NULL);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from <= (uintptr_t)p && (uintptr_t)p < to;
        else if (inside && sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
            sum = kib << 10;
    }
    fclose(f);
    return sum;
}

/* Whether this kernel makes a huge page here on demand, asked without the code under test. */
static bool huge_pages_possible(void)
{
    enum { HUGE = 2 << 20 };
    const char *name = name_of("huge");
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, HUGE) == 0);
    shm_unlink(name);
    unsigned char *room = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *p = (unsigned char *)(((uintptr_t)room + HUGE - 1) / HUGE * HUGE);
    cr_assert_eq(mmap(p, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), p);
    p[0] = 1;
    return madvise(p, HUGE, 25 /* MADV_COLLAPSE */) == 0 && huge_bytes(p) == HUGE;
}

/* Without root, whatever the mount option of /dev/shm: the owner's and the trainer's view. */
Test(segment, the_payload_has_huge_pages_where_the_kernel_makes_them)
{
    enum { PAYLOAD = 8 << 20 };
    struct rfi_segment s, reader;
    struct rfi_error err = {0};
    volatile unsigned char sum = 0;
    if (!huge_pages_possible()) {
        cr_skip_test("no MADV_COLLAPSE here (Linux 6.1), or no huge page free");
        return;
    }
    const char *name = name_of("huge-run");
    cr_assert_eq(rfi_segment_create(name, requests, N, PAYLOAD, SIGNATURE, NULL, NULL, &s, &err), 0, "%s", err.text);
    cr_assert_eq(huge_bytes(s.data), PAYLOAD);
    uint64_t data = (uintptr_t)s.data, control = (uintptr_t)s.control;
    struct rfi_pages_held held[] = {{.from = data, .to = data + PAYLOAD},
                                    {.from = data + (2 << 20), .to = data + (3 << 20)},
                                    {.from = control, .to = control + s.control_bytes}};
    cr_assert(rfi_pages_held(held, 3));
    for (int i = 0; i < 2; i++) { /* the header's small page is in the same mapping */
        cr_assert_eq(held[i].bytes, held[i].to - held[i].from);
        cr_assert(held[i].huge_bytes <= held[i].bytes && held[i].huge_bytes > held[i].bytes / 1000 * 998);
    }
    cr_assert(held[2].bytes == s.control_bytes && held[2].huge_bytes == huge_bytes(s.control));
    rfi_segment_ready(&s);
    cr_assert_eq(rfi_segment_attach(name, SIGNATURE, true, &reader, &err), 0, "%s", err.text);
    for (size_t at = 0; at < PAYLOAD; at += 1 << 20)
        sum ^= reader.data[at];
    (void)sum;
    cr_assert_eq(huge_bytes(reader.data), PAYLOAD);
    rfi_segment_detach(&reader);
    rfi_segment_destroy(&s);
}

Test(segment, small_pages_are_not_taken_for_huge_ones)
{
    enum { BYTES = 1 << 20 };
    unsigned char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    uint64_t at = (uintptr_t)p;
    struct rfi_pages_held untouched = {.from = at, .to = at + BYTES}, touched = untouched;
    cr_assert(rfi_pages_held(&untouched, 1));
    cr_assert(untouched.bytes == 0 && untouched.huge_bytes == 0);
    memset(p, 1, BYTES);
    cr_assert(rfi_pages_held(&touched, 1));
    cr_assert(touched.bytes == BYTES && touched.huge_bytes == huge_bytes(p));
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* Every region that a garbled header still passes with must lie inside the mapping. */
static void attach_garbled(const char *name)
{
    struct rfi_segment a;
    struct rfi_error err = {0};
    if (rfi_segment_attach(name, SIGNATURE, true, &a, &err) < 0) {
        cr_assert_neq(err.text[0], 0);
        return;
    }
    for (uint32_t i = 0; i < a.n_regions; i++)
        cr_assert(a.regions[i].offset + a.regions[i].bytes <= a.control_bytes);
    rfi_segment_detach(&a);
}

Test(segment, a_garbled_header_is_refused_or_harmless, .timeout = 60)
{
    struct rfi_segment s;
    unsigned char good[sizeof(struct rfi_segment_header)];
    const char *name = name_of("garbled");
    uint64_t x = 88172645463325252u;
    create(name, &s);
    rfi_segment_ready(&s);
    memcpy(good, s.control, sizeof good);
    for (int round = 0; round < 4000; round++) {
        for (uint64_t flips = 1 + next_random(&x) % 4; flips; flips--)
            s.control[next_random(&x) % sizeof good] ^= (unsigned char)(1u << next_random(&x) % 8);
        attach_garbled(name);
        memcpy(s.control, good, sizeof good);
    }
    rfi_segment_destroy(&s);
}

Test(segment, a_cut_object_is_refused, .timeout = 60)
{
    struct rfi_segment s;
    char whole[128], cut[128];
    const char *name = name_of("cut");
    static unsigned char bytes[1 << 20];
    create(name, &s);
    rfi_segment_ready(&s);
    snprintf(whole, sizeof whole, "/dev/shm/ringfeed.%s", name);
    snprintf(cut, sizeof cut, "/dev/shm/ringfeed.%sx", name);
    char cut_name[80];
    snprintf(cut_name, sizeof cut_name, "%sx", name);
    memcpy(bytes, s.control, s.control_bytes);
    for (uint64_t n = 0; n < s.control_bytes; n += n < 5000 ? 97 : 1777) {
        struct rfi_segment a;
        int fd = open(cut, O_CREAT | O_TRUNC | O_RDWR, 0600);
        cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
        close(fd);
        cr_assert_lt(rfi_segment_attach(cut_name, SIGNATURE, true, &a, NULL), 0);
    }
    unlink(cut);
    rfi_segment_destroy(&s);
}
