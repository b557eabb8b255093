/* The trainer's side of the socket: the lease and its few requests. */
#include "attach/trainer.h"

#include "run/wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EXCHANGE_MS = 10000 };

static int exchange(struct rf_trainer *t, uint32_t op, uint32_t rank, uint64_t epoch, struct rfi_reply *r,
                    struct rfi_error *err)
{
    struct rfi_request q = {.magic = RFI_WIRE_MAGIC, .op = op, .rank = rank, .epoch = epoch};
    memcpy(q.nonce, t->run.segment.nonce, sizeof q.nonce);
    ssize_t n = send(t->sock, &q, sizeof q, MSG_NOSIGNAL);
    struct pollfd p = {.fd = t->sock, .events = POLLIN};
    int ready = 0;
    while (n == (ssize_t)sizeof q && (ready = poll(&p, 1, EXCHANGE_MS)) < 0 && errno == EINTR)
        ;
    if (ready == 0 && n == (ssize_t)sizeof q)
        return rfi_fail(err, ETIMEDOUT,
                        "the server of run '%s' (process %lld) did not answer within %d s. Is it stopped?",
                        t->run.segment.name, (long long)t->run.segment.owner_pid, EXCHANGE_MS / 1000);
    n = ready > 0 ? recv(t->sock, r, sizeof *r, 0) : -1;
    if (n != (ssize_t)sizeof *r)
        return rfi_fail(err, EPIPE,
                        "the server of run '%s' (process %lld) has ended. Start it again with `ringfeed serve`",
                        t->run.segment.name, (long long)t->run.segment.owner_pid);
    r->text[sizeof r->text - 1] = 0;
    return r->status < 0 ? rfi_fail(err, -r->status, "%s", r->text) : 0;
}

int rfi_trainer_connect(struct rf_trainer *t, uint32_t rank, struct rfi_error *err)
{
    struct sockaddr_un address;
    struct rfi_reply r;
    socklen_t length = rfi_wire_address(t->run.segment.name, t->run.segment.nonce, &address);
    t->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (t->sock < 0)
        return rfi_fail(err, errno, "cannot make a unix socket: %s", strerror(errno));
    if (connect(t->sock, (struct sockaddr *)&address, length) < 0)
        return rfi_fail(
            err, errno == ECONNREFUSED ? ENOENT : errno,
            "no server answers for run '%s': it is dead or lives in another network namespace. Remove a dead run "
            "with `ringfeed gc`",
            t->run.segment.name);
    int rc = exchange(t, RFI_OP_ATTACH, rank, 0, &r, err);
    if (rc == 0)
        t->incarnation = r.incarnation;
    return rc;
}

int rfi_trainer_exchange(struct rf_trainer *t, uint32_t op, uint64_t epoch, uint64_t *ret_ticket)
{
    struct rfi_reply r;
    int rc = exchange(t, op, t->ring.rank, epoch, &r, &t->err);
    if (rc == 0)
        *ret_ticket = r.ticket;
    return rc;
}
