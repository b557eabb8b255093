/* Mappings of open files, one a descriptor at most, and what is known of their pages in the page cache. Only pages that
 * are there are to be copied: touching others would read them one by one, and hold up everything else.
 *
 * What is known is a word a chunk of 2 MiB. A chunk that was found whole is HOT and its page tables are filled, so that
 * copying from it needs no look and no fault. In all other chunks each range is looked at first. Pages leave without a
 * word; but then a copy counts as a major fault of this thread, and after one of those nothing is HOT any more
 * (rfi_maps_settle). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFI_MAP_CHUNK = 2 << 20 };

struct rfi_map {
    unsigned char *base; /* NULL: not mapped */
    uint64_t bytes; /* of the file when it was mapped */
    uint32_t *chunks; /* [bytes / RFI_MAP_CHUNK, rounded up]; see maps.c */
    uint32_t list; /* the last one after which its size was asked for */
    uint32_t uses; /* reads asked for before it was mapped */
    bool looked; /* at the descriptor: the next three are known */
    bool buffered; /* a regular file, not opened with O_DIRECT */
    bool trusted; /* mincore tells the truth of this file */
    bool never; /* cannot be mapped, or failed while mapped: is read in other ways */
};

struct rfi_maps {
    struct rfi_map *files; /* [cap] by descriptor */
    uint32_t cap;
    uint32_t round; /* what was learnt in an earlier one does not count; 1 .. 2^16 - 1 */
    uint32_t list; /* of copies under way */
    int64_t major; /* faults of this thread at the last settling */
};

/* Where bytes [offset, offset + n) of the file, n > 0, can be copied from now without waiting, or NULL. */
const unsigned char *rfi_maps_look(struct rfi_maps *m, int fd, uint64_t offset, uint32_t n);

/* Whether the chunk can be copied from as it is. */
static inline bool rfi_maps_hot(const struct rfi_maps *m, const struct rfi_map *f, uint64_t chunk)
{
    return f->chunks[chunk] >> 16 == m->round;
}

/* The mapping of a descriptor, or NULL. */
static inline const struct rfi_map *rfi_maps_of(const struct rfi_maps *m, int fd)
{
    return (uint32_t)fd < m->cap && m->files[fd].base && !m->files[fd].never ? &m->files[fd] : NULL;
}

/* Whether it is worth asking the system for bytes of this file that are in the page cache: it has no mapping. */
bool rfi_maps_ask(const struct rfi_maps *m, int fd);

/* After the copies of a list, before the questions below: learns from the faults they caused. */
void rfi_maps_settle(struct rfi_maps *m);

/* Whether the file is still as long as its mapping; one system call a file and list. What was copied from the last page
 * of a file that was cut would be zeros that nobody wrote. */
bool rfi_maps_whole(struct rfi_maps *m, int fd);

/* A copy from this file failed: it is not copied from any more. */
void rfi_maps_avoid(struct rfi_maps *m, int fd);

/* The descriptor is about to be closed. */
void rfi_maps_forget(struct rfi_maps *m, int fd);
void rfi_maps_fini(struct rfi_maps *m);
