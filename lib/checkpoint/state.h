/* Where a run stands, as it is written down: everything that the order depends on, how far each rank has
 * come, and the logs. A *stage* is a part of a run's life with one world size; the last stage is the one that
 * goes on. The same text is the checkpoint file and, at birth, the ORIGIN region of the segment, so that what
 * a dead server left behind can be read like a file.
 *
 * File format: one JSON object; its last member is "checksum", 16 hex digits of XXH3-64 over every byte
 * before that member's comma. Written to a temporary file, synced, renamed; the one before becomes FILE.prev. */
#pragma once

#include "base/error.h"
#include "order/faults.h"
#include "order/past.h"

#include <ringfeed/ringfeed.h>
#include <stdbool.h>

enum { RFI_STATE_VERSION = 1 };

struct rfi_stage_state {
    rf_order_options o; /* strings owned */
    struct rfi_position *at; /* [world_size] */
    bool *known; /* [world_size]: a file of one server knows its own ranks */
    struct rfi_move *moves;
    uint64_t n_moves;
    struct rfi_fault *faults; /* samples left out or replaced */
    uint64_t n_faults;
};

struct rfi_state {
    char fingerprint[40], name[72];
    char run[40]; /* identity of the training, kept from one life to the next */
    uint64_t samples; /* of the dataset */
    int64_t time_s; /* when it was taken, since 1970 */
    uint64_t start_epoch;
    bool partial; /* other servers' ranks may be unknown, as long as the world stays the same; not in the file */
    uint32_t n_stages;
    struct rfi_stage_state stages[RFI_STAGES_MAX];
};

static inline struct rfi_stage_state *rfi_state_now(struct rfi_state *s)
{
    return &s->stages[s->n_stages - 1];
}

static inline const struct rfi_stage_state *rfi_state_last(const struct rfi_state *s)
{
    return &s->stages[s->n_stages - 1];
}

/* A stage with room for its ranks, at (0, 0) and unknown; strings are copied. -ENOMEM; -E2BIG: too many. */
int rfi_state_add_stage(struct rfi_state *s, const rf_order_options *o, struct rfi_error *err);
int rfi_state_set_moves(struct rfi_stage_state *st, const struct rfi_move *moves, uint64_t n, struct rfi_error *err);
int rfi_state_set_faults(struct rfi_stage_state *st, const struct rfi_fault *faults, uint64_t n, struct rfi_error *err);
int rfi_state_copy(const struct rfi_state *from, struct rfi_state *ret, struct rfi_error *err);
void rfi_state_fini(struct rfi_state *s);

/* The text, malloced, with its checksum and a newline; NULL: no memory. */
char *rfi_state_text(const struct rfi_state *s, size_t *ret_bytes);

/* The reverse; `where` names the source in errors. -EBADMSG: damaged, or not a checkpoint. */
int rfi_state_parse(const char *text, size_t bytes, const char *where, struct rfi_state *ret, struct rfi_error *err);

/* FILE and FILE.prev. Writing is atomic and durable: after a crash at any instant one of both is whole. */
int rfi_state_write(const struct rfi_state *s, const char *path, struct rfi_error *err);
int rfi_state_read(const char *path, struct rfi_state *ret, struct rfi_error *err);

/* The newer valid one of FILE and FILE.prev; -ENOENT: neither is there; what is damaged and passed over is
 * said in *note. */
int rfi_state_read_either(const char *path, struct rfi_state *ret, struct rfi_error *note, struct rfi_error *err);

/* One state out of several servers' files. Moves `more`'s ranks and moves into `s`. -EINVAL: not of one run,
 * or a rank twice; both values named. */
int rfi_state_merge(struct rfi_state *s, const struct rfi_state *more, struct rfi_error *err);

/* -EINVAL names the first rank that no file has. */
int rfi_state_complete(const struct rfi_state *s, struct rfi_error *err);
