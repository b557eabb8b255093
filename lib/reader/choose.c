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

/* Not by a little: reads through the page cache cost more CPU time, and push out what others have there. */
static bool slower(const struct rfi_choice *c, bool now)
{
    return c->direct_ns && c->buffered_ns && c->direct_ns > c->buffered_ns + c->buffered_ns / (now ? 1 : 2);
}

/* Data that fits into memory is worth keeping there: it is read through the page cache, and the next epoch copies it.
 * What does not fit only pushes out what is there, and so does what turned out not to stay. */
static bool direct(struct rfi_choice *c, bool now)
{
    bool enough = c->hot + c->cold >= RFI_CHOICE_READS, mostly_hot = enough && rfi_choice_hot_percent(c) >= MOSTLY;
    c->why = RFI_WHY_IMPOSSIBLE;
    if (!c->direct_possible)
        return false;
    if (!now && enough && !mostly_hot && c->bytes > c->dataset_bytes + c->dataset_bytes / 4)
        c->spilled = true;
    c->why = RFI_WHY_DIRECT_SLOWER;
    if (slower(c, now))
        return false;
    c->why = RFI_WHY_SPILLED;
    if (c->spilled)
        return true;
    c->why = RFI_WHY_FITS;
    if (c->dataset_bytes <= c->free_bytes / (now ? 4 : 2))
        return false;
    c->why = now || !mostly_hot ? RFI_WHY_TOO_LARGE : RFI_WHY_IN_MEMORY;
    return now || !mostly_hot;
}

uint32_t rfi_choose(struct rfi_choice *c)
{
    uint32_t next = c->now & c->pinned;
    c->why = RFI_WHY_PINNED;
    if (!(c->pinned & RFI_READ_COPIES) && copies(c, c->now & RFI_READ_COPIES))
        next |= RFI_READ_COPIES;
    if (!(c->pinned & RFI_READ_DIRECT) && direct(c, c->now & RFI_READ_DIRECT))
        next |= RFI_READ_DIRECT;
    return next;
}

const char *rfi_choice_word(uint32_t why)
{
    static const char *const words[RFI_N_WHY] = {
        [RFI_WHY_PINNED] = "an option",
        [RFI_WHY_IMPOSSIBLE] = "the files do not take O_DIRECT",
        [RFI_WHY_FITS] = "the dataset fits into memory",
        [RFI_WHY_IN_MEMORY] = "most of what is read is in memory",
        [RFI_WHY_TOO_LARGE] = "the dataset does not fit into memory",
        [RFI_WHY_SPILLED] = "what was read did not stay in memory",
        [RFI_WHY_DIRECT_SLOWER] = "O_DIRECT was measured, and is slower",
    };
    return why < RFI_N_WHY ? words[why] : "unknown";
}
