/* Huge pages make a large O_DIRECT read three times cheaper, and the mount option that gives them (huge=advise) needs
 * root. MADV_COLLAPSE (Linux 6.1) makes them on any tmpfs, of a range of which one page is there: it asks for the
 * huge page at once, zeroes it in one go and takes a third of the time that 512 faults would. */
#include "segment/pages.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096, HUGE = 2 << 20 };

unsigned char *rfi_pages_map(int fd, uint64_t bytes, int prot)
{
    uint64_t room = bytes + HUGE;
    unsigned char *p = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    unsigned char *at = (unsigned char *)rfi_align_up((uintptr_t)p, HUGE);
    if (mmap(at, bytes, prot, MAP_SHARED | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0) == MAP_FAILED) {
        int saved = errno;
        munmap(p, room);
        errno = saved;
        return NULL;
    }
    uint64_t end = rfi_align_up(bytes, PAGE);
    if (at > p)
        munmap(p, (size_t)(at - p));
    if (p + room > at + end)
        munmap(at + end, (size_t)(p + room - (at + end)));
    return at;
}

/* Whole huge pages only, and no further than the first that cannot be had: what follows is populated in small ones. By
 * populating, not by writing: on a full /dev/shm a store would be a SIGBUS. */
static void collapse(unsigned char *map, uint64_t offset, uint64_t bytes)
{
    uint64_t end = rfi_align_down(offset + bytes, HUGE);
    for (uint64_t at = rfi_align_up(offset, HUGE); at < end; at += HUGE)
        if (madvise(map + at, PAGE, MADV_POPULATE_WRITE) < 0 || madvise(map + at, HUGE, MADV_COLLAPSE) < 0)
            return;
}

int rfi_pages_populate(int fd, unsigned char *map, uint64_t offset, uint64_t bytes)
{
    madvise(map + offset, bytes, MADV_HUGEPAGE); /* where the mount option allows them anyway */
    collapse(map, offset, bytes);
    int rc = madvise(map + offset, bytes, MADV_POPULATE_WRITE);
    if (rc < 0 && errno == EINVAL && fd >= 0) { /* before Linux 5.14: reserve, at the cost of huge pages */
        rc = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
        errno = rc;
    }
    return rc ? -1 : 0;
}

/* A mapping of the kernel's list may hold several ranges, and memory that nobody has touched yet: the share of huge pages in
 * what is there counts for each. */
static void add_mapping(struct rfi_pages_held *r, uint32_t n, uint64_t from, uint64_t to, uint64_t bytes, uint64_t huge)
{
    for (uint32_t i = 0; i < n && bytes; i++) {
        uint64_t low = rfi_max(from, r[i].from), high = rfi_min(to, r[i].to);
        if (low >= high)
            continue;
        r[i].bytes += high - low;
        r[i].huge_bytes += (uint64_t)((double)(high - low) * ((double)rfi_min(huge, bytes) / (double)bytes));
    }
}

bool rfi_pages_held(struct rfi_pages_held *ranges, uint32_t n)
{
    char line[512];
    uint64_t from = 0, to = 0, kib, bytes = 0, a, b;
    FILE *f = fopen("/proc/self/smaps", "re");
    if (!f)
        return false;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &a, &b) == 2) {
            from = a;
            to = b;
        } else if (sscanf(line, "Rss: %" SCNu64, &kib) == 1) {
            bytes = kib << 10;
        } else if (sscanf(line, "ShmemPmdMapped: %" SCNu64, &kib) == 1 && to > from) {
            add_mapping(ranges, n, from, to, bytes, kib << 10);
        }
    }
    bool ok = !ferror(f);
    fclose(f);
    return ok;
}
