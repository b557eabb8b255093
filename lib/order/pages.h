/* Sparse memory: pages of 512 zeroed bytes found by three numbers. Delivered ids are checked against
 * bits and digests kept here, so memory follows what came, not what numbers a hostile file names. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFI_PAGE_WORDS = 64, RFI_PAGE_BITS = 64 * RFI_PAGE_WORDS };

struct rfi_page_key {
    uint64_t a, b, c;
};

struct rfi_pages {
    struct rfi_page_entry {
        struct rfi_page_key key;
        uint64_t *words; /* NULL: free */
    } * entries;
    size_t n, cap; /* cap: power of two */
    struct rfi_page_entry *last; /* found last: neighbours ask for the same page */
};

void rfi_pages_fini(struct rfi_pages *p);

/* The page's words, or NULL when there is none. */
uint64_t *rfi_pages_find(struct rfi_pages *p, struct rfi_page_key key);

/* As find, made when missing; NULL without memory. */
uint64_t *rfi_pages_get(struct rfi_pages *p, struct rfi_page_key key);
