#include "world.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

unsigned char world_byte(uint64_t sample, uint64_t at)
{
    return (unsigned char)((sample * 1315423911u + at * 2654435761u) >> 13);
}

int64_t world_label(uint64_t sample)
{
    return (int64_t)(sample * 7 % 11) - 3;
}

static void options(struct world *w)
{
    w->path = w->file;
    rf_dataset_options_init(&w->d);
    rf_order_options_init(&w->o);
    rf_server_options_init(&w->s);
    w->d.paths = &w->path;
    w->d.n_paths = 1;
    w->o.world_size = 1;
    w->o.batch = 1;
    w->s.name = w->name;
    w->s.dataset = &w->d;
    w->s.order = &w->o;
    w->s.workers = 2;
}

static FILE *create(struct world *w, uint64_t n, const char *name)
{
    memset(w, 0, sizeof *w);
    w->n = n;
    snprintf(w->directory, sizeof w->directory, "/tmp/ringfeed-world-XXXXXX");
    cr_assert_not_null(mkdtemp(w->directory));
    snprintf(w->name, sizeof w->name, "world-%s", w->directory + strlen(w->directory) - 6);
    snprintf(w->file, sizeof w->file, "%s/%s", w->directory, name);
    options(w);
    FILE *f = fopen(w->file, "w");
    cr_assert_not_null(f);
    return f;
}

void world_open(struct world *w, uint64_t n)
{
    FILE *f = create(w, n, "records.bin");
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < WORLD_RECORD; k++)
            fputc(world_byte(i, k), f);
    fclose(f);
    snprintf(w->labels, sizeof w->labels, "%s/labels.txt", w->directory);
    f = fopen(w->labels, "w");
    for (uint64_t i = 0; i < n; i++)
        fprintf(f, "%lld\n", (long long)world_label(i));
    fclose(f);
    w->d.format = "raw";
    w->d.record_bytes = WORLD_RECORD;
    w->d.labels = n ? w->labels : NULL;
}

/* One ustar member. */
static void member(FILE *f, uint64_t sample, const char *extension, const unsigned char *data, size_t bytes)
{
    unsigned char head[512] = {0};
    unsigned sum = 0;
    snprintf((char *)head, 100, "%06llu.%s", (unsigned long long)sample, extension);
    memcpy(head + 100, "0000644", 8);
    memcpy(head + 108, "0000000", 8);
    memcpy(head + 116, "0000000", 8);
    snprintf((char *)head + 124, 12, "%011llo", bytes & 077777777777ull);
    memcpy(head + 136, "00000000000", 12);
    memset(head + 148, ' ', 8);
    head[156] = '0';
    memcpy(head + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += head[i];
    snprintf((char *)head + 148, 8, "%06o", sum);
    fwrite(head, 1, 512, f);
    fwrite(data, 1, bytes, f);
    for (size_t i = bytes; i % 512; i++)
        fputc(0, f);
}

void world_open_shard(struct world *w, uint64_t n)
{
    FILE *f = create(w, n, "shard.tar");
    for (uint64_t i = 0; i < n; i++) {
        unsigned char data[97];
        char label[24];
        for (uint64_t k = 0; k < i % 97; k++)
            data[k] = world_byte(i, k);
        snprintf(label, sizeof label, "%lld", (long long)world_label(i));
        member(f, i, "bin", data, i % 97);
        member(f, i, "cls", (unsigned char *)label, strlen(label));
        if (i % 2 == 0)
            member(f, i, "txt", (unsigned char *)w->name, strlen(w->name));
    }
    for (int i = 0; i < 1024; i++)
        fputc(0, f);
    fclose(f);
    w->d.format = "webdataset";
}

void world_start(struct world *w)
{
    cr_assert_eq(rf_server_start(&w->s, WORLD_WAIT_MS, &w->server), 0, "%s", rf_last_error());
}

void world_close(struct world *w)
{
    if (w->server)
        cr_expect_eq(rf_server_stop(w->server), 0, "%s", rf_last_error());
    char object[128];
    snprintf(object, sizeof object, "/dev/shm/ringfeed.%s", w->name);
    cr_expect_neq(access(object, F_OK), 0, "%s was left behind", object);
    unlink(w->file);
    if (w->labels[0])
        unlink(w->labels);
    cr_expect_eq(rmdir(w->directory), 0);
}

rf_trainer *world_attach(struct world *w, uint32_t rank)
{
    rf_trainer *t = NULL;
    cr_assert_eq(rf_attach(w->name, rank, NULL, &t), 0, "%s", rf_last_error());
    return t;
}

static void check(const rf_batch *b)
{
    for (uint32_t i = 0; i < b->n_samples && b->fixed_bytes; i++) {
        const unsigned char *p = rf_batch_sample(b, i);
        cr_assert_eq(rf_batch_sample_bytes(b, i), WORLD_RECORD);
        cr_assert_eq(p, b->data + b->offsets[0] + (uint64_t)i * WORLD_RECORD, "not one dense tensor");
        for (uint64_t k = 0; k < WORLD_RECORD; k++)
            if (p[k] != world_byte(b->ids[i], k))
                cr_assert_fail("sample %llu differs at %llu", (unsigned long long)b->ids[i], (unsigned long long)k);
        if (b->labels)
            cr_assert_eq(b->labels[i], world_label(b->ids[i]));
    }
}

void world_next(struct world *w, rf_trainer *t, rf_batch *b)
{
    (void)w;
    cr_assert_eq(rf_next(t, WORLD_WAIT_MS, b), RF_OK, "%s", rf_trainer_error(t));
    check(b);
}

uint64_t world_rest(struct world *w, rf_trainer *t)
{
    uint64_t n = 0;
    rf_batch b;
    int rc;
    (void)w;
    while ((rc = rf_next(t, WORLD_WAIT_MS, &b)) == RF_OK) {
        check(&b);
        n += b.n_samples;
        cr_assert_eq(rf_release(t, &b), 0);
    }
    cr_assert_eq(rc, RF_END, "%s", rf_trainer_error(t));
    return n;
}

void world_await_ready(struct world *w, uint32_t rank, uint32_t ready)
{
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (;;) {
        rf_stat s;
        cr_assert_eq(rf_stat_read(w->name, &s), 0, "%s", rf_last_error());
        uint32_t have = s.ranks[rank - s.first_rank].ready;
        rf_stat_free(&s);
        if (have >= ready)
            return;
        clock_gettime(CLOCK_MONOTONIC, &now);
        cr_assert_lt(now.tv_sec - from.tv_sec, 20, "only %u of %u batches are ready", have, ready);
        sched_yield();
    }
}
