/* A state as text. */
#include "checkpoint/state.h"
#include "order/names.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

static void put(json_object *o, const char *key, uint64_t value)
{
    json_object_object_add(o, key, json_object_new_uint64(value));
}

static void put_text(json_object *o, const char *key, const char *value)
{
    if (value)
        json_object_object_add(o, key, json_object_new_string(value));
}

static void put_order(json_object *j, const rf_order_options *o)
{
    put(j, "world_size", o->world_size);
    put(j, "batch", o->batch);
    put_text(j, "strategy", rfi_strategy_names[o->strategy]);
    put_text(j, "base", rfi_strategy_names[o->base]);
    put_text(j, "shuffle", rfi_shuffle_names[o->shuffle]);
    put(j, "seed", o->seed);
    put(j, "repeat_order", o->repeat_order != 0);
    put_text(j, "tail", rfi_tail_names[o->tail]);
    put(j, "block_samples", o->block_samples);
    put(j, "window_blocks", o->window_blocks);
    put(j, "hash_partitions", o->hash_partitions);
    put(j, "hash_seed", o->hash_seed);
    put_text(j, "hash_key", rfi_hash_key_names[o->hash_key]);
    put_text(j, "ranges", o->ranges);
    put(j, "allow_gaps", o->allow_gaps != 0);
    put(j, "allow_overlap", o->allow_overlap != 0);
    put_text(j, "subset", o->subset);
    if (o->subset_sequence)
        put(j, "subset_sequence", 1);
    put_text(j, "split", o->split);
    put_text(j, "use", o->use);
}

static json_object *ranks_of(const struct rfi_stage_state *st)
{
    json_object *ranks = json_object_new_array();
    for (uint32_t r = 0; r < st->o.world_size; r++) {
        if (!st->known[r])
            continue;
        json_object *rank = json_object_new_object();
        put(rank, "rank", r);
        put(rank, "epoch", st->at[r].epoch);
        put(rank, "batch", st->at[r].batch);
        json_object_array_add(ranks, rank);
    }
    return ranks;
}

static json_object *moves_of(const struct rfi_stage_state *st)
{
    json_object *moves = json_object_new_array();
    for (uint64_t i = 0; i < st->n_moves; i++) {
        const struct rfi_move *m = &st->moves[i];
        json_object *move = json_object_new_object();
        put(move, "epoch", m->epoch);
        put(move, "donor", m->donor);
        put(move, "recipient", m->recipient);
        put(move, "cut", m->cut);
        put(move, "count", m->count);
        json_object_array_add(moves, move);
    }
    return moves;
}

static json_object *faults_of(const struct rfi_stage_state *st)
{
    json_object *faults = json_object_new_array();
    for (uint64_t i = 0; i < st->n_faults; i++) {
        const struct rfi_fault *f = &st->faults[i];
        json_object *fault = json_object_new_object();
        put(fault, "epoch", f->epoch);
        put(fault, "rank", f->rank);
        put(fault, "batch", f->batch);
        put(fault, "slot", f->slot);
        put(fault, "sample", f->sample);
        if (f->substitute != RFI_FAULT_SKIPPED) /* absent: left out */
            put(fault, "substitute", f->substitute);
        put(fault, "file", f->file);
        put(fault, "offset", f->offset);
        put(fault, "error", f->error);
        json_object_array_add(faults, fault);
    }
    return faults;
}

static json_object *to_json(const struct rfi_state *s)
{
    char when[40] = "";
    time_t t = (time_t)s->time_s;
    struct tm tm;
    if (gmtime_r(&t, &tm))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_object *top = json_object_new_object(), *stages = json_object_new_array();
    put(top, "ringfeed_checkpoint", RFI_STATE_VERSION);
    put_text(top, "run", s->run);
    put_text(top, "name", s->name);
    put_text(top, "time", when);
    json_object_object_add(top, "time_s", json_object_new_int64(s->time_s));
    put_text(top, "fingerprint", s->fingerprint);
    put(top, "samples", s->samples);
    put(top, "start_epoch", s->start_epoch);
    for (uint32_t i = 0; i < s->n_stages; i++) {
        json_object *stage = json_object_new_object();
        put_order(stage, &s->stages[i].o);
        json_object_object_add(stage, "ranks", ranks_of(&s->stages[i]));
        json_object_object_add(stage, "moves", moves_of(&s->stages[i]));
        json_object_object_add(stage, "faults", faults_of(&s->stages[i]));
        json_object_array_add(stages, stage);
    }
    json_object_object_add(top, "stages", stages);
    return top;
}

/* The object's closing brace makes room for the checksum of all that stands before. */
char *rfi_state_text(const struct rfi_state *s, size_t *ret_bytes)
{
    json_object *top = to_json(s);
    size_t n = 0;
    const char *text =
        top ? json_object_to_json_string_length(top, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED, &n) : NULL;
    char *ret = NULL;
    if (text && n > 2) {
        for (n--; n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '); n--)
            ;
        ret = malloc(n + 64);
    }
    if (ret) {
        memcpy(ret, text, n);
        n += (size_t)sprintf(ret + n, ",\n  \"checksum\": \"%016" PRIx64 "\"\n}\n", (uint64_t)XXH3_64bits(text, n));
        *ret_bytes = n;
    }
    json_object_put(top);
    return ret;
}
