/* Open addressing with linear probing, at most half full. */
#include "order/pages.h"

#include <stdlib.h>

void rfi_pages_fini(struct rfi_pages *p)
{
    for (size_t i = 0; i < p->cap; i++)
        free(p->entries[i].words);
    free(p->entries);
    *p = (struct rfi_pages){0};
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static bool same(const struct rfi_page_key *x, const struct rfi_page_key *y)
{
    return x->a == y->a && x->b == y->b && x->c == y->c;
}

/* The entry of the key, or the free one where it belongs; cap > 0. */
static struct rfi_page_entry *entry_of(const struct rfi_pages *p, const struct rfi_page_key *key)
{
    uint64_t h = mix(mix(mix(key->a) + key->b) + key->c);
    for (size_t i = h & (p->cap - 1);; i = (i + 1) & (p->cap - 1)) {
        struct rfi_page_entry *e = &p->entries[i];
        if (!e->words || same(&e->key, key))
            return e;
    }
}

static bool grow(struct rfi_pages *p)
{
    struct rfi_pages bigger = {.n = p->n, .cap = p->cap ? p->cap * 2 : 64};
    bigger.entries = calloc(bigger.cap, sizeof *bigger.entries);
    if (!bigger.entries)
        return false;
    for (size_t i = 0; i < p->cap; i++)
        if (p->entries[i].words)
            *entry_of(&bigger, &p->entries[i].key) = p->entries[i];
    free(p->entries);
    *p = bigger;
    return true;
}

uint64_t *rfi_pages_find(struct rfi_pages *p, struct rfi_page_key key)
{
    if (p->last && same(&p->last->key, &key))
        return p->last->words;
    if (p->cap == 0)
        return NULL;
    struct rfi_page_entry *e = entry_of(p, &key);
    if (!e->words)
        return NULL;
    p->last = e;
    return e->words;
}

uint64_t *rfi_pages_get(struct rfi_pages *p, struct rfi_page_key key)
{
    uint64_t *words = rfi_pages_find(p, key);
    if (words)
        return words;
    if ((p->n + 1) * 2 > p->cap && !grow(p))
        return NULL;
    struct rfi_page_entry *e = entry_of(p, &key);
    e->words = calloc(RFI_PAGE_WORDS, sizeof *e->words);
    if (!e->words)
        return NULL;
    e->key = key;
    p->n++;
    p->last = e;
    return e->words;
}
