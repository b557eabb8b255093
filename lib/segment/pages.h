/* Pages of the objects: mapped so that they can be huge, and there before anybody needs them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Maps the object from its start, or with fd -1 shared memory without a name; the address aligned to 2 MiB. NULL with errno. */
unsigned char *rfi_pages_map(int fd, uint64_t bytes, int prot);

/* Makes [offset, offset + bytes) of the object, which is mapped writable at `map`, be there; page-aligned. Huge pages
 * where whole ones fit and the kernel has them. 0, or -1 with errno when there is no room. May be asked again. With fd -1
 * memory that has no name. */
int rfi_pages_populate(int fd, unsigned char *map, uint64_t offset, uint64_t bytes);

/* Ranges of this process's shared memory that are there, and how much of each is in huge pages. */
struct rfi_pages_held {
    uint64_t from, to; /* addresses: set by the caller */
    uint64_t bytes, huge_bytes;
};
/* False where the kernel does not say (/proc). One pass over the process's mappings, whatever n. */
bool rfi_pages_held(struct rfi_pages_held *ranges, uint32_t n);
