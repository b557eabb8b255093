#include "bench/sweep.h"

#include "cli_internal.h"

#include <string.h>

const char *const bench_key_names[BENCH_KEYS] = {"queue-depth", "block", "batch", "workers"};
static const uint64_t most[BENCH_KEYS] = {4096, UINT64_C(1) << 40, 1 << 24, 64};

static int find_key(const char *text, size_t n)
{
    for (int k = 0; k < BENCH_KEYS; k++)
        if (strlen(bench_key_names[k]) == n && memcmp(bench_key_names[k], text, n) == 0)
            return k;
    return -1;
}

static int add_value(struct bench_sweep *s, int key, const char *option, const char *text, size_t n)
{
    char word[64];
    const char *why = "is not a number";
    uint64_t v = 0;
    snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), text);
    if (cli_value_bytes(word, &v, &why) < 0)
        return cli_usage("--sweep %s: '%s' %s", option, word, why);
    if (v < 1 || v > most[key])
        return cli_usage("--sweep %s: '%s' is not from 1 to %llu", option, word, (unsigned long long)most[key]);
    if (s->keys[key].n == BENCH_VALUES_MOST)
        return cli_usage("--sweep %s: more than %d values", option, BENCH_VALUES_MOST);
    s->keys[key].values[s->keys[key].n++] = v;
    return CLI_OK;
}

static int parse_one(const char *option, struct bench_sweep *s)
{
    const char *equals = strchr(option, '=');
    int key = equals ? find_key(option, (size_t)(equals - option)) : -1;
    if (key < 0)
        return cli_usage("--sweep %s: not one of queue-depth=, block=, batch=, workers= with values", option);
    if (s->keys[key].n)
        return cli_usage("--sweep %s: %s is swept already. Give all its values at once", option, bench_key_names[key]);
    int rc = CLI_OK;
    for (const char *at = equals + 1; rc == CLI_OK; at++) {
        size_t n = strcspn(at, ",");
        rc = add_value(s, key, option, at, n);
        at += n;
        if (!*at)
            break;
    }
    return rc;
}

int bench_sweep_parse(const struct cli_list *options, struct bench_sweep *ret)
{
    *ret = (struct bench_sweep){0};
    int rc = CLI_OK;
    for (size_t i = 0; i < options->n && rc == CLI_OK; i++)
        rc = parse_one(options->items[i], ret);
    return rc;
}

unsigned bench_sweep_points(const struct bench_sweep *s)
{
    unsigned n = 1;
    for (int k = 0; k < BENCH_KEYS; k++)
        n *= s->keys[k].n ? s->keys[k].n : 1;
    return n;
}

void bench_sweep_at(const struct bench_sweep *s, unsigned i, uint64_t values[BENCH_KEYS])
{
    for (int k = BENCH_KEYS - 1; k >= 0; k--) {
        unsigned n = s->keys[k].n;
        values[k] = n ? s->keys[k].values[i % n] : 0;
        i /= n ? n : 1;
    }
}
