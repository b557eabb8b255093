/* The trainer's side of the socket: the lease and its few requests. */
#include "attach/trainer.h"

#include "base/clock.h"
#include "run/wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* 1: the reply to request `seq` is in *r; 0: it did not come in time; -1: the connection is over. */
static int await_reply(struct rf_trainer *t, uint32_t seq, struct rfi_reply *r)
{
    uint64_t until = rfi_now_ns() + (uint64_t)t->exchange_ms * 1000000u;
    for (;;) {
        struct pollfd p = {.fd = t->sock, .events = POLLIN};
        uint64_t now = rfi_now_ns();
        if (now >= until)
            return 0;
        int ready = poll(&p, 1, (int)((until - now) / 1000000u) + 1);
        if (ready < 0 && errno != EINTR)
            return -1;
        if (ready <= 0)
            continue;
        if (recv(t->sock, r, sizeof *r, MSG_DONTWAIT) != (ssize_t)sizeof *r)
            return -1;
        if (r->seq == seq)
            return 1;
    }
}

static int ask(struct rf_trainer *t, struct rfi_request *q, struct rfi_reply *r, struct rfi_error *err)
{
    q->magic = RFI_WIRE_MAGIC;
    q->seq = ++t->seq;
    memcpy(q->nonce, t->run.segment.nonce, sizeof q->nonce);
    ssize_t n = send(t->sock, q, sizeof *q, MSG_NOSIGNAL);
    int ready = n == (ssize_t)sizeof *q ? await_reply(t, q->seq, r) : -1;
    if (ready == 0) {
        t->broken = true; /* the server may still do it: only a new handle knows where the ring stands */
        return rfi_fail(
            err, ETIMEDOUT,
            "the server of run '%s' (process %lld) did not answer within %d ms. Is it stopped? Attach again "
            "when it runs",
            t->run.segment.name, (long long)t->run.segment.owner_pid, t->exchange_ms);
    }
    if (ready < 0)
        return rfi_fail(err, EPIPE,
                        "the server of run '%s' (process %lld) has ended. Start it again with `ringfeed serve`",
                        t->run.segment.name, (long long)t->run.segment.owner_pid);
    r->text[sizeof r->text - 1] = 0;
    return r->status < 0 ? rfi_fail(err, -r->status, "%s", r->text) : 0;
}

static int exchange(struct rf_trainer *t, uint32_t op, uint32_t rank, uint64_t epoch, uint64_t batch,
                    struct rfi_reply *r, struct rfi_error *err)
{
    return ask(t, &(struct rfi_request){.op = op, .rank = rank, .epoch = epoch, .batch = batch}, r, err);
}

int rfi_trainer_connect(struct rf_trainer *t, uint32_t rank, struct rfi_error *err)
{
    struct sockaddr_un address;
    struct rfi_reply r;
    socklen_t length = rfi_wire_address(t->run.segment.name, t->run.segment.nonce, &address);
    t->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (t->sock < 0)
        return rfi_fail(err, errno, "cannot make a unix socket: %s", strerror(errno));
    /* A full backlog (a stopped server) must not hold us for ever. */
    struct timeval limit = {.tv_sec = t->exchange_ms / 1000, .tv_usec = t->exchange_ms % 1000 * 1000 + 1};
    setsockopt(t->sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(t->sock, (struct sockaddr *)&address, length) < 0)
        return rfi_fail(
            err, errno == ECONNREFUSED ? ENOENT : errno,
            "no server answers for run '%s': it is dead or lives in another network namespace. Remove a dead run "
            "with `ringfeed gc`",
            t->run.segment.name);
    struct stat st;
    t->sock_inode = fstat(t->sock, &st) == 0 ? st.st_ino : 0;
    int rc = exchange(t, RFI_OP_ATTACH, rank, 0, 0, &r, err);
    if (rc == 0)
        t->incarnation = r.incarnation;
    return rc;
}

int rfi_trainer_exchange(struct rf_trainer *t, uint32_t op, uint64_t epoch, uint64_t batch, uint64_t *ret_ticket)
{
    struct rfi_reply r;
    if (!rfi_trainer_connected(t))
        return rfi_trainer_fail(t, EPIPE,
                                "the connection of rank %u to the server of run '%s' was closed by this program. "
                                "Attach again",
                                t->ring.rank, t->run.segment.name);
    int rc = exchange(t, op, t->ring.rank, epoch, batch, &r, &t->err);
    if (rc == 0)
        *ret_ticket = r.ticket;
    return rc;
}

int rfi_trainer_register(struct rf_trainer *t, uint64_t epoch, const uint64_t *indices, size_t n)
{
    struct rfi_request q = {.op = RFI_OP_REGISTER, .rank = t->ring.rank, .epoch = epoch, .n_indices = n};
    struct rfi_reply r;
    if (n)
        memcpy(q.indices, indices, n * sizeof *indices);
    return ask(t, &q, &r, &t->err);
}

bool rfi_trainer_connected(const struct rf_trainer *t)
{
    struct stat st;
    return t->sock >= 0 && fstat(t->sock, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == t->sock_inode;
}

void rfi_trainer_goodbye(struct rf_trainer *t)
{
    if (!rfi_trainer_connected(t))
        return;
    struct rfi_request q = {.magic = RFI_WIRE_MAGIC, .op = RFI_OP_DETACH, .rank = t->ring.rank, .seq = ++t->seq};
    memcpy(q.nonce, t->run.segment.nonce, sizeof q.nonce);
    (void)!send(t->sock, &q, sizeof q, MSG_NOSIGNAL | MSG_DONTWAIT);
}
