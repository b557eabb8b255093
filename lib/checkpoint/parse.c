/* Text to state. The checksum is looked at first, over every byte; what comes after trusts nothing all the
 * same, since anybody can compute a checksum. */
#include "checkpoint/state.h"
#include "order/names.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct reading {
    const char *where;
    struct rfi_error *err;
    bool failed;
};

static void bad(struct reading *r, const char *what)
{
    if (r->failed)
        return;
    r->failed = true;
    rfi_fail(r->err, EBADMSG, "%s: damaged: %s. Use the one before it, or start without --resume", r->where, what);
}

static json_object *member(struct reading *r, json_object *o, const char *key, enum json_type type)
{
    json_object *v = NULL;
    if (o && json_object_object_get_ex(o, key, &v) && json_object_is_type(v, type))
        return v;
    char what[80];
    snprintf(what, sizeof what, "no proper member \"%s\"", key);
    bad(r, what);
    return NULL;
}

static uint64_t number(struct reading *r, json_object *o, const char *key, uint64_t most)
{
    json_object *v = member(r, o, key, json_type_int);
    if (!v)
        return 0;
    uint64_t n = json_object_get_uint64(v);
    if ((json_object_get_int64(v) < 0 && n == 0) || n > most) {
        char what[80];
        snprintf(what, sizeof what, "member \"%s\" is out of range", key);
        bad(r, what);
        return 0;
    }
    return n;
}

/* A string member into a fixed place. */
static void text(struct reading *r, json_object *o, const char *key, char *ret, size_t room)
{
    json_object *v = member(r, o, key, json_type_string);
    if (v && (size_t)json_object_get_string_len(v) < room && strlen(json_object_get_string(v)) < room)
        snprintf(ret, room, "%s", json_object_get_string(v));
    else
        bad(r, "a text is too long");
}

static const char *optional(json_object *o, const char *key)
{
    json_object *v = NULL;
    return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v)
                                                                                             : NULL;
}

static int word(struct reading *r, json_object *o, const char *key, const char *const *names, int n)
{
    json_object *v = member(r, o, key, json_type_string);
    for (int i = 0; v && i < n; i++)
        if (strcmp(json_object_get_string(v), names[i]) == 0)
            return i;
    bad(r, "an unknown word");
    return 0;
}

static rf_order_options order_of(struct reading *r, json_object *j)
{
    rf_order_options o = {.size = sizeof o};
    o.world_size = (uint32_t)number(r, j, "world_size", 1000000);
    o.batch = number(r, j, "batch", UINT32_MAX);
    o.strategy = (rf_strategy)word(r, j, "strategy", rfi_strategy_names, 6);
    o.base = (rf_strategy)word(r, j, "base", rfi_strategy_names, 5);
    o.shuffle = (rf_shuffle)word(r, j, "shuffle", rfi_shuffle_names, 3);
    o.seed = number(r, j, "seed", UINT64_MAX);
    o.repeat_order = number(r, j, "repeat_order", 1);
    o.tail = (rf_tail)word(r, j, "tail", rfi_tail_names, 3);
    o.block_samples = number(r, j, "block_samples", UINT64_MAX);
    o.window_blocks = number(r, j, "window_blocks", UINT64_MAX);
    o.hash_partitions = number(r, j, "hash_partitions", UINT64_MAX);
    o.hash_seed = number(r, j, "hash_seed", UINT64_MAX);
    o.hash_key = (rf_hash_key)word(r, j, "hash_key", rfi_hash_key_names, 3);
    o.ranges = optional(j, "ranges");
    o.allow_gaps = number(r, j, "allow_gaps", 1) != 0;
    o.allow_overlap = number(r, j, "allow_overlap", 1) != 0;
    o.subset = optional(j, "subset");
    o.subset_sequence = json_object_object_get_ex(j, "subset_sequence", NULL) ? number(r, j, "subset_sequence", 1) : 0;
    o.split = optional(j, "split");
    o.use = optional(j, "use");
    return o;
}

static void read_ranks(struct reading *r, json_object *j, struct rfi_stage_state *st)
{
    json_object *ranks = member(r, j, "ranks", json_type_array);
    size_t n = ranks ? json_object_array_length(ranks) : 0;
    for (size_t i = 0; i < n && !r->failed; i++) {
        json_object *rank = json_object_array_get_idx(ranks, i);
        uint64_t k = number(r, rank, "rank", st->o.world_size - 1);
        if (r->failed || st->known[k]) {
            bad(r, "a rank twice");
            return;
        }
        st->known[k] = true;
        st->at[k].epoch = number(r, rank, "epoch", UINT64_MAX / 2);
        st->at[k].batch = number(r, rank, "batch", UINT64_MAX / 2);
    }
}

static void read_moves(struct reading *r, json_object *j, struct rfi_stage_state *st)
{
    json_object *moves = member(r, j, "moves", json_type_array);
    size_t n = moves ? json_object_array_length(moves) : 0;
    st->moves = calloc(n ? n : 1, sizeof *st->moves);
    if (!st->moves) {
        bad(r, "no memory for the moves");
        return;
    }
    for (; st->n_moves < n && !r->failed; st->n_moves++) {
        json_object *m = json_object_array_get_idx(moves, st->n_moves);
        struct rfi_move *to = &st->moves[st->n_moves];
        to->epoch = number(r, m, "epoch", UINT64_MAX / 2);
        to->donor = (uint32_t)number(r, m, "donor", st->o.world_size - 1);
        to->recipient = (uint32_t)number(r, m, "recipient", st->o.world_size - 1);
        to->cut = number(r, m, "cut", UINT64_MAX / 2);
        to->count = number(r, m, "count", UINT64_MAX / 2);
    }
}

static void read_faults(struct reading *r, json_object *j, struct rfi_stage_state *st)
{
    json_object *faults = member(r, j, "faults", json_type_array), *substitute;
    size_t n = faults ? json_object_array_length(faults) : 0;
    st->faults = calloc(n ? n : 1, sizeof *st->faults);
    if (!st->faults) {
        bad(r, "no memory for the faults");
        return;
    }
    for (; st->n_faults < n && !r->failed; st->n_faults++) {
        json_object *f = json_object_array_get_idx(faults, st->n_faults);
        struct rfi_fault *to = &st->faults[st->n_faults];
        to->epoch = number(r, f, "epoch", UINT64_MAX / 2);
        to->rank = number(r, f, "rank", st->o.world_size - 1);
        to->batch = number(r, f, "batch", UINT64_MAX / 2);
        to->slot = number(r, f, "slot", st->o.batch - 1);
        to->sample = number(r, f, "sample", UINT64_MAX / 2);
        to->file = (uint32_t)number(r, f, "file", UINT32_MAX);
        to->offset = number(r, f, "offset", UINT64_MAX);
        to->error = (uint32_t)number(r, f, "error", 4095);
        to->substitute = RFI_FAULT_SKIPPED;
        if (json_object_object_get_ex(f, "substitute", &substitute))
            to->substitute = number(r, f, "substitute", UINT64_MAX / 2);
    }
}

static void read_stage(struct reading *r, json_object *j, struct rfi_state *s)
{
    rf_order_options o = order_of(r, j);
    if (!r->failed && (o.world_size == 0 || o.batch == 0))
        bad(r, "a world or a batch of 0");
    if (r->failed)
        return;
    if (rfi_state_add_stage(s, &o, r->err) < 0) {
        r->failed = true;
        return;
    }
    read_ranks(r, j, rfi_state_now(s));
    read_moves(r, j, rfi_state_now(s));
    read_faults(r, j, rfi_state_now(s));
}

/* Stages before the last one ended for all ranks at once: each must be known. */
static void check_stages(struct reading *r, const struct rfi_state *s)
{
    for (uint32_t i = 0; i + 1 < s->n_stages; i++)
        for (uint32_t k = 0; k < s->stages[i].o.world_size; k++)
            if (!s->stages[i].known[k])
                bad(r, "an earlier stage lacks a rank");
    if (s->n_stages == 0)
        bad(r, "no stage");
}

static void read_all(struct reading *r, json_object *top, struct rfi_state *s)
{
    uint64_t version = number(r, top, "ringfeed_checkpoint", UINT64_MAX);
    if (!r->failed && version != RFI_STATE_VERSION) {
        r->failed = true;
        rfi_fail(r->err, EBADMSG, "%s: checkpoint version %" PRIu64 ", and this ringfeed reads version %d", r->where,
                 version, RFI_STATE_VERSION);
        return;
    }
    text(r, top, "run", s->run, sizeof s->run);
    text(r, top, "name", s->name, sizeof s->name);
    text(r, top, "fingerprint", s->fingerprint, sizeof s->fingerprint);
    s->samples = number(r, top, "samples", UINT64_MAX);
    s->time_s = (int64_t)number(r, top, "time_s", INT64_MAX);
    s->start_epoch = number(r, top, "start_epoch", UINT64_MAX / 2);
    json_object *stages = member(r, top, "stages", json_type_array);
    size_t n = stages ? json_object_array_length(stages) : 0;
    for (size_t i = 0; i < n && !r->failed; i++)
        read_stage(r, json_object_array_get_idx(stages, i), s);
    if (!r->failed)
        check_stages(r, s);
}

/* Bytes before the checksum's comma, or 0. */
static size_t checked_bytes(const char *text_, size_t bytes)
{
    static const char head[] = ",\n  \"checksum\": \"", tail[] = "\"\n}\n";
    enum { HEAD = sizeof head - 1, TAIL = sizeof tail - 1, DIGITS = 16 };
    char digits[DIGITS + 1];
    if (bytes < HEAD + DIGITS + TAIL + 2)
        return 0;
    size_t n = bytes - HEAD - DIGITS - TAIL;
    snprintf(digits, sizeof digits, "%016" PRIx64, (uint64_t)XXH3_64bits(text_, n));
    bool same = memcmp(text_ + n, head, HEAD) == 0 && memcmp(text_ + n + HEAD, digits, DIGITS) == 0 &&
                memcmp(text_ + bytes - TAIL, tail, TAIL) == 0;
    return same ? n : 0;
}

int rfi_state_parse(const char *text_, size_t bytes, const char *where, struct rfi_state *ret, struct rfi_error *err)
{
    struct reading r = {.where = where, .err = err};
    *ret = (struct rfi_state){0};
    if (bytes > INT_MAX || !checked_bytes(text_, bytes))
        return rfi_fail(err, EBADMSG,
                        "%s: damaged or no checkpoint: its checksum is not right. Use the one before it, or start "
                        "without --resume",
                        where);
    struct json_tokener *tok = json_tokener_new();
    json_object *top = tok ? json_tokener_parse_ex(tok, text_, (int)bytes) : NULL;
    if (top && json_object_is_type(top, json_type_object))
        read_all(&r, top, ret);
    else
        bad(&r, "no JSON object");
    json_object_put(top);
    if (tok)
        json_tokener_free(tok);
    if (!r.failed)
        return 0;
    rfi_state_fini(ret);
    return err->code;
}
