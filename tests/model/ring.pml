/* The ring protocol of lib/ring: workers, one trainer, the parent and the disk, in interleaving semantics
 * (what the memory model needs is in wakeup.pml). Each d_step is one access to shared memory, or a look at
 * several words of which a stale view changes nothing.
 *
 * What can go wrong shows in three ways: the trainer finds wrong content in a batch (when it takes it or
 * before it gives it back), an assert, or everyone waits (an invalid end state) or turns in circles (a non-progress cycle). The disk writes late: a
 * read that a worker submitted may land long after the worker's death, and then with other bytes.
 *
 * Sizes are -D options: DEPTH slots, ARENA blocks, TICKETS to take, and how many CUTS, KILLS of workers and
 * trainer CRASHES happen at most. Each MUT_x breaks one rule; run.py demands that every one of them fails. */

#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef ARENA
#define ARENA 4
#endif
#ifndef TICKETS
#define TICKETS 4
#endif
#ifndef CUTS
#define CUTS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef ERRORS /* 1: a batch may be published as ERROR while reads into it are under way */
#define ERRORS 0
#endif
#ifndef HOLD /* batches that the trainer holds at once, 1 or 2 */
#define HOLD 1
#endif

/* Slot states; ERROR is what a worker publishes when one of its reads failed while others are under way. */
#define FREE 0
#define CLAIMED 1
#define READY 2
#define ERROR 3
#define HELD 4

#define SLOT(t) ((t) % DEPTH)
#define LAP(t) ((t) / DEPTH)
#ifdef MUT_ONE_PLACE_WORD
#define PLACE(t) SLOT(t)
#else
#define PLACE(t) (SLOT(t) * 2 + LAP(t) % 2)
#endif
/* Place words: offset * 16 + lap, or wiped. */
#define WIPED 4096
#define IS_SET(word, t) ((word) < WIPED && (word) % 16 == LAP(t))
#define OFFSET(word) ((word) / 16)

/* Footprints, 1 to 3 blocks, and the bytes of batch t of content g. */
#define BLOCKS(g, t) (1 + ((t) * 2 + (g) * 2 + 1) % 3)
#define BYTES(g, t) ((g) * 16 + (t) + 1)
#define GARBAGE 255
#define AFTER(end, blocks) (((end) % ARENA + (blocks) > ARENA) -> ((end) / ARENA + 1) * ARENA : (end))

byte ticket[DEPTH], state[DEPTH], owner[DEPTH], mask[DEPTH];
short place[DEPTH * 2];
byte desc_content[DEPTH], desc_offset[DEPTH]; /* descriptor */
byte freed, released;
bool frozen;
/* Generation records: enough room that none is pushed out. */
byte gen_first[CUTS + 1], gen_content[CUTS + 1], gen_place[CUTS + 1];
byte n_gens = 1, cuts;
byte counted; /* cuts, each from before its first place is wiped */
byte cell[ARENA];
/* One read under way per worker: it fills the batch's whole region. */
bool reading[WORKERS];
byte read_offset[WORKERS], read_blocks[WORKERS], read_bytes[WORKERS];
bool dead[WORKERS]; /* killed */
bool gone[WORKERS]; /* and reaped: it does nothing more, but its read may */
byte kills, crashes;
bool finished;
byte reset_to; /* the trainer is told to go on there */
/* What is right: content g begins at ticket truth[g]. */
byte truth[CUTS + 1];

/* The content that the newest record at or below t names; its first ticket and place. */
inline lookup(t, r_index)
{
    r_index = n_gens - 1;
    do
    :: gen_first[r_index] > t -> r_index--
    :: else -> break
    od
}

/* ---- worker ---- */

#define PUBLISHED(s) (state[s] == READY || state[s] == ERROR)

#ifdef MUT_EDGE_IGNORES_WRITERS
#define QUIET(s) true
#else
#define QUIET(s) (mask[s] == 0)
#endif

#ifdef MUT_CLAIM_IGNORES_WRITERS
#define FREE_AT(t) ((t) < TICKETS && ticket[SLOT(t)] == (t) && state[SLOT(t)] == FREE)
#define LOUD(s) false
#else
#define FREE_AT(t) ((t) < TICKETS && ticket[SLOT(t)] == (t) && state[SLOT(t)] == FREE && mask[SLOT(t)] == 0)
#ifdef MUT_MASK_BEFORE_CLAIM
#define LOUD(s) false
#else
#define LOUD(s) (mask[s] != 0)
#endif
#endif

#ifdef MUT_RECYCLE_UNPUBLISHED
#define RECYCLABLE(t) (ticket[SLOT(t)] == (t) && QUIET(SLOT(t)))
#else
#define RECYCLABLE(t) (ticket[SLOT(t)] == (t) && PUBLISHED(SLOT(t)) && QUIET(SLOT(t)))
#endif
#ifdef MUT_NO_HELP
#define LEFT_HALF_WAY false
#else
#define LEFT_HALF_WAY (ticket[SLOT(freed)] != freed)
#endif
#define CAN_RECYCLE (!frozen && freed < released && (LEFT_HALF_WAY || RECYCLABLE(freed)))
#define FITS(t) (!IS_SET(place[PLACE(t)], t) || !IS_SET(place[PLACE(freed)], freed) || \
                 OFFSET(place[PLACE(t)]) <= OFFSET(place[PLACE(freed)]) + ARENA - 1)

/* Something may be there to do: stands for the doorbell and the look before a worker sleeps. */
#define WORK (CAN_RECYCLE || FREE_AT(freed) || FREE_AT(freed + 1) && FITS(freed + 1) || \
              DEPTH > 2 && FREE_AT(freed + DEPTH - 1) && FITS(freed + DEPTH - 1))

#define FORGET t = 0; f = 0; edge = 0; index = 0; content = 0; where = 0; seen = 0; calm = 0; again = false

/* Looks at the place of t: if it is set, `where`; if not, what is needed to compute it. The record is read in
 * two halves, which may be of two records. */
inline look(t)
{
    seen = place[PLACE(t)];
    lookup(t, index);
    content = gen_content[index];
    where = (IS_SET(seen, t) -> OFFSET(seen) : 0)
}

/* The count of cuts before record and place are looked up, and none under way: what a claim goes by afterwards. */
#ifdef MUT_SHORT_IN_CUT
#define CALM counted
#else
#define CALM (frozen -> 255 : counted)
#endif
#ifdef MUT_SHORT_ALWAYS
#define UNCHANGED true
#else
#define UNCHANGED (calm == counted)
#endif

/* The place below `freed` must never get lost while freed's own is unset: nobody could compute any place. */
inline chain_holds()
{
    d_step {
        if
        :: freed > 0 && ticket[SLOT(freed)] == freed && !IS_SET(place[PLACE(freed)], freed) ->
            lookup(freed, index);
            assert(gen_first[index] == freed || IS_SET(place[PLACE(freed - 1)], freed - 1))
        :: else
        fi;
        index = 0
    }
}

/* Sets the place of t after look(t) found it unset; whatever was seen may be out of date at each step. */
inline set_place(t)
{
    d_step {
        again = false;
        if
        :: gen_first[index] == t -> where = gen_place[index]
        :: gen_first[index] != t && t > 0 ->
            if
            :: IS_SET(place[PLACE(t - 1)], t - 1) ->
                where = OFFSET(place[PLACE(t - 1)]) + BLOCKS(content, t - 1);
                where = AFTER(where, BLOCKS(content, t))
            :: else -> again = true
            fi
        :: else -> again = true
        fi
    };
    d_step { again = again || ticket[SLOT(t)] != t || state[SLOT(t)] == HELD || place[PLACE(t)] != seen };
    if
    :: again
    :: else ->
        d_step {
#ifndef MUT_PLACE_STORE
            again = (place[PLACE(t)] != seen);
#endif
            if
            :: !again -> place[PLACE(t)] = where * 16 + LAP(t)
            :: else
            fi
        }
    fi
}

/* Not the protocol's: fewer states, and whoever lives in that region too early loses its bytes. */
inline forget_batch(t)
{
    index = 0;
    do
    :: index < BLOCKS(desc_content[SLOT(t)], t) -> cell[(desc_offset[SLOT(t)] + index) % ARENA] = 0; index++
    :: else -> break
    od;
    index = 0;
    desc_content[SLOT(t)] = 0;
    desc_offset[SLOT(t)] = 0;
    owner[SLOT(t)] = 0
}

proctype worker(byte me)
{
    byte t, f, edge, index, content, where, calm;
    short seen;
    bool again;

birth:
    {
        skip;
    idle: /* (spin lets nothing jump to a d_step) */
        atomic { FORGET };
        if
        :: finished -> goto over
        :: d_step { CAN_RECYCLE && !finished -> t = freed; /* the slot first */
                if
                :: RECYCLABLE(t) ->
                    ticket[SLOT(t)] = t + DEPTH;
                    state[SLOT(t)] = FREE;
                    forget_batch(t)
                :: else
                fi
            };
            d_step { /* then the edge; anyone may do it for a dead one */
                if
                :: freed == t && !frozen -> freed = t + 1
                :: else
                fi
            };
            goto idle
        :: WORK && !CAN_RECYCLE && !finished
        fi;

        /* The edge. */
        d_step { f = freed; look(f) };
        if
        :: IS_SET(seen, f)
        :: else ->
            set_place(f);
            if
            :: again -> goto idle
            :: else
            fi
        fi;
        /* It was freed's place if freed stood still. Then the oldest free ticket, and its place. */
        d_step {
            again = (freed != f);
            edge = where + ARENA;
            where = 0;
            t = f;
            do
            :: t < f + DEPTH && !FREE_AT(t) -> t++
            :: else -> break
            od;
            again = again || t == f + DEPTH
        };
        if
        :: again -> goto idle
        :: else -> d_step { calm = CALM; look(t) } /* an older count would only be stricter */
        fi;
        if
        :: IS_SET(seen, t)
        :: else ->
            set_place(t);
            if
            :: again -> goto idle
            :: else
            fi
        fi;

        /* The claim, if it seems to fit. */
        d_step {
            again = (where + BLOCKS(content, t) > edge || ticket[SLOT(t)] != t || state[SLOT(t)] != FREE);
            if
            :: !again -> state[SLOT(t)] = CLAIMED; owner[SLOT(t)] = me
            :: else
            fi
        };
        if
        :: again -> goto idle
        :: else
        fi;

        /* Everything once more, now that it cannot change; nothing when no cut was made since. */
#ifndef MUT_CONTENT_BEFORE_CLAIM
#ifdef MUT_NO_RECHECK
        d_step { lookup(t, index); content = gen_content[index] };
#else
        d_step {
            again = LOUD(SLOT(t));
            calm = (UNCHANGED -> 1 : 0);
            if
            :: !calm -> look(t)
            :: else
            fi
        };
        if
        :: again || calm || IS_SET(seen, t)
        :: else -> set_place(t)
        fi;
#endif
#endif
        /* The batch: one read, which the disk does. */
        d_step {
#ifndef MUT_NO_RECHECK
            again = again || where + BLOCKS(content, t) > edge;
#endif
            assert(again || where % ARENA + BLOCKS(content, t) <= ARENA); /* a batch never wraps */
            if
            :: again -> state[SLOT(t)] = FREE /* unclaim */
            :: else ->
                mask[SLOT(t)] = mask[SLOT(t)] | (1 << me);
                read_offset[me] = where % ARENA;
                read_blocks[me] = BLOCKS(content, t);
                read_bytes[me] = BYTES(content, t);
                reading[me] = true;
                desc_content[SLOT(t)] = content;
                desc_offset[SLOT(t)] = where % ARENA
            fi;
            f = 0; edge = 0; index = 0; content = 0; where = 0; seen = 0; calm = 0
        };
        if
        :: again -> goto idle
        :: else
        fi;
        if
        :: d_step { !reading[me] -> mask[SLOT(t)] = mask[SLOT(t)] & ~(1 << me) };
        progress_published:
            state[SLOT(t)] = READY
        :: d_step { ERRORS && reading[me] -> state[SLOT(t)] = ERROR }; /* one read failed, others are under way */
            d_step { !reading[me] -> mask[SLOT(t)] = mask[SLOT(t)] & ~(1 << me) }
        fi;
        goto idle
    } unless { dead[me] };
    d_step { FORGET; gone[me] = true };
    if
    :: !dead[me] -> gone[me] = false; goto birth
    :: finished
    fi;
over:
    skip
}

/* ---- the disk ---- */

proctype disk()
{
    byte i, w;

end:
    do
    :: d_step {
            (reading[0] || reading[WORKERS - 1]);
            w = (reading[0] -> 0 : WORKERS - 1);
            i = 0;
            do
            :: i < read_blocks[w] ->
                cell[read_offset[w] + i] = (dead[w] -> GARBAGE : read_bytes[w]);
                i++
            :: else -> break
            od;
            reading[w] = false;
            read_offset[w] = 0; read_blocks[w] = 0; read_bytes[w] = 0; /* fewer states */
            i = 0;
            w = 0
        }
    :: d_step {
            (reading[0] && reading[WORKERS - 1]);
            w = WORKERS - 1;
            i = 0;
            do
            :: i < read_blocks[w] ->
                cell[read_offset[w] + i] = (dead[w] -> GARBAGE : read_bytes[w]);
                i++
            :: else -> break
            od;
            reading[w] = false;
            read_offset[w] = 0; read_blocks[w] = 0; read_bytes[w] = 0; /* fewer states */
            i = 0;
            w = 0
        }
    od
}

/* ---- trainer ---- */

/* Everything about batch t is what it should be. */
inline check(t)
{
    d_step {
        g = cuts_known;
        do
        :: truth[g] > t -> g--
        :: else -> break
        od;
        assert(ticket[SLOT(t)] == t);
        assert(desc_content[SLOT(t)] == g);
        i = 0;
        do
        :: i < BLOCKS(g, t) && state[SLOT(t)] == READY ->
            assert(cell[desc_offset[SLOT(t)] + i] == BYTES(g, t));
            i++
        :: else -> break
        od;
        i = 0;
        g = 0
    }
}

byte cuts_known; /* contents that `truth` knows */

/* Holds up to two batches and may give the second one back first. */
proctype trainer()
{
    byte next, held, i, g; /* held: bit 0: next - 2 .. see below */
    byte first; /* oldest ticket not given back */
    bool later; /* the second one was given back before the first */

    do
    :: next - first < HOLD && next < TICKETS && ticket[SLOT(next)] == next && PUBLISHED(SLOT(next)) ->
        check(next);
        next++
    :: HOLD > 1 && next - first == 2 && !later -> /* the second one first: marked, and counts later */
        check(first + 1);
        later = true;
#ifdef MUT_RELEASE_OUT_OF_ORDER
        released = next;
#endif
    :: next > first ->
        check(first);
        d_step {
            if
            :: later -> first = next
            :: else -> first++
            fi;
            later = false;
            if
            :: released < first -> released = first
            :: else
            fi
        }
    :: reset_to > next -> /* drops what it holds */
        d_step { next = reset_to; first = next; later = false; released = next }
    :: crashes < CRASHES && next > 0 -> /* a new one goes on at the first release that does not count */
        d_step { crashes++; next = released; first = released; later = false }
    :: next >= TICKETS && next == first -> break
    od;
    finished = true
}

/* ---- parent ---- */

inline cut()
{
    d_step {
#ifndef MUT_NO_FREEZE
        frozen = true;
#endif
        f = freed;
#ifdef MUT_CUT_BACK
        at = f;
#else
        at = (gen_first[n_gens - 1] > f -> gen_first[n_gens - 1] : f);
#endif
        t = f
    };
    do
    :: t < f + DEPTH ->
        d_step {
            if
            :: ticket[SLOT(t)] == t && state[SLOT(t)] == FREE ->
#ifndef MUT_NO_HOLD
                state[SLOT(t)] = HELD
#endif
            :: else -> at = (t >= at -> t + 1 : at)
            fi;
            t++
        }
    :: else -> break
    od;
    assert(at >= released); /* or the beginning of the new content is given back before it is delivered */
    /* The lap after the batch before: its place may be unknown, each step reaches one lap further. */
    atomic { t = at; laps = 0; again = (gen_first[n_gens - 1] != at); where = gen_place[n_gens - 1] };
    do
    :: again ->
        d_step {
            t--;
            laps++;
            lookup(t, index);
            if
            :: IS_SET(place[PLACE(t)], t) -> where = OFFSET(place[PLACE(t)]); again = false
            :: !IS_SET(place[PLACE(t)], t) && gen_first[index] == t -> where = gen_place[index]; again = false
            :: else
            fi
        }
    :: else -> break
    od;
    atomic {
        where = (laps > 0 -> (where / ARENA + laps) * ARENA : where);
        index = (gen_first[n_gens - 1] == at -> n_gens - 1 : n_gens);
        cuts_known++;
        truth[cuts_known] = at;
        /* an earlier content that never began */
        g = cuts_known;
        do
        :: g > 0 && truth[g - 1] >= at -> g--; truth[g] = 200
        :: else -> break
        od
    };
    gen_content[index] = cuts_known;
    d_step { gen_first[index] = at; gen_place[index] = where; n_gens = index + 1 };
    counted++;
    atomic {
        t = at;
        do
        :: t < f + DEPTH ->
#ifndef MUT_NO_WIPE
            place[PLACE(t)] = WIPED + cuts_known;
#endif
            t++
        :: else -> break
        od
    };
    atomic {
        t = f;
        do
        :: t < f + DEPTH ->
            if
            :: ticket[SLOT(t)] == t && state[SLOT(t)] == HELD -> state[SLOT(t)] = FREE
            :: else
            fi;
            t++
        :: else -> break
        od
    };
    chain_holds();
    frozen = false;
    d_step { cuts++; t = 0; f = 0; laps = 0; index = 0; where = 0; g = 0 }
}

inline free_claims(w)
{
    d_step {
        t = 0;
        do
        :: t < DEPTH ->
            if
            :: state[t] == CLAIMED && owner[t] == w -> state[t] = FREE
            :: else
            fi;
            t++
        :: else -> break
        od;
        t = 0
    }
}

/* The words may be freed before the drain: the mask alone keeps everyone off the region until it is over. */
inline bury(w)
{
    if
    :: free_claims(w)
    :: skip
    fi;
#ifndef MUT_NO_DRAIN
    !reading[w];
#endif
    d_step {
        t = 0;
        do
        :: t < DEPTH -> mask[t] = mask[t] & ~(1 << w); t++
        :: else -> break
        od;
        t = 0
    };
    free_claims(w);
#ifdef MUT_NO_DRAIN
    !reading[w]; /* the next worker has another io_uring; what matters has happened */
#endif
    dead[w] = false
}

proctype parent()
{
    byte t, f, at, index, where, laps, g;
    bool again;

    do
    :: cuts < CUTS && !finished ->
        cut();
        if
        :: reset_to = at
        :: skip /* the trainer just goes on */
        fi;
        at = 0
    :: dead[0] && gone[0] && !finished -> bury(0)
    :: finished -> break
    od
}

/* Kills worker 0: the two are alike. */
proctype killer()
{
end:
    do
    :: d_step { kills < KILLS && !dead[0] && !finished -> dead[0] = true; kills++ }
    od
}

init
{
    byte i;

    atomic {
        do
        :: i < DEPTH ->
            ticket[i] = i;
            place[i * 2] = WIPED;
            place[i * 2 + 1] = WIPED;
            i++
        :: else -> break
        od;
        i = 0;
        run worker(0);
#if WORKERS > 1
        run worker(1);
#endif
        run disk();
        run trainer();
        run parent();
#if KILLS > 0
        run killer()
#endif
    }
}
