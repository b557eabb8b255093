/* The move of a ring to a fresh arena (lib/ring/move.c, lib/coordinator/retire.c): worker 0 is killed with a read in
 * flight that ends at any later time, or never. What ring.pml has is coarse here: a batch is one block, and a place is
 * computed and set in one step. What it does not have: arenas, records that are rewritten, io_urings that
 * are retired and come back, the old arena that comes back.
 *
 * Wrong shows as wrong bytes when a batch is taken or given back, or as an invalid end state. Each MUT_x breaks one
 * rule. */

#ifndef TICKETS
#define TICKETS 5
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define DEPTH 3
#define ARENA 3
#define ARENAS 2
#define QUEUES 3 /* worker 0's, worker 1's, a spare */

#define FREE 0
#define CLAIMED 1
#define READY 2
#define HELD 3
#define SLOT(t) ((t) % DEPTH)
#define PLACE(t) (SLOT(t) * 2 + ((t) / DEPTH) % 2)
#define NONE 255
#define GARBAGE 200

byte ticket[DEPTH], state[DEPTH], owner[DEPTH], mask[DEPTH], at[DEPTH]; /* at: cell of the descriptor */
byte place[DEPTH * 2], whose[DEPTH * 2]; /* NONE: wiped; `whose`: for which ticket it is set */
byte cell[ARENA * ARENAS];
byte freed, released;
bool frozen, finished;
byte gen_first[KILLS + 1], gen_place[KILLS + 1], gen_arena[KILLS + 1], n_gens = 1; /* the arena since gen_first */
byte queue[2]; /* of the workers */
bool reading[QUEUES];
byte lands[QUEUES]; /* where a read goes */
byte brings[QUEUES];
bool hung[QUEUES]; /* its process is dead: nobody waits for it but the parent */
bool dead, gone;
byte kills, spare = 2; /* a queue, or NONE */
byte here, old = NONE, old_queue, old_until, other = 1; /* arenas: the ring's; one left behind; a spare one or NONE */

#define IS_SET(t) (place[PLACE(t)] != NONE && whose[PLACE(t)] == (t))
#define CLAIMABLE(t) ((t) < TICKETS && (t) < freed + DEPTH && ticket[SLOT(t)] == (t) && state[SLOT(t)] == FREE && \
                      mask[SLOT(t)] == 0)
#ifdef MUT_PLACE_LATER
#define PLACED(t) true
#else
#define PLACED(t) IS_SET(t)
#endif
#define RECYCLABLE (!frozen && freed < released && ticket[SLOT(freed)] == freed && state[SLOT(freed)] == READY && \
                    mask[SLOT(freed)] == 0 && PLACED(freed))

inline lookup(t, i)
{
    i = n_gens - 1;
    do
    :: gen_first[i] > t -> i--
    :: else -> break
    od
}

/* Sets the places from the nearest set one up to t, or none. */
inline ensure(t)
{
    k = t;
    lookup(k, g);
    do
    :: !IS_SET(k) && gen_first[g] != k && k > 0 && k + 1 > freed -> k--; lookup(k, g)
    :: else -> break
    od;
    do
    :: k <= t ->
        lookup(k, g);
        if
        :: IS_SET(k)
        :: !IS_SET(k) && (ticket[SLOT(k)] != k || state[SLOT(k)] == HELD) -> break
        :: !IS_SET(k) && ticket[SLOT(k)] == k && state[SLOT(k)] != HELD && gen_first[g] == k ->
            place[PLACE(k)] = gen_place[g]; whose[PLACE(k)] = k
        :: !IS_SET(k) && ticket[SLOT(k)] == k && state[SLOT(k)] != HELD && gen_first[g] != k && k > 0 && IS_SET(k - 1) ->
            place[PLACE(k)] = place[PLACE(k - 1)] + 1; whose[PLACE(k)] = k
        :: else -> break
        fi;
        k++
    :: else -> break
    od;
    k = 0;
    g = 0
}

/* Below the edge: in the newest arena nothing from before the move takes room. */
#define FROM (gen_first[n_gens - 1])
#define LOW (FROM > freed -> FROM : freed)
#define FITS(t) (IS_SET(t) && IS_SET(LOW) && place[PLACE(t)] < place[PLACE(LOW)] + ARENA)

proctype worker(byte me)
{
    byte t, arena, k, g, low;
    bool fits;

birth:
    {
        skip;
    idle:
        do
        :: finished -> goto over
        :: d_step { RECYCLABLE && !finished ->
                state[SLOT(freed)] = FREE; ticket[SLOT(freed)] = freed + DEPTH; freed++ }
        :: d_step { !frozen && freed < TICKETS && !finished && !(IS_SET(freed) && IS_SET(LOW)) && ticket[SLOT(freed)] == freed ->
                low = LOW; ensure(freed); ensure(low); low = 0;
                assert(IS_SET(freed)) /* or nobody could ever go on */ }
        :: d_step { CLAIMABLE(freed) && !finished -> t = freed; state[SLOT(t)] = CLAIMED; owner[SLOT(t)] = me } break
        :: d_step { CLAIMABLE(freed + 1) && !finished -> t = freed + 1; state[SLOT(t)] = CLAIMED; owner[SLOT(t)] = me } break
        :: d_step { CLAIMABLE(freed + 2) && !finished -> t = freed + 2; state[SLOT(t)] = CLAIMED; owner[SLOT(t)] = me } break
        od;
        skip;
        /* The record, then the place: of one arena only if no move comes in between. */
        d_step { lookup(t, g); arena = gen_arena[g]; g = 0 };
        d_step { low = LOW; ensure(low); ensure(t); fits = FITS(t); low = 0 };
        if
        :: !fits -> d_step { state[SLOT(t)] = FREE; owner[SLOT(t)] = 0; t = 0; arena = 0 }; goto idle
        :: else
        fi;
        skip;
        d_step {
            at[SLOT(t)] = arena * ARENA + place[PLACE(t)] % ARENA;
            mask[SLOT(t)] = mask[SLOT(t)] | (1 << queue[me]);
            reading[queue[me]] = true; lands[queue[me]] = at[SLOT(t)]; brings[queue[me]] = t + 1;
            fits = false; arena = 0
        };
        d_step { !reading[queue[me]] -> mask[SLOT(t)] = mask[SLOT(t)] & ~(1 << queue[me]) };
        d_step { state[SLOT(t)] = READY; owner[SLOT(t)] = 0; t = 0 };
        goto idle
    } unless { me == 0 && dead };
    d_step { t = 0; arena = 0; k = 0; g = 0; low = 0; fits = false; gone = true };
    if
    :: !dead -> gone = false; goto birth
    :: finished
    fi;
over:
    skip
}

/* A read of a dead process brings other bytes, when it likes: it may also never end. */
proctype disk()
{
end:
    do
    :: d_step { reading[0] -> cell[lands[0]] = (hung[0] -> GARBAGE : brings[0]); reading[0] = false }
    :: d_step { reading[1] -> cell[lands[1]] = (hung[1] -> GARBAGE : brings[1]); reading[1] = false }
    :: d_step { reading[2] -> cell[lands[2]] = (hung[2] -> GARBAGE : brings[2]); reading[2] = false }
    od
}

proctype trainer()
{
    byte next;

    do
    :: next < TICKETS && ticket[SLOT(next)] == next && state[SLOT(next)] == READY ->
        d_step { assert(cell[at[SLOT(next)]] == next + 1) };
        d_step { assert(cell[at[SLOT(next)]] == next + 1); next++; released = next } /* held in between */
    :: next >= TICKETS -> break
    od;
    finished = true
}

inline drained(q, i)
{
    i = 0;
    do
    :: i < DEPTH -> mask[i] = mask[i] & ~(1 << q); i++
    :: else -> break
    od;
    i = 0
}

inline hold(t)
{
    t = freed;
    do
    :: t < freed + DEPTH ->
        if
        :: ticket[SLOT(t)] == t && state[SLOT(t)] == FREE -> state[SLOT(t)] = HELD
        :: else
        fi;
        t++
    :: else -> break
    od;
    t = 0
}

/* Somebody alive has a claim, or gave one back that is not held yet. */
#define BUSY(s) (state[s] == FREE && ticket[s] < freed + DEPTH || state[s] == CLAIMED && owner[s] != 0)

inline move()
{
    d_step { frozen = true };
    do
    :: d_step { hold(t); busy = BUSY(0) || BUSY(1) || BUSY(2) };
        if
#ifdef MUT_NO_WAIT
        :: true -> break
#else
        :: !busy -> break
        :: else -> (finished || !(state[0] == CLAIMED && owner[0] != 0 || state[1] == CLAIMED && owner[1] != 0 || \
                    state[2] == CLAIMED && owner[2] != 0));
            if
            :: finished -> break
            :: else
            fi
#endif
        fi
    od;
    skip;
    d_step { /* what is not published: k0 and on */
        busy = false;
        t = freed; until = freed; first = NONE;
        do
        :: t < freed + DEPTH ->
            if
            :: ticket[SLOT(t)] != t || state[SLOT(t)] == READY -> until = t + 1
            :: else -> first = (first == NONE -> t : first);
                if
                :: state[SLOT(t)] == CLAIMED && owner[SLOT(t)] == 0 -> state[SLOT(t)] = HELD
                :: else
                fi
            fi;
            t++
        :: else -> break
        od;
        first = (first == NONE -> t : first);
        until = (until < first -> first : until);
        t = 0
    };
#ifndef MUT_NO_MOVE
    d_step { /* the record, in place where there is one */
        k = n_gens - 1;
        n_gens = (gen_first[k] == first -> n_gens : n_gens + 1);
        gen_place[n_gens - 1] = (gen_first[k] == first -> gen_place[k] : gen_place[k] + (first - gen_first[k]) * ARENA);
        gen_place[n_gens - 1] = (gen_place[n_gens - 1] / ARENA) * ARENA;
        gen_first[n_gens - 1] = first;
        gen_arena[n_gens - 1] = other;
        k = 0
    };
    d_step {
        t = first;
        do
        :: t < freed + DEPTH -> place[PLACE(t)] = NONE; t++
        :: else -> break
        od;
        t = 0
    };
    d_step { old = here; old_queue = queue[0]; old_until = until; here = other; other = NONE };
#endif
    d_step { drained(queue[0], t) }; /* its bit, in this ring */
    d_step {
        t = freed;
        do
        :: t < freed + DEPTH ->
            if
            :: ticket[SLOT(t)] == t && state[SLOT(t)] == HELD -> state[SLOT(t)] = FREE
            :: else
            fi;
            t++
        :: else -> break
        od;
        t = 0; until = 0; first = 0;
        frozen = false
    };
    d_step { queue[0] = spare; spare = NONE; dead = false }
}

inline bury()
{
    d_step { !reading[queue[0]] -> hung[queue[0]] = false; drained(queue[0], t) };
    d_step {
        t = 0;
        do
        :: t < DEPTH ->
            if
            :: state[t] == CLAIMED && owner[t] == 0 -> state[t] = FREE
            :: else
            fi;
            t++
        :: else -> break
        od;
        t = 0;
        dead = false
    }
}

#ifdef MUT_ARENA_AT_ONCE
#define OLD_IS_FREE true
#else
#ifdef MUT_ARENA_WITH_BATCHES
#define OLD_IS_FREE (!reading[old_queue])
#else
#ifdef MUT_ARENA_WITH_READS
#define OLD_IS_FREE (freed >= old_until)
#else
#define OLD_IS_FREE (!reading[old_queue] && freed >= old_until)
#endif
#endif
#endif

proctype parent()
{
    byte t, k, until, first, retired = NONE;
    bool busy;

    do
    :: finished -> break
    :: dead && gone && !finished && !reading[queue[0]] -> bury() /* drained in time */
    :: dead && gone && !finished && reading[queue[0]] && spare != NONE && other != NONE ->
        retired = queue[0];
        move()
    :: d_step { retired != NONE && !reading[retired] && !dead -> hung[retired] = false; spare = retired; retired = NONE }
    :: d_step { old != NONE && OLD_IS_FREE && !dead -> other = old; old = NONE }
#ifdef MUT_ARENA_WITH_READS
    :: d_step { retired != NONE && !dead -> spare = retired; retired = NONE } /* or nothing could move a second time */
#endif
    od
}

proctype killer()
{
end:
    do
    :: d_step { kills < KILLS && !dead && !gone && !finished -> dead = true; kills++; hung[queue[0]] = reading[queue[0]] }
    od
}

init
{
    byte i;

    atomic {
        do
        :: i < DEPTH -> ticket[i] = i; i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < DEPTH * 2 -> place[i] = NONE; i++
        :: else -> break
        od;
        i = 0;
        queue[1] = 1;
        run worker(0);
        run worker(1);
        run disk();
        run trainer();
        run parent();
        run killer()
    }
}
