#include "battery.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add(struct battery *b, const char *name, uint64_t samples, double z)
{
    if (b->n == BATTERY_MOST)
        abort();
    b->tests[b->n].name = name;
    b->tests[b->n].samples = samples;
    b->tests[b->n].z = z;
    b->n++;
}

/* Chi-square with df degrees of freedom as a standard normal (Wilson and Hilferty). */
static double chi_square_z(double chi_square, double df)
{
    double spread = 2 / (9 * df);
    return (cbrt(chi_square / df) - (1 - spread)) / sqrt(spread);
}

static double uniform_z(const uint64_t *cells, uint64_t n, double expected, double df)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += ((double)cells[i] - expected) * ((double)cells[i] - expected) / expected;
    return chi_square_z(sum, df);
}

/* A table of n x n cells to which each of `keys` orders adds one permutation matrix. Such a cell varies
 * by 1/n less than a free one and rows and columns are fixed: chi-square, scaled, with (n - 1)^2. */
static double matrix_z(const uint64_t *cells, uint64_t n, uint64_t keys)
{
    double expected = (double)keys / (double)n, sum = 0;
    for (uint64_t i = 0; i < n * n; i++)
        sum += ((double)cells[i] - expected) * ((double)cells[i] - expected) / expected;
    return chi_square_z(sum * (double)(n - 1) / (double)n, (double)((n - 1) * (n - 1)));
}

/* Number of a permutation of 5 among the 120, by counting smaller ones (Lehmer). */
static unsigned cell_of_5(const uint64_t *p)
{
    unsigned cell = 0;
    for (unsigned i = 0; i < 5; i++) {
        unsigned smaller = 0;
        for (unsigned j = i + 1; j < 5; j++)
            smaller += p[j] < p[i];
        cell = cell * (5 - i) + smaller;
    }
    return cell;
}

/* Every one of the 5! orders must come equally often; seeds and epochs both vary. */
static void five_factorial(generator_fn g, struct battery *b)
{
    enum { KEYS = 120 * 500 };
    uint64_t cells[120] = {0}, out[5];
    for (uint64_t k = 0; k < KEYS; k++) {
        g(5, k / 20, k % 20, out);
        cells[cell_of_5(out)]++;
    }
    add(b, "5! cells", 5, uniform_z(cells, 120, KEYS / 120.0, 119));
}

/* How often value v stands at position p, over many keys. */
static void position_table(generator_fn g, uint64_t n, struct battery *b)
{
    const uint64_t keys = 200 * n;
    uint64_t *cells = calloc(n * n, sizeof *cells), *out = malloc(n * sizeof *out);
    for (uint64_t k = 0; k < keys; k++) {
        g(n, k, 7, out);
        for (uint64_t p = 0; p < n; p++)
            cells[p * n + out[p]]++;
    }
    add(b, "value x position", n, matrix_z(cells, n, keys));
    free(cells);
    free(out);
}

/* Values that stay where they are: the exact distribution, by the number of derangements. */
static void fixed_points(generator_fn g, uint64_t n, struct battery *b)
{
    enum { KEYS = 40000, CELLS = 5 };
    uint64_t cells[CELLS] = {0}, *out = malloc(n * sizeof *out);
    for (uint64_t k = 0; k < KEYS; k++) {
        unsigned fixed = 0;
        g(n, k, 3, out);
        for (uint64_t p = 0; p < n; p++)
            fixed += out[p] == p;
        cells[fixed < CELLS - 1 ? fixed : CELLS - 1]++;
    }
    double sum = 0, rest = 1, factorial = 1;
    for (unsigned f = 0; f < CELLS; f++) {
        double derangements = 0, sign = 1, d = 1; /* of n - f, as a share of (n - f)! */
        for (uint64_t j = 0; j <= n - f; j++, sign = -sign, d *= (double)j)
            derangements += sign / d;
        factorial *= f ? f : 1;
        double share = f < CELLS - 1 ? derangements / factorial : rest;
        rest -= share;
        sum += (cells[f] - KEYS * share) * (cells[f] - KEYS * share) / (KEYS * share);
    }
    add(b, "fixed points", n, chi_square_z(sum, CELLS - 1));
    free(out);
}

/* The step from one value to the next, over many keys: every other value is equally likely to follow. */
static void small_steps(generator_fn g, uint64_t n, struct battery *b)
{
    enum { KEYS = 20000 };
    uint64_t *cells = calloc(n, sizeof *cells), *out = malloc(n * sizeof *out);
    for (uint64_t k = 0; k < KEYS; k++) {
        g(n, 5, k, out);
        cells[(out[1] + n - out[0]) % n]++;
    }
    add(b, "neighbour steps", n, uniform_z(cells + 1, n - 1, (double)KEYS / (double)(n - 1), (double)(n - 2)));
    free(cells);
    free(out);
}

/* Where a value goes under one key and under the next: independent. */
static void small_related(generator_fn g, uint64_t n, int by_epoch, struct battery *b)
{
    const uint64_t keys = 200 * n;
    uint64_t *cells = calloc(n * n, sizeof *cells), *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    for (uint64_t k = 0; k < keys; k++) {
        g(n, by_epoch ? k : 2 * k, by_epoch ? 0 : 5, x);
        g(n, by_epoch ? k : 2 * k + 1, by_epoch ? 1 : 5, y);
        for (uint64_t p = 0; p < n; p++)
            cells[x[p] * n + y[p]]++;
    }
    add(b, by_epoch ? "next epoch" : "next seed", n, matrix_z(cells, n, keys));
    free(cells);
    free(x);
    free(y);
}

void battery_small(generator_fn g, struct battery *ret)
{
    static const uint64_t sizes[] = {8, 37};
    ret->n = 0;
    five_factorial(g, ret);
    for (unsigned i = 0; i < 2; i++) {
        position_table(g, sizes[i], ret);
        fixed_points(g, sizes[i], ret);
        small_steps(g, sizes[i], ret);
        small_related(g, sizes[i], 0, ret);
        small_related(g, sizes[i], 1, ret);
    }
}

enum { GRID = 32, KEYS = 12, BATCH = 64 };

/* x * parts / n */
static unsigned bucket(uint64_t x, uint64_t n, uint64_t parts)
{
    return (unsigned)((unsigned __int128)x * parts / n);
}

/* Two coordinates of each of n elements, both cut evenly. Summed over keys it stays a table with fixed
 * margins: (GRID - 1)^2 degrees of freedom. */
struct table {
    uint64_t cells[GRID * GRID];
    uint64_t n;
};

static void count(struct table *t, uint64_t a, uint64_t b, uint64_t n)
{
    t->cells[bucket(a, n, GRID) * GRID + bucket(b, n, GRID)]++;
    t->n++;
}

static double table_z(const struct table *t)
{
    return uniform_z(t->cells, (uint64_t)GRID * GRID, (double)t->n / (GRID * GRID), (GRID - 1.0) * (GRID - 1));
}

/* Samples of one half of the dataset in each batch of BATCH: hypergeometric. `low`: the lower half of
 * the indices, else the even ones. */
static double make_up_z(const uint64_t *out, uint64_t n, int low)
{
    uint64_t cells[BATCH + 1] = {0}, n_batches = n / BATCH, good = low ? n / 2 : (n + 1) / 2;
    double sum = 0, df = -1, tail_expected = 0, tail_seen = 0;
    for (uint64_t i = 0; i < n_batches; i++) {
        unsigned have = 0;
        for (unsigned j = 0; j < BATCH; j++)
            have += low ? out[i * BATCH + j] < n / 2 : out[i * BATCH + j] % 2 == 0;
        cells[have]++;
    }
    for (unsigned k = 0; k <= BATCH; k++) {
        double log_p = lgamma((double)good + 1) - lgamma(k + 1.0) - lgamma((double)good - k + 1);
        log_p +=
            lgamma((double)(n - good) + 1) - lgamma(BATCH - k + 1.0) - lgamma((double)(n - good) - (BATCH - k) + 1);
        log_p -= lgamma((double)n + 1) - lgamma(BATCH + 1.0) - lgamma((double)n - BATCH + 1);
        double expected = exp(log_p) * (double)n_batches;
        if (expected < 8) { /* both ends share a cell */
            tail_expected += expected;
            tail_seen += (double)cells[k];
            continue;
        }
        sum += ((double)cells[k] - expected) * ((double)cells[k] - expected) / expected;
        df++;
    }
    if (tail_expected > 0) {
        sum += (tail_seen - tail_expected) * (tail_seen - tail_expected) / tail_expected;
        df++;
    }
    return chi_square_z(sum, df);
}

struct large {
    struct table position, step_table, seed, epoch;
    uint64_t steps[64];
    double low, parity;
    uint64_t n_steps, same;
};

static void one_key(generator_fn g, uint64_t n, uint64_t k, uint64_t *x, uint64_t *y, struct large *l)
{
    g(n, k, 0, x);
    for (uint64_t p = 0; p < n; p++)
        count(&l->position, p, x[p], n);
    for (uint64_t p = 0; p + 1 < n; p++) {
        l->steps[bucket((x[p + 1] + n - x[p]) % n, n, 64)]++;
        count(&l->step_table, x[p], x[p + 1], n);
    }
    l->n_steps += n - 1;
    g(n, k + 1, 0, y);
    for (uint64_t p = 0; p < n; p++) {
        count(&l->seed, x[p], y[p], n);
        l->same += x[p] == y[p];
    }
    g(n, k, 1, y);
    for (uint64_t p = 0; p < n; p++) {
        count(&l->epoch, x[p], y[p], n);
        l->same += x[p] == y[p];
    }
    l->low += make_up_z(x, n, 1);
    l->parity += make_up_z(x, n, 0);
}

void battery_large(generator_fn g, uint64_t n, struct battery *ret)
{
    struct large *l = calloc(1, sizeof *l);
    uint64_t *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    for (uint64_t k = 0; k < KEYS; k++)
        one_key(g, n, 100 * k, x, y, l);
    ret->n = 0;
    add(ret, "value x position", n, table_z(&l->position));
    add(ret, "value x next value", n, table_z(&l->step_table));
    add(ret, "neighbour steps", n, uniform_z(l->steps, 64, (double)l->n_steps / 64, 63));
    add(ret, "next seed", n, table_z(&l->seed));
    add(ret, "next epoch", n, table_z(&l->epoch));
    add(ret, "equal places in two orders", n, ((double)l->same - 2.0 * KEYS) / sqrt(2.0 * KEYS));
    add(ret, "batches: lower half", n, l->low / sqrt(KEYS));
    add(ret, "batches: even indices", n, l->parity / sqrt(KEYS));
    free(x);
    free(y);
    free(l);
}
