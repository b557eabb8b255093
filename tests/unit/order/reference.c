#include "reference.h"

#include "order/membership.h"
#include "order/permutation.h"

#include <endian.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *get(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        abort();
    return p;
}

int64_t test_label(uint64_t i)
{
    return (int64_t)(i * 7 % 5) - 2;
}

/* Reorders list[n] by the permutation of a key. */
static void permute(uint64_t *list, uint64_t n, struct rfi_key key)
{
    struct rfi_permutation p;
    uint16_t *storage = get(rfi_permutation_storage(n), sizeof *storage);
    uint64_t *old = get(n, sizeof *old);
    rfi_permutation_init(&p, n, key, storage);
    memcpy(old, list, n * sizeof *old);
    for (uint64_t i = 0; i < n; i++)
        list[i] = old[rfi_permutation_at(&p, i)];
    free(old);
    free(storage);
}

/* Lays the blocks of list[n] end to end in shuffled order. */
static void shuffle_blocks(uint64_t *list, uint64_t n, uint64_t block, struct rfi_key key)
{
    uint64_t n_blocks = (n + block - 1) / block, used = 0;
    uint64_t *order = get(n_blocks, sizeof *order), *old = get(n, sizeof *old);
    for (uint64_t i = 0; i < n_blocks; i++)
        order[i] = i;
    permute(order, n_blocks, key);
    memcpy(old, list, n * sizeof *old);
    for (uint64_t i = 0; i < n_blocks; i++)
        for (uint64_t x = order[i] * block; x < (order[i] + 1) * block && x < n; x++)
            list[used++] = old[x];
    free(old);
    free(order);
}

static void shuffle_windows(uint64_t *list, uint64_t n, const rf_order_options *o, uint64_t epoch, uint32_t rank)
{
    uint64_t size = o->block_samples * o->window_blocks;
    for (uint64_t w = 0; w * size < n; w++) {
        uint64_t left = n - w * size;
        permute(list + w * size, left < size ? left : size, rfi_key_make(o->seed, epoch, RFI_KEY_WINDOW, rank, w));
    }
}

static void add(struct reference *ref, uint32_t rank, uint64_t id)
{
    ref->ids[rank][ref->n[rank]++] = id;
}

static void round_robin(struct reference *ref, const rf_order_options *o, uint64_t samples, uint64_t epoch)
{
    uint64_t *all = get(samples, sizeof *all), used = 0;
    for (uint64_t i = 0; i < samples; i++)
        all[i] = i;
    if (o->shuffle == RF_SHUFFLE_FULL)
        permute(all, samples, rfi_key_make(o->seed, epoch, RFI_KEY_FULL, RFI_KEY_GLOBAL, 0));
    if (o->shuffle != RF_SHUFFLE_BLOCK) {
        for (uint64_t p = 0; p < samples; p++)
            add(ref, (uint32_t)(p % o->world_size), all[p]);
        free(all);
        return;
    }
    shuffle_blocks(all, samples, o->block_samples, rfi_key_make(o->seed, epoch, RFI_KEY_BLOCKS, RFI_KEY_GLOBAL, 0));
    for (uint32_t r = 0; r < o->world_size; r++) {
        uint64_t n = samples / o->world_size + (r < samples % o->world_size ? 1 : 0);
        for (uint64_t i = 0; i < n; i++)
            add(ref, r, all[used++]);
        shuffle_windows(ref->ids[r], n, o, epoch, r);
    }
    free(all);
}

static void members_contiguous(struct reference *ref, const rf_order_options *o, uint64_t samples)
{
    uint64_t next = 0;
    for (uint32_t r = 0; r < o->world_size; r++) {
        uint64_t n = samples / o->world_size + (r < samples % o->world_size ? 1 : 0);
        while (n--)
            add(ref, r, next++);
    }
}

static void members_range(struct reference *ref, const rf_order_options *o)
{
    const char *text = o->ranges;
    for (uint32_t r = 0; r < o->world_size; r++) {
        unsigned long long lo, hi;
        if (sscanf(text, "%llu:%llu", &lo, &hi) != 2)
            abort();
        for (; lo < hi; lo++)
            add(ref, r, lo);
        text = strchr(text, ',') ? strchr(text, ',') + 1 : "";
    }
}

/* The definition in words: sort by class, stable; deal round the ranks; each rank keeps dataset order. */
static void members_stratified(struct reference *ref, const rf_order_options *o, uint64_t samples)
{
    uint32_t *rank_of = get(samples, sizeof *rank_of);
    uint64_t q = 0;
    for (int64_t label = -2; label <= 2; label++)
        for (uint64_t i = 0; i < samples; i++)
            if (test_label(i) == label)
                rank_of[i] = (uint32_t)(q++ % o->world_size);
    for (uint64_t i = 0; i < samples; i++)
        add(ref, rank_of[i], i);
    free(rank_of);
}

/* Which rank a partition is dealt to is taken from the library: test_membership.c checks the deal. */
static void members_hash(struct reference *ref, const rf_order_options *o, uint64_t samples)
{
    uint64_t n = o->hash_partitions, *counts = get(n, sizeof *counts), *partition = get(samples, sizeof *partition);
    uint32_t *rank_of = get(n, sizeof *rank_of);
    for (uint64_t i = 0; i < samples; i++) {
        uint64_t word = htole64(i);
        partition[i] = rfi_hash_partition(o->hash_seed, &word, sizeof word, n);
        counts[partition[i]]++;
    }
    if (rfi_deal_partitions(counts, n, o->world_size, rank_of, NULL) < 0)
        abort();
    for (uint64_t i = 0; i < samples; i++)
        add(ref, rank_of[partition[i]], i);
    free(counts);
    free(partition);
    free(rank_of);
}

static void shuffle_members(struct reference *ref, const rf_order_options *o, uint64_t epoch)
{
    for (uint32_t r = 0; r < o->world_size; r++) {
        if (o->shuffle == RF_SHUFFLE_FULL)
            permute(ref->ids[r], ref->n[r], rfi_key_make(o->seed, epoch, RFI_KEY_FULL, r, 0));
        if (o->shuffle != RF_SHUFFLE_BLOCK)
            continue;
        shuffle_blocks(ref->ids[r], ref->n[r], o->block_samples, rfi_key_make(o->seed, epoch, RFI_KEY_BLOCKS, r, 0));
        shuffle_windows(ref->ids[r], ref->n[r], o, epoch, r);
    }
}

void reference_make(struct reference *ref, const rf_order_options *o, uint64_t samples, uint64_t epoch)
{
    *ref = (struct reference){.world_size = o->world_size};
    ref->n = get(o->world_size, sizeof *ref->n);
    ref->ids = get(o->world_size, sizeof *ref->ids);
    for (uint32_t r = 0; r < o->world_size; r++)
        ref->ids[r] = get(samples, sizeof **ref->ids);
    if (o->strategy == RF_ROUND_ROBIN)
        round_robin(ref, o, samples, epoch);
    else if (o->strategy == RF_CONTIGUOUS)
        members_contiguous(ref, o, samples);
    else if (o->strategy == RF_RANGE)
        members_range(ref, o);
    else if (o->strategy == RF_STRATIFIED)
        members_stratified(ref, o, samples);
    else
        members_hash(ref, o, samples);
    if (o->strategy != RF_ROUND_ROBIN)
        shuffle_members(ref, o, epoch);
}

void reference_free(struct reference *ref)
{
    for (uint32_t r = 0; r < ref->world_size; r++)
        free(ref->ids[r]);
    free(ref->ids);
    free(ref->n);
}

uint64_t reference_len(const struct reference *ref, const rf_order_options *o, uint32_t rank)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t r = 0; r < ref->world_size; r++) {
        least = ref->n[r] < least ? ref->n[r] : least;
        most = ref->n[r] > most ? ref->n[r] : most;
    }
    if (o->tail == RF_TAIL_DROP)
        return least / o->batch;
    uint64_t n = o->tail == RF_TAIL_PAD ? most : ref->n[rank];
    return (n + o->batch - 1) / o->batch;
}

/* Element g of the epoch order, for ranks that have nothing of their own. */
static uint64_t epoch_order(const struct reference *ref, const rf_order_options *o, uint64_t g)
{
    uint64_t total = 0;
    for (uint32_t r = 0; r < ref->world_size; r++)
        total += ref->n[r];
    g %= total;
    if (o->strategy == RF_ROUND_ROBIN)
        return ref->ids[g % o->world_size][g / o->world_size];
    uint32_t r = 0;
    while (g >= ref->n[r])
        g -= ref->n[r++];
    return ref->ids[r][g];
}

uint64_t reference_batch(const struct reference *ref, const rf_order_options *o, uint32_t rank, uint64_t batch,
                         uint64_t *ids, uint8_t *flags)
{
    uint64_t count = 0, n = ref->n[rank];
    if (batch >= reference_len(ref, o, rank))
        return 0;
    for (uint64_t p = batch * o->batch; p < (batch + 1) * o->batch; p++) {
        bool own = p < n;
        if (!own && o->tail != RF_TAIL_PAD)
            break;
        ids[count] = own ? ref->ids[rank][p] : n ? ref->ids[rank][p % n] : epoch_order(ref, o, p);
        flags[count++] = own ? 0 : RF_FLAG_PADDING;
    }
    return count;
}
