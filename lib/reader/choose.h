/* How a run reads, decided from what it measures: a pure function, asked by the parent a few times a second. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { RFI_CHOICE_READS = 32 }; /* fewer measured reads decide nothing */

enum {
    RFI_READ_COPIES = 1, /* what is in the page cache is copied from a mapping */
    RFI_READ_DIRECT = 2, /* everything else is read with O_DIRECT */
};

/* What decided how that is read which is not copied. */
enum rfi_choice_why {
    RFI_WHY_PINNED,
    RFI_WHY_IMPOSSIBLE,
    RFI_WHY_FITS,
    RFI_WHY_IN_MEMORY,
    RFI_WHY_TOO_LARGE,
    RFI_WHY_SPILLED,
    RFI_WHY_DIRECT_SLOWER,
    RFI_N_WHY
};

struct rfi_choice {
    uint32_t now; /* bits */
    uint32_t pinned; /* bits that options have fixed */
    bool direct_possible;
    bool spilled; /* set here, and then for good: the page cache does not keep the data from one epoch to the next */
    uint64_t hot, cold; /* measured since the last answer: reads whose pages were in memory, and the others */
    uint64_t bytes; /* delivered since `now` changed */
    uint64_t dataset_bytes, free_bytes; /* memory that the page cache could take */
    uint64_t direct_ns, buffered_ns; /* measured latency of a read with O_DIRECT, and without; 0: not known */
    enum rfi_choice_why why; /* set here */
};

/* The bits from now on. Between two thresholds, and until enough reads were looked at, nothing changes. */
uint32_t rfi_choose(struct rfi_choice *c);

/* An enum rfi_choice_why, in words. Any number is safe. */
const char *rfi_choice_word(uint32_t why);

/* Of the reads looked at; 0 when there were none. */
unsigned rfi_choice_hot_percent(const struct rfi_choice *c);
