/* holder make FILE RECORDS BYTES             writes records whose every 8 bytes follow from (record, place)
 * holder take NAME RANK BYTES HOLD-MS HELD   a trainer that holds HELD batches at a time, each for HOLD-MS at least, and
 *                                            compares every byte twice: when it takes a batch and before it releases it
 *
 * The contents are a formula, so that what comes is compared with something that no other process had a part in. A read
 * that lands late in a batch shows at the first or at the second look. Ends with `batches B wrong-at-take T wrong-later L`
 * and goes on after a wrong byte: the control run counts them. */
#include <ringfeed/ringfeed.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HELD_MOST = 16 };

static uint64_t word_of(uint64_t record, uint64_t at)
{
    uint64_t z = (record << 32 | at) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 27;
}

static int make(const char *path, uint64_t records, uint64_t bytes)
{
    FILE *f = fopen(path, "wb");
    uint64_t *record = malloc(bytes);
    bool ok = f && record;
    for (uint64_t i = 0; ok && i < records; i++) {
        for (uint64_t at = 0; at < bytes / 8; at++)
            record[at] = word_of(i, at);
        ok = fwrite(record, bytes, 1, f) == 1;
    }
    free(record);
    ok = f && fclose(f) == 0 && ok;
    if (!ok)
        fprintf(stderr, "holder: cannot write %s\n", path);
    return !ok;
}

static bool is_right(const rf_batch *b, uint64_t bytes)
{
    for (uint32_t i = 0; i < b->n_samples; i++) {
        const unsigned char *p = rf_batch_sample(b, i);
        for (uint64_t at = 0; at < bytes / 8; at++) {
            uint64_t got;
            memcpy(&got, p + 8 * at, sizeof got);
            if (got != word_of(b->ids[i], at))
                return false;
        }
    }
    return true;
}

struct tally {
    uint64_t batches, wrong_at_take, wrong_later;
};

struct held {
    rf_batch batch;
    bool right; /* when it was taken */
};

/* The oldest batch goes back, after a second look. */
static void give_back(rf_trainer *t, struct held *held, unsigned *n, uint64_t bytes, struct tally *sum)
{
    sum->wrong_later += held[0].right && !is_right(&held[0].batch, bytes);
    rf_release(t, &held[0].batch);
    memmove(&held[0], &held[1], --*n * sizeof *held);
}

static int take(const char *name, uint32_t rank, uint64_t bytes, long hold_ms, unsigned most)
{
    rf_trainer *t;
    struct held held[HELD_MOST];
    unsigned n = 0;
    struct tally sum = {0};
    int rc = rf_attach(name, rank, NULL, &t);
    if (rc < 0) {
        fprintf(stderr, "%s\n", rf_last_error());
        return 2;
    }
    while ((rc = rf_next(t, -1, &held[n].batch)) == RF_OK) {
        sum.batches++;
        held[n].right = is_right(&held[n].batch, bytes);
        sum.wrong_at_take += !held[n].right;
        n++;
        nanosleep(&(struct timespec){.tv_nsec = hold_ms * 1000000 / most}, NULL); /* a training step */
        if (n == most)
            give_back(t, held, &n, bytes, &sum);
    }
    while (n)
        give_back(t, held, &n, bytes, &sum);
    if (rc < 0)
        fprintf(stderr, "%s\n", rf_trainer_error(t));
    rf_detach(t);
    printf("batches %" PRIu64 " wrong-at-take %" PRIu64 " wrong-later %" PRIu64 "\n", sum.batches, sum.wrong_at_take,
           sum.wrong_later);
    return rc < 0 ? 2 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "make") == 0)
        return make(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    if (argc == 7 && strcmp(argv[1], "take") == 0) {
        unsigned most = (unsigned)strtoul(argv[6], NULL, 10);
        return take(argv[2], (uint32_t)strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
                    strtol(argv[5], NULL, 10),
                    most < 1           ? 1
                    : most > HELD_MOST ? HELD_MOST
                                       : most);
    }
    fprintf(stderr, "holder: see the head of tests/multi/holder.c\n");
    return 2;
}
