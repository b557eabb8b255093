/* Runs a fuzz target without libFuzzer: every seed named on the command line, every seed cut short at
 * many lengths, and COUNT random mutations (the same ones each time).
 *
 *     fuzz-tar COUNT SEED... */
#include "fuzz.h"

#include <string.h>

enum { SEED_MAX = 1 << 20 };

static uint64_t state = 0x2545f4914f6cdd1du;

static uint64_t rnd(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

struct seed {
    uint8_t *data;
    size_t size;
};

static struct seed load(const char *path)
{
    struct seed s = {.data = malloc(SEED_MAX)};
    FILE *f = fopen(path, "rb");
    FUZZ_CHECK(f && s.data);
    s.size = fread(s.data, 1, SEED_MAX, f);
    fclose(f);
    return s;
}

/* The target gets an exact allocation each time, so that ASan sees a byte too many. */
static void feed(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    FUZZ_CHECK(copy);
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void mutate(const struct seed *seeds, int n)
{
    static uint8_t work[2 * SEED_MAX];
    const struct seed *a = &seeds[rnd((uint64_t)n)], *b = &seeds[rnd((uint64_t)n)];
    size_t size = a->size;
    memcpy(work, a->data, size);
    if (b->size && rnd(4) == 0) { /* a piece of another seed */
        size_t from = rnd(b->size), bytes = 1 + rnd(b->size - from), at = rnd(size + 1);
        memcpy(work + at, b->data + from, bytes);
        size = at + bytes > size ? at + bytes : size;
    }
    for (uint64_t k = rnd(6); size && k; k--) {
        static const uint8_t nasty[] = {0, 1, 0x7f, 0x80, 0xff, '0', '9', ' ', '\n', '(', '\'', ','};
        work[rnd(size)] = rnd(2) ? nasty[rnd(sizeof nasty)] : (uint8_t)rnd(256);
    }
    feed(work, rnd(8) ? size : rnd(size + 1));
}

int main(int argc, char **argv)
{
    int n = argc - 2;
    if (n < 1) {
        fprintf(stderr, "usage: %s COUNT SEED...\n", argv[0]);
        return 2;
    }
    struct seed *seeds = calloc((size_t)n, sizeof *seeds);
    FUZZ_CHECK(seeds);
    for (int i = 0; i < n; i++) {
        seeds[i] = load(argv[2 + i]);
        feed(seeds[i].data, seeds[i].size);
        for (size_t cut = 0; cut < seeds[i].size; cut += cut < 600 ? 1 : 1 + seeds[i].size / 64)
            feed(seeds[i].data, cut);
    }
    for (long k = atol(argv[1]); k > 0; k--)
        mutate(seeds, n);
    printf("%d seeds and %s mutations: no crash\n", n, argv[1]);
    for (int i = 0; i < n; i++)
        free(seeds[i].data);
    free(seeds);
    return 0;
}
