/* See maps.h. A chunk's word: the round in which it was found whole (16 bits, 0: never), how often a look at the whole
 * chunk was in vain (8 bits), and the ranges found resident since (8 bits). Looks at whole chunks become rarer by a
 * factor of two each time they are in vain: where half of the data is in memory, they would never pay. The first range of
 * a chunk is looked at by itself: the first batch of a full shuffle meets as many chunks as it has samples, and 0.2 ms
 * for each of them would keep its trainer waiting. */
#include "reader/maps.h"

#include "base/bytes.h"
#include "reader/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef SYS_cachestat
#define SYS_cachestat_ SYS_cachestat
#else
#define SYS_cachestat_ 451 /* on every machine */
#endif

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* A file is mapped at its fourth read: one small sample a file is read cheaper than mapped; a large one is not, since the
 * kernel copies through the caches. */
enum { PAGE = 4096, MAP_AT = 4, MAP_LARGE = 1 << 20, VAIN_MOST = 7, ROUND_MOST = 0xffff };

static struct rfi_map *file_of(struct rfi_maps *m, int fd)
{
    if (fd < 0)
        return NULL;
    if ((uint32_t)fd >= m->cap) {
        uint32_t cap = (uint32_t)rfi_max(2 * (uint64_t)m->cap, rfi_align_up((uint64_t)fd + 1, 64));
        struct rfi_map *files = realloc(m->files, cap * sizeof *files);
        if (!files)
            return NULL; /* the file is read in other ways */
        memset(files + m->cap, 0, (cap - m->cap) * sizeof *files);
        m->files = files;
        m->cap = cap;
    }
    return &m->files[fd];
}

/* mincore says "there" of every page of a file that is neither ours nor ours to write. */
static bool may_ask(int fd, const struct stat *st)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return st->st_uid == geteuid() || access(path, W_OK) == 0;
}

static void look_at(struct rfi_map *f, int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    f->looked = true;
    f->never = flags < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0;
    if (f->never)
        return;
    f->bytes = (uint64_t)st.st_size;
    f->buffered = !(flags & O_DIRECT);
    f->trusted = may_ask(fd, &st);
}

/* False: not now, or never. */
static bool map(struct rfi_map *f, int fd, uint32_t bytes)
{
    if (!f->looked)
        look_at(f, fd);
    if (f->never || (++f->uses < MAP_AT && bytes < MAP_LARGE))
        return false;
    f->never = true; /* unless all goes well */
    if (!f->trusted && !f->buffered) /* nothing would tell what is in memory */
        return false;
    void *p = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return false;
    f->chunks = calloc(rfi_div_up(f->bytes, RFI_MAP_CHUNK), sizeof *f->chunks);
    if (!f->chunks) {
        munmap(p, f->bytes);
        return false;
    }
    madvise(p, f->bytes, MADV_RANDOM); /* what is read after all, is read without its neighbours */
    f->base = p;
    f->never = false;
    return true;
}

/* Untrusted: a read of one byte a page, that does not wait. */
static bool probe(int fd, uint64_t from, uint64_t to)
{
    for (uint64_t at = rfi_align_down(from, PAGE); at < to; at += PAGE) {
        char byte;
        struct iovec v = {&byte, 1};
        if (preadv2(fd, &v, 1, (off_t)at, RWF_NOWAIT) != 1)
            return false;
    }
    return true;
}

/* Which of the pages that touch [from, to) are in memory; at most a chunk's. False: unknown. */
static bool look(const struct rfi_map *f, uint64_t from, uint64_t to, unsigned char vec[RFI_MAP_CHUNK / PAGE])
{
    from = rfi_align_down(from, PAGE);
    return mincore(f->base + from, to - from, vec) == 0;
}

/* How many pages of the file's [from, to) are in memory, or on their way there: one walk of the page cache's tree, a tenth
 * of the time that mincore takes for as many (Linux 6.5). False: not to be had. */
static bool count_pages(int fd, uint64_t from, uint64_t to, uint64_t *ret)
{
    static bool absent;
    struct {
        uint64_t offset, bytes;
    } range = {from, to - from};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently;
    } stat;
    if (absent)
        return false;
    if (syscall(SYS_cachestat_, fd, &range, &stat, 0) == 0) {
        *ret = stat.cached;
        return true;
    }
    absent = errno == ENOSYS || errno == EPERM;
    return false;
}

static bool all_there(const unsigned char *vec, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        if (!(vec[i] & 1))
            return false;
    return true;
}

static bool range_there(const struct rfi_map *f, int fd, uint64_t from, uint64_t to)
{
    unsigned char vec[RFI_MAP_CHUNK / PAGE];
    if (!f->trusted)
        return probe(fd, from, to);
    return look(f, from, to, vec) && all_there(vec, rfi_div_up(to - rfi_align_down(from, PAGE), PAGE));
}

/* Looks at the whole chunk. *ret_whole: it is HOT now. Returns whether [from, to) of it is there. */
static bool chunk_there(struct rfi_map *f, int fd, uint64_t chunk, uint64_t from, uint64_t to, bool *ret_whole)
{
    unsigned char vec[RFI_MAP_CHUNK / PAGE];
    uint64_t start = chunk * RFI_MAP_CHUNK, end = rfi_min(start + RFI_MAP_CHUNK, f->bytes);
    if (!f->trusted) {
        *ret_whole = probe(fd, start, end);
        return *ret_whole || probe(fd, from, to);
    }
    uint64_t cached;
    if (count_pages(fd, start, end, &cached) &&
        cached > 0) { /* 0: perhaps of an overlay, whose pages are another file's */
        *ret_whole = cached == rfi_div_up(end - start, PAGE);
        return *ret_whole || range_there(f, fd, from, to);
    }
    if (!look(f, start, end, vec))
        return false;
    *ret_whole = all_there(vec, rfi_div_up(end - start, PAGE));
    uint64_t first = (from - start) / PAGE;
    return *ret_whole || all_there(vec + first, rfi_div_up(to - start, PAGE) - first);
}

/* [from, to) of a chunk that is not HOT. */
static bool warm(struct rfi_maps *m, struct rfi_map *f, int fd, uint64_t chunk, uint64_t from, uint64_t to)
{
    uint32_t word = f->chunks[chunk], vain = word >> 8 & 0xff, found = word & 0xff;
    bool whole = false, there;
    if (word >> 16) { /* was HOT, and is not any more */
        vain = (uint32_t)rfi_min(vain + 1, VAIN_MOST);
        found = 0;
    }
    if (found + 1 >= 2u << vain) {
        there = chunk_there(f, fd, chunk, from, to, &whole);
        found = 0;
        if (!whole)
            vain = (uint32_t)rfi_min(vain + 1, VAIN_MOST);
    } else {
        there = range_there(f, fd, from, to);
        found += there;
    }
    if (whole) {
        uint64_t start = chunk * RFI_MAP_CHUNK;
        madvise(f->base + start, rfi_min(RFI_MAP_CHUNK, f->bytes - start), MADV_POPULATE_READ);
    }
    f->chunks[chunk] = (whole ? m->round << 16 : 0) | vain << 8 | found;
    return there;
}

const unsigned char *rfi_maps_look(struct rfi_maps *m, int fd, uint64_t offset, uint32_t n)
{
    struct rfi_map *f = file_of(m, fd);
    uint64_t end;
    if (m->round == 0)
        m->round = 1;
    if (!f || f->never || (!f->base && !map(f, fd, n)))
        return NULL;
    if (rfi_add_over(offset, n, &end) || end > f->bytes)
        return NULL;
    for (uint64_t c = offset / RFI_MAP_CHUNK; c * RFI_MAP_CHUNK < end; c++) {
        uint64_t from = rfi_max(offset, c * RFI_MAP_CHUNK), to = rfi_min(end, (c + 1) * RFI_MAP_CHUNK);
        if (!rfi_maps_hot(m, f, c) && !warm(m, f, fd, c, from, to))
            return NULL;
    }
    return f->base + offset;
}

bool rfi_maps_ask(const struct rfi_maps *m, int fd)
{
    return fd >= 0 && (uint32_t)fd < m->cap && m->files[fd].looked && m->files[fd].buffered && !m->files[fd].base;
}

static void next_round(struct rfi_maps *m)
{
    if (++m->round <= ROUND_MOST)
        return;
    m->round = 1;
    for (uint32_t i = 0; i < m->cap; i++)
        if (m->files[i].base)
            memset(m->files[i].chunks, 0, rfi_div_up(m->files[i].bytes, RFI_MAP_CHUNK) * sizeof *m->files[i].chunks);
}

void rfi_maps_settle(struct rfi_maps *m)
{
    struct rusage u;
    m->list++;
    if (getrusage(RUSAGE_THREAD, &u) < 0 || u.ru_majflt == m->major)
        return;
    m->major = u.ru_majflt;
    next_round(m);
}

bool rfi_maps_whole(struct rfi_maps *m, int fd)
{
    struct rfi_map *f = &m->files[fd];
    struct stat st;
    if (f->list != m->list) {
        f->list = m->list;
        f->never |= fstat(fd, &st) < 0 || (uint64_t)st.st_size < f->bytes;
    }
    return !f->never;
}

void rfi_maps_avoid(struct rfi_maps *m, int fd)
{
    m->files[fd].never = true;
}

void rfi_maps_forget(struct rfi_maps *m, int fd)
{
    if (fd < 0 || (uint32_t)fd >= m->cap)
        return;
    struct rfi_map *f = &m->files[fd];
    if (f->base)
        munmap(f->base, f->bytes);
    free(f->chunks);
    *f = (struct rfi_map){0};
}

void rfi_maps_fini(struct rfi_maps *m)
{
    for (uint32_t i = 0; i < m->cap; i++)
        rfi_maps_forget(m, (int)i);
    free(m->files);
    *m = (struct rfi_maps){0};
}

int rfi_reader_resident(int fd, uint64_t offset, uint32_t bytes)
{
    struct stat st;
    uint64_t start = rfi_align_down(offset, PAGE), end;
    unsigned char vec[RFI_MAP_CHUNK / PAGE];
    if (rfi_add_over(offset, rfi_min(bytes, RFI_MAP_CHUNK - PAGE), &end) || fstat(fd, &st) < 0 ||
        !S_ISREG(st.st_mode) || end > (uint64_t)st.st_size)
        return -1;
    if (!may_ask(fd, &st)) /* a direct read does not wait either, but it says nothing of memory */
        return fcntl(fd, F_GETFL) & O_DIRECT ? -1 : probe(fd, offset, end);
    void *p = mmap(NULL, end - start, PROT_READ, MAP_SHARED, fd, (off_t)start);
    if (p == MAP_FAILED)
        return -1;
    int rc = mincore(p, end - start, vec) == 0 ? all_there(vec, rfi_div_up(end - start, PAGE)) : -1;
    munmap(p, end - start);
    return rc;
}
