/* Messages between a trainer and its run's parent, over a SOCK_SEQPACKET unix socket in the abstract
 * namespace (nothing on disk, gone with its owner): "\0ringfeed.NAME.<nonce in hex>". The connection is
 * the trainer's lease: its end tells the parent of detach and exec, and the trainer of the parent's death;
 * the peer's pidfd tells of its death. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RFI_WIRE_MAGIC 0x31574652u /* "RFW1" */

enum rfi_wire_op {
    RFI_OP_ATTACH = 1,
    RFI_OP_SEEK = 2 /* this rank goes to `batch` of `epoch` */,
    RFI_OP_DETACH = 3 /* goodbye: no reply */,
    RFI_OP_RESTORE = 4 /* as SEEK, and the end of the last epoch is a place too */,
    RFI_OP_REBALANCE = 5 /* look at the balance now: `ticket` of the reply is 1 when batches moved */,
    RFI_OP_SETTLE = 6 /* the ring stays as large as it is while this trainer is here */,
    RFI_OP_REGISTER = 16 /* are these samples in this rank's sequence of `epoch`? */
};

enum { RFI_WIRE_INDICES = 32 };

struct rfi_request {
    uint32_t magic, op;
    uint32_t rank; /* global */
    uint32_t seq; /* of this connection; comes back in the reply */
    uint64_t nonce[2];
    uint64_t epoch, batch;
    uint64_t n_indices, indices[RFI_WIRE_INDICES]; /* REGISTER */
};

struct rfi_reply {
    int32_t status; /* 0 or negative errno */
    uint32_t incarnation;
    uint32_t seq, pad;
    uint64_t ticket; /* SEEK: first ticket of the new generation */
    char text[488];
};

static inline socklen_t rfi_wire_address(const char *name, const uint64_t nonce[2], struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    int n = snprintf(ret->sun_path + 1, sizeof ret->sun_path - 1, "ringfeed.%.64s.%016llx", name,
                     (unsigned long long)nonce[0]);
    return (socklen_t)(sizeof(sa_family_t) + 1 + (unsigned)n);
}
