/* P6, no lost wake-up of the trainer: with store buffers, because the whole point is that a store may become
 * visible after a later load. A process's stores wait in a FIFO; the machine drains it whenever it likes; a
 * fence waits until it is empty. The futex compares in the kernel, on what memory holds.
 *
 * A lost wake-up is an invalid end state: the trainer asleep for ever with its batch ready. */
#define BATCHES 3

byte word = 0; /* batches published in this slot so far */
byte waiting = 0;
bool asleep = false;
chan trainer_stores = [2] of { byte }; /* to waiting */
chan worker_stores = [2] of { byte }; /* to word */

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
    :: atomic { trainer_stores?waiting }
    :: atomic { worker_stores?word }
    od
}

proctype trainer()
{
    byte taken, seen;

    do
    :: taken == BATCHES -> break
    :: taken < BATCHES && word > taken -> taken++
    :: taken < BATCHES && word <= taken ->
        trainer_stores!1;
        TRAINER_FENCE;
        seen = word;
        if
        :: seen > taken
        :: else ->
#ifdef MUT_NO_COMPARE
            asleep = true;
#else
            atomic {
                if
                :: word == seen -> asleep = true
                :: else
                fi
            };
#endif
            !asleep
        fi;
        trainer_stores!0 /* as late as it likes */
    od
}

proctype worker()
{
    byte published, seen;

    do
    :: published == BATCHES -> break
    :: else ->
        published++;
        worker_stores!published;
        WORKER_FENCE;
        seen = waiting;
        if
        :: seen -> asleep = false
        :: else
        fi
    od
}

init
{
    atomic { run memory(); run trainer(); run worker() }
}
