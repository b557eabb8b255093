/* A trainer that holds batches while something happens: takes N, says so, waits for a line on its input, and compares
 * every byte with the records as they are in FILE; then goes on to the end, comparing each batch, one held at a time.
 *
 *     hold NAME RANK FILE RECORD_BYTES N [LIMIT]        LIMIT batches in all; 0: to the end
 *
 * Prints "held", then a line "epoch batch id…" a batch in the order taken, then "end". Exit 0, or 1 with the reason. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <ringfeed/ringfeed.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int file;
static size_t record;

static int same(const rf_batch *b)
{
    unsigned char *want = malloc(record);
    int ok = want != NULL;
    for (uint32_t i = 0; ok && i < b->n_samples; i++)
        ok = rf_batch_sample_bytes(b, i) == record &&
             pread(file, want, record, (off_t)(b->ids[i] * record)) == (ssize_t)record &&
             memcmp(want, rf_batch_sample(b, i), record) == 0;
    free(want);
    return ok;
}

static int finish(rf_trainer *t, const rf_batch *b)
{
    if (!same(b)) {
        fprintf(stderr, "epoch %" PRIu64 " batch %" PRIu64 ": wrong bytes\n", b->epoch, b->batch);
        return 1;
    }
    printf("%" PRIu64 " %" PRIu64, b->epoch, b->batch);
    for (uint32_t i = 0; i < b->n_samples; i++)
        printf(" %" PRIu64, b->ids[i]);
    printf("\n");
    return rf_release(t, b) != 0;
}

static int run(rf_trainer *t, unsigned n, uint64_t limit)
{
    rf_batch held[64];
    uint64_t taken = n;
    char line[16];
    int rc;
    for (unsigned i = 0; i < n; i++)
        if (rf_next(t, -1, &held[i]) != RF_OK)
            return 1;
    puts("held");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    for (unsigned i = 0; i < n; i++)
        if (finish(t, &held[i]))
            return 1;
    while ((rc = limit && taken >= limit ? RF_END : rf_next(t, -1, &held[0])) == RF_OK || rc == -ENODEV) {
        if (rc == -ENODEV) /* no spare is left: when the device answers */
            continue;
        taken++;
        if (finish(t, &held[0]))
            return 1;
    }
    puts("end");
    return rc < 0;
}

int main(int argc, char **argv)
{
    rf_trainer *t;
    if (argc < 6 || strtoul(argv[5], NULL, 10) > 64)
        return 2;
    file = open(argv[3], O_RDONLY | O_CLOEXEC);
    record = strtoul(argv[4], NULL, 10);
    if (file < 0 || rf_attach(argv[1], (uint32_t)strtoul(argv[2], NULL, 10), NULL, &t) < 0) {
        fprintf(stderr, "%s\n", rf_last_error());
        return 1;
    }
    int rc = run(t, (unsigned)strtoul(argv[5], NULL, 10), argc > 6 ? strtoull(argv[6], NULL, 10) : 0);
    if (rc)
        fprintf(stderr, "%s\n", rf_trainer_error(t));
    rf_detach(t);
    return rc;
}
