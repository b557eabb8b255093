/* Attaching to a rank and leaving it. */
#include "attach/trainer.h"
#include "attach/view.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "run/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MARK_BYTES = 4096, DEFAULT_TIMEOUT_MS = 30000, RETRY_NS = 5000000, EXCHANGE_MS = 10000 };

void rf_attach_options_init(rf_attach_options *o)
{
    *o = (rf_attach_options){.size = sizeof *o, .timeout_ms = -1};
}

int rfi_trainer_fail(struct rf_trainer *t, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    t->err.code = -code;
    vsnprintf(t->err.text, sizeof t->err.text, fmt, ap);
    va_end(ap);
    return -code;
}

/* A page that the kernel empties in a forked child: asking it is a load, asking for the pid a syscall. */
static uint32_t *map_mark(void)
{
    uint32_t *mark = mmap(NULL, MARK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mark == MAP_FAILED)
        return NULL;
    if (madvise(mark, MARK_BYTES, MADV_WIPEONFORK) < 0) {
        munmap(mark, MARK_BYTES);
        return NULL;
    }
    *mark = 1;
    return mark;
}

static bool is_ours(const struct rf_trainer *t)
{
    return *t->mark == 1;
}

/* The lease ends with the connection, and a program may close every descriptor it does not know. Then the rank may
 * have been given to somebody else, or away; two loads of a line that hardly ever changes. */
static bool lease_is_lost(const struct rf_trainer *t)
{
    const struct rfi_rank_shared *r = &t->run.ranks[t->local];
    return atomic_load_explicit(&r->incarnation, memory_order_relaxed) != t->incarnation ||
           atomic_load_explicit(&r->failed, memory_order_relaxed);
}

int rfi_trainer_check(struct rf_trainer *t)
{
    if (!t)
        return rfi_fail(rfi_thread_error(), EINVAL, "no trainer: a null pointer. Pass the handle that rf_attach gave");
    if (!is_ours(t))
        return rfi_trainer_fail(
            t, EPERM,
            "this handle belongs to process %d, and this is a forked child (%d). Attach in the process "
            "that trains",
            (int)t->pid, (int)getpid());
    if (t->left)
        return rfi_trainer_fail(t, EPIPE, "rank %u of run '%s' was given up by rf_leave. Attach again", t->ring.rank,
                                t->run.segment.name);
    if (t->broken)
        return rfi_trainer_fail(
            t, EPIPE,
            "the last request of rank %u to the server of run '%s' had no answer, so its position is "
            "not known. Attach again",
            t->ring.rank, t->run.segment.name);
    if (lease_is_lost(t))
        return rfi_trainer_fail(
            t, EPIPE,
            "rank %u of run '%s' is no longer ours: the connection to its server was closed (by closing all "
            "descriptors?), and the rank was given %s. Attach again",
            t->ring.rank, t->run.segment.name,
            atomic_load_explicit(&t->run.ranks[t->local].failed, memory_order_relaxed) ? "up" : "to another trainer");
    return 0;
}

/* Our own page and the bell, writable; the rest of control stays read-only. */
static int map_words(struct rf_trainer *t, struct rfi_error *err)
{
    const struct rfi_segment *s = &t->run.segment;
    uint64_t page = s->regions[RFI_R_TRAINERS].offset + (uint64_t)t->local * RFI_TRAINER_BYTES;
    t->tr_page = rfi_segment_map_rw(s, page, RFI_TRAINER_BYTES, err);
    t->bell_page = t->tr_page ? rfi_segment_map_rw(s, s->regions[RFI_R_BELLS].offset, RFI_BELL_BYTES, err) : NULL;
    if (!t->bell_page)
        return err->code;
    t->ring = t->run.rings[t->local];
    t->ring.tr = t->tr_page;
    size_t bell = (size_t)((unsigned char *)t->ring.bell - (unsigned char *)rfi_segment_region(s, RFI_R_BELLS));
    t->ring.bell = (struct rfi_bell_shared *)((unsigned char *)t->bell_page + bell);
    return 0;
}

unsigned char *rfi_trainer_arena(struct rf_trainer *t, uint32_t arena)
{
    const struct rfi_config_shared *c = &t->run.config;
    if (!t->writable)
        return rfi_run_arena(&t->run, arena);
    if (t->arena_maps[arena])
        return t->arena_maps[arena];
    char path[64]; /* through the descriptor we have: the name may be another run's by now */
    snprintf(path, sizeof path, "/proc/self/fd/%d", t->run.segment.data_fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        rfi_trainer_fail(t, errno, "cannot open the payload of run '%s' writable: %s", t->run.segment.name,
                         strerror(errno));
        return NULL;
    }
    void *p = mmap(NULL, c->arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)rfi_run_arena_offset(c, arena));
    int error = errno;
    close(fd);
    if (p == MAP_FAILED) {
        rfi_trainer_fail(t, error, "cannot map the arena of rank %u writable: %s", t->ring.rank, strerror(error));
        return NULL;
    }
    return t->arena_maps[arena] = p;
}

/* How much of its arenas the ring uses, from now on as long as this handle lives: the server is told, once. A dead one makes no
 * ring larger either. */
static int settle(struct rf_trainer *t, uint64_t *ret_bytes)
{
    struct rfi_generation g;
    uint64_t ticket;
    int rc = t->settled || t->run.config.lap_bytes == t->run.config.arena_bytes
                 ? 0
                 : rfi_trainer_exchange(t, RFI_OP_SETTLE, 0, 0, &ticket);
    if (rc < 0 && rc != -EPIPE)
        return rc;
    t->settled = true;
    rfi_ring_generation(&t->ring, UINT64_MAX >> 16, &g); /* nobody grows it any more */
    *ret_bytes = rfi_ring_lap_bytes(&t->ring, &g);
    return 0;
}

int rf_batch_arena(rf_trainer *t, const rf_batch *b, const void **ret_base, uint64_t *ret_bytes)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    if (!b || !ret_base || !ret_bytes)
        return rfi_trainer_fail(t, EINVAL, "rf_batch_arena: a null pointer. Pass a batch and places for the answers");
    const struct rfi_config_shared *c = &t->run.config;
    for (uint32_t i = 0; i < c->arenas && !b->resident; i++) {
        const unsigned char *base = t->writable ? t->arena_maps[i] : rfi_run_arena(&t->run, i);
        if (!base || (size_t)(b->data - base) >= c->arena_bytes)
            continue;
        *ret_base = base;
        return settle(t, ret_bytes);
    }
    return rfi_trainer_fail(t, EINVAL, "ticket %" PRIu64 " of rank %u does not lie in an arena of this handle",
                            b->ticket, t->ring.rank);
}

static int map_arena(struct rf_trainer *t, bool writable, struct rfi_error *err)
{
    t->writable = writable;
    if (writable && !(t->arena_maps = calloc(t->run.config.arenas, sizeof *t->arena_maps)))
        return rfi_fail(err, ENOMEM, "out of memory");
    t->arena = rfi_trainer_arena(t, t->local);
    return t->arena ? 0 : rfi_fail(err, -t->err.code, "%s", t->err.text);
}

/* Where the rank stands: at the first batch whose release counts. */
static void take_position(struct rf_trainer *t)
{
    struct rfi_trainer_shared *tr = t->ring.tr;
    t->released = t->next = atomic_load_explicit(&tr->released, memory_order_acquire);
    atomic_store_explicit(&tr->taken, t->next, memory_order_relaxed);
    atomic_store_explicit(&tr->want, 0, memory_order_relaxed);
    atomic_store_explicit(&tr->waiting, 0, memory_order_relaxed);
    t->cuts = UINT64_MAX; /* looked up by the next `next` */
    struct rfi_generation g;
    uint64_t batch;
    rfi_ring_generation_settled(&t->ring, t->next, &g);
    t->epoch = g.epoch;
    if (t->next < g.end_ticket)
        rfi_run_content(&t->lens, &g, t->next, &t->epoch, &batch);
}

static int attach_once(const char *name, uint32_t rank, bool writable, struct rf_trainer *t, struct rfi_error *err)
{
    int rc = rfi_run_attach(name, true, &t->run, err);
    if (rc < 0)
        return rc;
    const struct rfi_config_shared *c = &t->run.config;
    if (rfi_run_orphaned(&t->run))
        return rfi_fail(err, ENOENT,
                        "the server of run '%s' (process %lld) is dead. Start it again, or remove it with "
                        "`ringfeed gc`",
                        name, (long long)t->run.segment.owner_pid);
    if (rank < c->first_rank || rank - c->first_rank >= c->ranks)
        return rfi_fail(err, ERANGE, "no rank %u in run '%s': it holds ranks %u to %u. Correct --rank", rank, name,
                        c->first_rank, c->first_rank + c->ranks - 1);
    t->local = rank - c->first_rank;
    t->given_back = calloc(c->depth, sizeof *t->given_back);
    if (!t->given_back)
        return rfi_fail(err, ENOMEM, "out of memory");
    rc = rfi_dataset_from_image(t->run.dataset, t->run.dataset_bytes, &t->dataset, err);
    if (rc == 0)
        rc = rfi_trainer_connect(t, rank, err);
    if (rc == 0)
        RFI_FAIL_POINT("attach");
    if (rc == 0)
        rc = map_words(t, err);
    if (rc == 0)
        rc = map_arena(t, writable, err);
    if (rc == 0) {
        t->lens = t->run.ranks[t->local].lens;
        take_position(t);
    }
    return rc;
}

static void hang_up(struct rf_trainer *t)
{
    if (t->sock < 0 || (t->sock_inode && !rfi_trainer_connected(t)))
        return;
    if (is_ours(t)) /* a forked child may have a copy: end the lease, not just our descriptor */
        shutdown(t->sock, SHUT_RDWR);
    close(t->sock);
    t->sock = -1;
}

static void unmap(struct rf_trainer *t)
{
    hang_up(t);
    if (t->tr_page)
        munmap(t->tr_page, RFI_TRAINER_BYTES);
    if (t->bell_page)
        munmap(t->bell_page, RFI_BELL_BYTES);
    for (uint32_t i = 0; t->arena_maps && i < t->run.config.arenas; i++)
        if (t->arena_maps[i])
            munmap(t->arena_maps[i], t->run.config.arena_bytes);
    free(t->arena_maps);
    if (t->dataset)
        rfi_dataset_close(t->dataset);
    free(t->given_back);
    rfi_run_close(&t->run);
    munmap(t->mark, MARK_BYTES);
    free(t);
}

static struct rf_trainer *blank(void)
{
    struct rf_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->mark = map_mark();
    if (!t->mark) {
        free(t);
        return NULL;
    }
    t->sock = -1;
    t->pid = getpid();
    t->run.segment.lock_fd = t->run.segment.control_fd = t->run.segment.data_fd = -1;
    return t;
}

int rf_attach(const char *name, uint32_t rank, const rf_attach_options *o, rf_trainer **ret)
{
    struct rfi_error *err = rfi_thread_error();
    rf_attach_options defaults;
    rf_attach_options_init(&defaults);
    if (!o)
        o = &defaults;
    if (!ret || o->size != sizeof *o)
        return rfi_fail(err, EINVAL,
                        "wrong arguments: options not made by rf_attach_options_init, or no place for the handle");
    int timeout_ms = o->timeout_ms < 0 ? DEFAULT_TIMEOUT_MS : o->timeout_ms;
    uint64_t until = rfi_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        struct rf_trainer *t = blank();
        if (!t)
            return rfi_fail(err, ENOMEM, "out of memory");
        uint64_t now = rfi_now_ns();
        t->exchange_ms = now < until ? (int)((until - now) / 1000000u) + 1 : 1000;
        int rc = attach_once(name, rank, o->writable, t, err);
        if (rc == 0) {
            t->exchange_ms = EXCHANGE_MS;
            *ret = t;
            return 0;
        }
        unmap(t);
        /* Not there, not ready, or dead with a successor perhaps under way: worth waiting for. There is no
         * object to sleep on before the run exists. */
        if ((rc != -ENOENT && rc != -EAGAIN) || rfi_now_ns() >= until)
            return rc;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
}

static void give_up(struct rf_trainer *t)
{
    if (t->left || !is_ours(t) || lease_is_lost(t)) /* a forked child only lets go of its copies */
        return;
    atomic_store_explicit(&t->ring.tr->taken, t->released, memory_order_relaxed);
    atomic_store_explicit(&t->ring.tr->waiting, 0, memory_order_relaxed);
    rfi_trainer_goodbye(t);
    RFI_FAIL_POINT("detach");
}

int rf_leave(rf_trainer *t)
{
    int rc = rfi_trainer_check(t);
    if (rc < 0)
        return rc;
    give_up(t);
    hang_up(t);
    t->left = true;
    return 0;
}

int rf_detach(rf_trainer *t)
{
    if (!t)
        return 0;
    give_up(t);
    unmap(t);
    return 0;
}

const struct rfi_run_view *rfi_trainer_run(const rf_trainer *t)
{
    return &t->run;
}

const struct rfi_dataset *rfi_trainer_dataset(const rf_trainer *t)
{
    return t->dataset;
}

void rfi_trainer_interrupt_by(rf_trainer *t, const volatile sig_atomic_t *flag)
{
    t->interrupt = flag;
}

void rf_on_wait(rf_trainer *t, int (*check)(void *ctx), void *ctx)
{
    if (!t)
        return;
    t->on_wait = check;
    t->on_wait_ctx = ctx;
}

const char *rf_trainer_error(const rf_trainer *t)
{
    return t ? t->err.text : rf_last_error();
}

void rf_trainer_get_info(const rf_trainer *t, rf_trainer_info *ret)
{
    if (!t || !ret)
        return;
    const struct rfi_config_shared *c = &t->run.config;
    *ret = (rf_trainer_info){.rank = t->ring.rank,
                             .world_size = c->world_size,
                             .first_rank = c->first_rank,
                             .ranks = c->ranks,
                             .depth = rfi_ring_ahead(&t->ring),
                             .batch = c->batch,
                             .epochs = c->epochs,
                             .start_epoch = c->start_epoch,
                             .len = t->lens.len,
                             .samples = c->samples,
                             .fixed_bytes = c->fixed_bytes,
                             .n_fields = c->n_fields,
                             .arena_bytes = c->arena_bytes,
                             .server_pid = (int)t->run.segment.owner_pid,
                             .exchanges = c->gated != 0};
    snprintf(ret->name, sizeof ret->name, "%.64s", t->run.segment.name);
}

void rf_trainer_get_dataset(const rf_trainer *t, rf_dataset_info *ret)
{
    if (t && ret)
        rfi_dataset_info(t->dataset, ret);
}

const char *rf_trainer_field_name(const rf_trainer *t, uint32_t field)
{
    return t && field < t->run.config.n_fields ? rfi_dataset_field_name(t->dataset, field) : NULL;
}
