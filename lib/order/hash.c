/* Hash membership: sample -> virtual partition -> rank. The partition depends on the sample's index,
 * key or label and on the hash seed, on nothing else: another world size moves whole partitions. */
#include "order/membership.h"
#include "order/order_private.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

struct hasher {
    const rf_order_options *o;
    const struct rfi_order_source *src;
    uint64_t seed, partitions;
};

static uint64_t seed_of(uint64_t hash_seed)
{
    return rfi_key_make(hash_seed, 0, RFI_KEY_HASH, RFI_KEY_GLOBAL, 0).lo;
}

static uint64_t partition_of(uint64_t seed, const void *bytes, uint64_t n_bytes, uint64_t partitions)
{
    uint64_t h = XXH3_64bits_withSeed(bytes, n_bytes, seed);
    return (uint64_t)((unsigned __int128)h * partitions >> 64);
}

uint64_t rfi_hash_partition(uint64_t hash_seed, const void *bytes, uint64_t n_bytes, uint64_t partitions)
{
    return partition_of(seed_of(hash_seed), bytes, n_bytes, partitions);
}

static int refuse(const char *what, uint64_t index, struct rfi_error *err)
{
    return rfi_fail(err, EINVAL,
                    "--hash-key %s: sample %" PRIu64
                    " has no %s. Use --hash-key index, or a dataset where every sample "
                    "has one",
                    what, index, what);
}

static int partition_at(const struct hasher *h, uint64_t index, uint64_t *ret, struct rfi_error *err)
{
    uint64_t word = htole64(index);
    const void *bytes = &word;
    size_t n_bytes = sizeof word;
    if (h->o->hash_key == RF_HASH_KEY) {
        bytes = h->src->key(h->src->ctx, index, &n_bytes);
        if (!bytes)
            return refuse("key", index, err);
    } else if (h->o->hash_key == RF_HASH_LABEL) {
        int64_t label;
        if (!h->src->label(h->src->ctx, index, &label))
            return refuse("label", index, err);
        word = htole64((uint64_t)label);
    }
    *ret = partition_of(h->seed, bytes, n_bytes, h->partitions);
    return 0;
}

static int count(const struct hasher *h, const struct rfi_subset *subset, uint64_t *counts, struct rfi_error *err)
{
    for (uint64_t x = 0; x < subset->n; x++) {
        uint64_t partition;
        int rc = partition_at(h, rfi_subset_member(subset, x), &partition, err);
        if (rc < 0)
            return rc;
        counts[partition]++;
    }
    return 0;
}

static int place(const struct hasher *h, const struct rfi_subset *subset, const uint32_t *rank_of, uint64_t *next,
                 uint32_t *table, struct rfi_error *err)
{
    for (uint64_t x = 0; x < subset->n; x++) {
        uint64_t index = rfi_subset_member(subset, x), partition;
        int rc = partition_at(h, index, &partition, err);
        if (rc < 0)
            return rc;
        table[next[rank_of[partition]]++] = (uint32_t)index;
    }
    return 0;
}

/* starts[r] serves as the cursor of rank r while placing; afterwards it stands where rank r ends, which
 * is where rank r + 1 begins. */
static int group(const struct hasher *h, const struct rfi_subset *subset, uint64_t *counts, uint32_t *rank_of,
                 uint32_t *table, uint64_t *starts, struct rfi_error *err)
{
    uint32_t w = h->o->world_size;
    int rc = count(h, subset, counts, err);
    if (rc == 0)
        rc = rfi_deal_partitions(counts, h->partitions, w, rank_of, err);
    if (rc < 0)
        return rc;
    for (uint32_t r = 0; r <= w; r++)
        starts[r] = 0;
    for (uint64_t p = 0; p < h->partitions; p++)
        starts[rank_of[p] + 1] += counts[p];
    for (uint32_t r = 0; r < w; r++)
        starts[r + 1] += starts[r];
    rc = place(h, subset, rank_of, starts, table, err);
    for (uint32_t r = w; r > 0; r--)
        starts[r] = starts[r - 1];
    starts[0] = 0;
    return rc;
}

static int check_source(const rf_order_options *o, const struct rfi_order_source *src, struct rfi_error *err)
{
    if (src->samples == 0) /* nothing to hash: an empty dataset is valid everywhere */
        return 0;
    if (o->hash_key == RF_HASH_KEY && !src->key)
        return rfi_fail(err, EINVAL, "--hash-key key: the samples have no keys. Use --hash-key index");
    if (o->hash_key == RF_HASH_LABEL && !src->label)
        return rfi_fail(err, EINVAL,
                        "--hash-key label: the samples have no labels. Give --labels FILE, or use "
                        "--hash-key index");
    return 0;
}

int rfi_membership_hash(const rf_order_options *o, const struct rfi_order_source *src, const struct rfi_subset *subset,
                        uint32_t *table, uint64_t *starts, struct rfi_error *err)
{
    struct hasher h = {.o = o, .src = src, .seed = seed_of(o->hash_seed), .partitions = rfi_order_partitions(o)};
    int rc = check_source(o, src, err);
    if (rc < 0)
        return rc;
    uint64_t *counts = calloc(h.partitions, sizeof *counts);
    uint32_t *rank_of = malloc(h.partitions * sizeof *rank_of);
    if (counts && rank_of)
        rc = group(&h, subset, counts, rank_of, table, starts, err);
    else
        rc = rfi_fail(err, ENOMEM, "--hash-partitions: no memory for %" PRIu64 " partitions", h.partitions);
    free(counts);
    free(rank_of);
    return rc;
}
