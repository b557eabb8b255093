#include "reader/choose.h"

/* A copy that finds nothing costs a look (0.4 us for a small read) and one that does saves three times as much. */
enum { COPY_FROM = 25, COPY_BELOW = 10, MOSTLY = 50 };

unsigned rfi_choice_hot_percent(const struct rfi_choice *c)
{
    uint64_t all = c->hot + c->cold;
    return all ? (unsigned)(c->hot * 100 / all) : 0;
}

static bool copies(const struct rfi_choice *c, bool now)
{
    unsigned hot = rfi_choice_hot_percent(c);
    if (c->hot + c->cold < RFI_CHOICE_READS)
        return now;
    return hot >= COPY_FROM || (now && hot >= COPY_BELOW);
}

/* Data that fits into memory is worth keeping there: it is read through the page cache, and the next epoch copies it.
 * What does not fit only pushes out what is there, and so does what turned out not to stay. */
static bool direct(struct rfi_choice *c, bool now)
{
    bool enough = c->hot + c->cold >= RFI_CHOICE_READS, mostly_hot = enough && rfi_choice_hot_percent(c) >= MOSTLY;
    if (!c->direct_possible)
        return false;
    if (!now && enough && !mostly_hot && c->bytes > c->dataset_bytes + c->dataset_bytes / 4)
        c->spilled = true;
    if (c->spilled)
        return true;
    if (now)
        return c->dataset_bytes > c->free_bytes / 4;
    return c->dataset_bytes > c->free_bytes / 2 && !mostly_hot;
}

uint32_t rfi_choose(struct rfi_choice *c)
{
    uint32_t next = c->now & c->pinned;
    if (!(c->pinned & RFI_READ_COPIES) && copies(c, c->now & RFI_READ_COPIES))
        next |= RFI_READ_COPIES;
    if (!(c->pinned & RFI_READ_DIRECT) && direct(c, c->now & RFI_READ_DIRECT))
        next |= RFI_READ_DIRECT;
    return next;
}
