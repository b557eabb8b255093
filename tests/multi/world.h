/* A small dataset and a server for tests of the C interface. Contents are formulae, so that what arrives is
 * compared with something that ringfeed had no part in. Asserts by cr_*: for test bodies only. */
#pragma once

#include <ringfeed/ringfeed.h>

enum { WORLD_RECORD = 512, WORLD_WAIT_MS = 20000 };

struct world {
    char directory[64], name[RF_NAME_MAX + 1], file[96], labels[96];
    const char *path; /* of the dataset, for d.paths */
    rf_dataset_options d;
    rf_order_options o;
    rf_server_options s;
    rf_server *server;
    uint64_t n;
};

/* n records of WORLD_RECORD bytes with labels; options for one rank, batch 1, two workers. Not started. */
void world_open(struct world *w, uint64_t n);
/* The same options, but a WebDataset shard: field "bin" of i % 97 bytes, "cls", and "txt" on even samples only. */
void world_open_shard(struct world *w, uint64_t n);
void world_start(struct world *w);
/* Stops a running server (its exit status must be 0) and removes the files. */
void world_close(struct world *w);

unsigned char world_byte(uint64_t sample, uint64_t at);
int64_t world_label(uint64_t sample);

rf_trainer *world_attach(struct world *w, uint32_t rank);
/* rf_next that must succeed, with contents, labels and ids checked. */
void world_next(struct world *w, rf_trainer *t, rf_batch *b);
/* Takes and releases to the end; returns how many samples came. */
uint64_t world_rest(struct world *w, rf_trainer *t);
/* Polls until `ready` batches of the rank are ready. */
void world_await_ready(struct world *w, uint32_t rank, uint32_t ready);
