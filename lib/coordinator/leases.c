/* Trainers: who has which rank. A lease is a connection plus the peer's pidfd; it ends when either
 * says so (close, exec, death). A forked child of the trainer that keeps the socket open cannot keep the
 * lease: the pidfd is of the trainer itself. */
#include "coordinator/internal.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

int rfi_leases_open(struct rfi_coordinator *c)
{
    struct sockaddr_un address;
    socklen_t length = rfi_wire_address(c->o->name, c->run.segment.nonce, &address);
    c->leases = calloc(c->run.config.ranks, sizeof *c->leases);
    if (!c->leases)
        return rfi_fail(c->err, ENOMEM, "out of memory");
    for (uint32_t i = 0; i < c->run.config.ranks; i++)
        c->leases[i].sock = c->leases[i].pidfd = -1;
    for (uint32_t i = 0; i < RFI_PENDING; i++)
        c->pending[i] = -1;
    c->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&address, length) < 0 || listen(c->listener, 128) < 0)
        return rfi_fail(c->err, errno, "cannot listen for trainers on a unix socket: %s", strerror(errno));
    return rfi_watch(c, c->listener, RFI_EV_LISTEN, 0);
}

__attribute__((format(printf, 6, 7))) static void reply(int sock, uint32_t seq, int status, uint32_t incarnation,
                                                        uint64_t ticket, const char *fmt, ...)
{
    struct rfi_reply r = {.status = status, .incarnation = incarnation, .seq = seq, .ticket = ticket};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r.text, sizeof r.text, fmt, ap);
    va_end(ap);
    (void)!send(sock, &r, sizeof r, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void rfi_lease_accept(struct rfi_coordinator *c)
{
    int sock = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (sock < 0)
        return;
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t n = sizeof peer;
    getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &n);
    uint32_t i = c->next_pending++ % RFI_PENDING; /* the oldest silent one loses its place */
    if (peer.uid != geteuid() && peer.uid != 0) {
        reply(sock, 0, -EACCES, 0, 0, "run '%s' belongs to user %u, not to user %u", c->o->name, (unsigned)geteuid(),
              (unsigned)peer.uid);
        close(sock);
        return;
    }
    if (c->pending[i] >= 0) {
        rfi_unwatch(c, c->pending[i]);
        close(c->pending[i]);
    }
    c->pending[i] = sock;
    rfi_watch(c, sock, RFI_EV_PENDING, i);
}

static bool lease_alive(const struct rfi_lease *l)
{
    struct pollfd p[2] = {{.fd = l->pidfd, .events = POLLIN}, {.fd = l->sock, .events = 0}};
    return l->sock >= 0 && poll(p, 2, 0) >= 0 && !p[0].revents && !(p[1].revents & (POLLHUP | POLLERR));
}

/* A pidfd of the process at the other end: from the socket itself (Linux 6.5), else by number, which is
 * right as long as the connection still stands afterwards. */
static int peer_pidfd(int sock, pid_t pid)
{
    int fd = -1;
    socklen_t n = sizeof fd;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &n) == 0)
        return fd;
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = sock};
    if (fd >= 0 && poll(&p, 1, 0) >= 0 && (p.revents & POLLHUP)) {
        close(fd);
        return -1;
    }
    return fd;
}

void rfi_lease_end(struct rfi_coordinator *c, uint32_t rank)
{
    struct rfi_lease *l = &c->leases[rank];
    struct rfi_request q; /* a goodbye may still be on its way in: death can be seen before it */
    while (l->sock >= 0 && recv(l->sock, &q, sizeof q, MSG_DONTWAIT) == (ssize_t)sizeof q)
        l->goodbye |= q.magic == RFI_WIRE_MAGIC && q.op == RFI_OP_DETACH;
    int fds[] = {l->sock, l->pidfd};
    for (int i = 0; i < 2; i++) {
        if (fds[i] < 0)
            continue;
        rfi_unwatch(c, fds[i]); /* by hand: a worker being forked may still have a copy of it */
        close(fds[i]);
    }
    bool died = l->sock >= 0 && !l->goodbye;
    if (l->sock >= 0)
        atomic_store_explicit(&c->run.ranks[rank].died, died, memory_order_relaxed);
    l->sock = l->pidfd = -1;
    l->pid = 0;
    atomic_store_explicit(&c->run.rings[rank].tr->waiting, 0, memory_order_relaxed);
    atomic_store_explicit(&c->run.ranks[rank].pid, 0, memory_order_release);
    if (died)
        rfi_rank_died(c, rank);
}

void rfi_lease_died(struct rfi_coordinator *c, uint32_t rank)
{
    /* The event may be of the trainer before this one, when both came in one reading of epoll. */
    if (!lease_alive(&c->leases[rank]))
        rfi_lease_end(c, rank);
}

/* The request's rank as a local index, after checks that concern every request. */
static int check_request(struct rfi_coordinator *c, int sock, const struct rfi_request *q, uint32_t *ret)
{
    const struct rfi_config_shared *f = &c->run.config;
    if (q->magic != RFI_WIRE_MAGIC || memcmp(q->nonce, c->run.segment.nonce, sizeof q->nonce) != 0) {
        reply(sock, q->seq, -EPROTO, 0, 0, "the request is not for this run. Attach again");
        return -1;
    }
    if (q->rank < f->first_rank || q->rank - f->first_rank >= f->ranks) {
        reply(sock, q->seq, -ERANGE, 0, 0, "no rank %u in run '%s': it holds ranks %u to %u. Correct --rank", q->rank,
              c->o->name, f->first_rank, f->first_rank + f->ranks - 1);
        return -1;
    }
    *ret = q->rank - f->first_rank;
    return 0;
}

static bool grant(struct rfi_coordinator *c, int sock, const struct rfi_request *q)
{
    struct ucred peer = {0};
    socklen_t n = sizeof peer;
    uint32_t rank;
    if (check_request(c, sock, q, &rank) < 0)
        return false;
    struct rfi_lease *l = &c->leases[rank];
    if (l->sock >= 0 && lease_alive(l)) {
        reply(sock, q->seq, -EBUSY, 0, 0,
              "rank %u of run '%s' already has a trainer: process %d lives. Use another rank or end that "
              "process",
              q->rank, c->o->name, (int)l->pid);
        return false;
    }
    rfi_lease_end(c, rank);
    if (rfi_rank_failed(c, rank)) {
        reply(sock, q->seq, -ESRCH, 0, 0,
              "rank %u of run '%s' was given up when its trainer died, and its batches went to the others "
              "(--on-dead-rank redistribute)",
              q->rank, c->o->name);
        return false;
    }
    getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &n);
    int pidfd = peer_pidfd(sock, peer.pid);
    if (pidfd < 0) {
        reply(sock, q->seq, -ESRCH, 0, 0, "process %d is not visible to the server (another pid namespace?)",
              (int)peer.pid);
        return false;
    }
    *l = (struct rfi_lease){.sock = sock, .pidfd = pidfd, .pid = peer.pid, .ever = true};
    if (c->measured) /* a new trainer, a new measure */
        c->measured[rank] = (struct rfi_measured){0};
    uint32_t incarnation = atomic_fetch_add_explicit(&c->run.ranks[rank].incarnation, 1, memory_order_relaxed) + 1;
    atomic_store_explicit(&c->run.ranks[rank].attached_ns, rfi_now_ns(), memory_order_relaxed);
    atomic_store_explicit(&c->run.ranks[rank].pid, peer.pid, memory_order_release);
    rfi_watch(c, sock, RFI_EV_SOCK, rank);
    rfi_watch(c, pidfd, RFI_EV_TRAINER, rank);
    reply(sock, q->seq, 0, incarnation, 0, "%s", "");
    return true;
}

void rfi_lease_pending(struct rfi_coordinator *c, uint32_t index)
{
    struct rfi_request q;
    int sock = c->pending[index];
    if (sock < 0)
        return;
    ssize_t n = recv(sock, &q, sizeof q, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->pending[index] = -1;
    /* epoll knows the descriptor, not the slot: forget it here, a granted lease watches it anew. */
    rfi_unwatch(c, sock);
    if (n != (ssize_t)sizeof q || q.op != RFI_OP_ATTACH || !grant(c, sock, &q))
        close(sock);
}

/* A cut: from the next ticket on, the ring stands at `batch` of `epoch`. */
static void seek(struct rfi_coordinator *c, uint32_t rank, const struct rfi_request *q)
{
    uint32_t seq = q->seq;
    uint64_t epoch = q->epoch, batch = q->batch;
    struct rfi_ring *r = &c->run.rings[rank];
    int sock = c->leases[rank].sock;
    uint64_t end = c->o->start_epoch + c->o->epochs;
    bool at_end = q->op == RFI_OP_RESTORE && epoch == end && batch == 0;
    if (epoch < c->o->start_epoch || (c->o->epochs && epoch >= end && !at_end)) {
        reply(sock, seq, -ERANGE, 0, 0,
              "epoch %llu is not served: the run has epochs %llu to %llu. Start it with more --epochs",
              (unsigned long long)epoch, (unsigned long long)c->o->start_epoch,
              (unsigned long long)(c->o->epochs ? end - 1 : UINT64_MAX));
        return;
    }
    if (c->run.config.gated) {
        reply(
            sock, seq, -ENOTSUP, 0, 0,
            "the ranks of run '%s' exchange batches, so an epoch cannot be begun again by one of them. Use a strategy "
            "other than adaptive and --on-dead-rank wait",
            c->o->name);
        return;
    }
    uint64_t len = rfi_run_len(&c->run.ranks[rank].lens, epoch);
    if (batch > len) {
        reply(sock, seq, -ERANGE, 0, 0, "epoch %llu has %llu batches for rank %u: there is no batch %llu",
              (unsigned long long)epoch, (unsigned long long)len, r->rank, (unsigned long long)batch);
        return;
    }
    uint64_t cut = rfi_ring_hold(r);
    struct rfi_generation g = {.epoch = epoch,
                               .batch = batch,
                               .end_ticket = rfi_end_ticket(c, rank, cut, epoch, batch),
                               .log_length = atomic_load_explicit(&c->run.moves->n, memory_order_relaxed)};
    rfi_ring_append(r, cut, &g);
    rfi_bell_ring(r->bell);
    reply(sock, seq, 0, 0, cut, "%s", "");
}

/* Each sample must be in the rank's sequence; the first one that is not is named. */
static void registered(struct rfi_coordinator *c, uint32_t rank, const struct rfi_request *q)
{
    int sock = c->leases[rank].sock;
    uint32_t mine = c->run.config.first_rank + rank;
    struct rfi_error err = {0};
    if (!c->view && rfi_view_create(c->order, &c->view, &err) < 0) {
        reply(sock, q->seq, err.code, 0, 0, "%.400s", err.text);
        return;
    }
    for (uint64_t i = 0; i < rfi_min(q->n_indices, RFI_WIRE_INDICES); i++) {
        uint32_t owner;
        uint64_t position;
        if (rfi_view_locate(c->view, q->epoch, q->indices[i], &owner, &position) < 0) {
            reply(
                sock, q->seq, -EINVAL, 0, 0,
                "sample %llu is in no rank's sequence of epoch %llu (%llu samples). Register what the partition gives",
                (unsigned long long)q->indices[i], (unsigned long long)q->epoch,
                (unsigned long long)rfi_order_samples(c->order));
            return;
        }
        if (owner != mine) {
            reply(sock, q->seq, -EINVAL, 0, 0,
                  "sample %llu belongs to rank %u in epoch %llu, not to rank %u. Register what the partition gives",
                  (unsigned long long)q->indices[i], owner, (unsigned long long)q->epoch, mine);
            return;
        }
    }
    reply(sock, q->seq, 0, 0, 0, "%s", "");
}

static void settle(struct rfi_coordinator *c, uint32_t rank, const struct rfi_request *q)
{
    c->leases[rank].settled = true; /* no growth is half made: grow.c looks before each part of one */
    reply(c->leases[rank].sock, q->seq, 0, 0, 0, "%s", "");
}

void rfi_lease_message(struct rfi_coordinator *c, uint32_t rank)
{
    struct rfi_request q;
    uint32_t named;
    int sock = c->leases[rank].sock;
    if (sock < 0)
        return;
    ssize_t n = recv(sock, &q, sizeof q, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != (ssize_t)sizeof q) { /* closed, or not our language */
        rfi_lease_end(c, rank);
        return;
    }
    if (check_request(c, sock, &q, &named) < 0)
        return;
    if (named == rank && q.op == RFI_OP_DETACH)
        c->leases[rank].goodbye = true;
    else if (named == rank && (q.op == RFI_OP_SEEK || q.op == RFI_OP_RESTORE))
        seek(c, rank, &q);
    else if (named == rank && q.op == RFI_OP_REBALANCE)
        reply(sock, q.seq, 0, 0, rfi_balance_now(c) == RFI_BALANCE_MOVED, "%s", "");
    else if (named == rank && q.op == RFI_OP_SETTLE)
        settle(c, rank, &q);
    else if (named == rank && q.op == RFI_OP_REGISTER)
        registered(c, rank, &q);
    else
        reply(sock, q.seq, -EPROTO, 0, 0, "the server does not know this request. Use the same version on both sides");
}

bool rfi_leases_done(const struct rfi_coordinator *c)
{
    for (uint32_t i = 0; i < c->run.config.ranks; i++) {
        const struct rfi_ring *r = &c->run.rings[i];
        struct rfi_generation g;
        rfi_ring_generation(r, UINT64_MAX >> 16, &g);
        if (atomic_load_explicit(&c->run.ranks[i].failed, memory_order_relaxed))
            continue;
        if (!c->leases[i].ever || atomic_load_explicit(&r->tr->released, memory_order_acquire) < g.end_ticket)
            return false;
    }
    return true;
}

void rfi_leases_close(struct rfi_coordinator *c)
{
    for (uint32_t i = 0; c->leases && i < c->run.config.ranks; i++) {
        if (c->leases[i].sock >= 0)
            close(c->leases[i].sock);
        if (c->leases[i].pidfd >= 0)
            close(c->leases[i].pidfd);
    }
    for (uint32_t i = 0; i < RFI_PENDING; i++)
        if (c->pending[i] >= 0)
            close(c->pending[i]);
    if (c->listener >= 0)
        close(c->listener);
}
