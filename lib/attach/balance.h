/* The words for what a look at the balance ended with. */
#pragma once

#include "run/run_shared.h"

static inline const char *rfi_balance_word(uint32_t reason)
{
    static const char *const words[RFI_N_BALANCE] = {
        "off",     "measuring", "between epochs", "even", "not long enough", "too soon after a move", "nothing movable",
        "no gain", "moved"};
    return reason < RFI_N_BALANCE ? words[reason] : "unknown";
}
