/* The words of the order's options, in the order of the public enums: the same on the command line, in what a program
 * passes to the command that it spawns, and in checkpoints. Each list ends with NULL. */
#pragma once

#include <ringfeed/ringfeed.h>
#include <stddef.h>

static const char *const rfi_strategy_names[] = {"round-robin", "contiguous", "hash", "range",
                                                 "stratified",  "adaptive",   NULL};
static const char *const rfi_shuffle_names[] = {"none", "full", "block", NULL};
static const char *const rfi_tail_names[] = {"uneven", "drop", "pad", NULL};
static const char *const rfi_hash_key_names[] = {"index", "key", "label", NULL};

_Static_assert(RF_ROUND_ROBIN == 0 && RF_CONTIGUOUS == 1 && RF_HASH == 2 && RF_RANGE == 3 && RF_STRATIFIED == 4 &&
                   RF_ADAPTIVE == 5,
               "rfi_strategy_names");
_Static_assert(RF_SHUFFLE_NONE == 0 && RF_SHUFFLE_FULL == 1 && RF_SHUFFLE_BLOCK == 2, "rfi_shuffle_names");
_Static_assert(RF_TAIL_UNEVEN == 0 && RF_TAIL_DROP == 1 && RF_TAIL_PAD == 2, "rfi_tail_names");
_Static_assert(RF_HASH_INDEX == 0 && RF_HASH_KEY == 1 && RF_HASH_LABEL == 2, "rfi_hash_key_names");
