/* P7, no lost ring of the doorbell: a worker says that it sleeps, then looks; a trainer releases, then sees
 * that someone sleeps; ringing clears that before the word moves. Store buffers as in sleep.pml.
 *
 * A lost ring is an invalid end state: the worker asleep for ever with something released. */
#define RELEASES 3

byte released = 0, sleepers = 0, value = 0;
bool asleep = false;
chan trainer_stores = [2] of { byte }; /* to released */
chan worker_stores = [2] of { byte }; /* to sleepers */

#ifdef MUT_TRAINER_FENCE
#define TRAINER_FENCE skip
#else
#define TRAINER_FENCE empty(trainer_stores)
#endif
#ifdef MUT_WORKER_FENCE
#define WORKER_FENCE skip
#else
#define WORKER_FENCE empty(worker_stores)
#endif

proctype memory()
{
end:
    do
    :: atomic { trainer_stores?released }
    :: atomic { worker_stores?sleepers }
    od
}

proctype worker()
{
    byte recycled, bell, seen;

    do
    :: recycled == RELEASES -> break
    :: recycled < RELEASES && released > recycled -> recycled++
    :: recycled < RELEASES && released <= recycled ->
#ifndef MUT_VALUE_AFTER_LOOK
        bell = value;
#endif
        worker_stores!1;
        WORKER_FENCE;
#ifdef MUT_NO_LOOK
        seen = recycled; /* it looked before it said so */
#else
        seen = released;
#endif
#ifdef MUT_VALUE_AFTER_LOOK
        bell = value;
#endif
        if
        :: seen > recycled
        :: else ->
            atomic {
                if
                :: value == bell -> asleep = true
                :: else
                fi
            };
            !asleep
        fi;
    od
}

proctype trainer()
{
    byte given, seen;

    do
    :: given == RELEASES -> break
    :: else ->
        given++;
        trainer_stores!given;
        TRAINER_FENCE;
        seen = sleepers;
        if
        :: seen ->
#ifdef MUT_WAKE_BEFORE_VALUE
            sleepers = 0;
            asleep = false;
            value++
#else
#ifdef MUT_CLEAR_AFTER_VALUE
            value++;
            sleepers = 0;
#else
            sleepers = 0;
            value++;
#endif
            asleep = false
#endif
        :: else
        fi
    od
}

init
{
    atomic { run memory(); run worker(); run trainer() }
}
