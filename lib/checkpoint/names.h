/* The words of the file's enums, in the order of the public ones; the same as on the command line. */
#pragma once

static const char *const rfi_strategy_names[] = {"round-robin", "contiguous", "hash",
                                                 "range",       "stratified", "adaptive"};
static const char *const rfi_shuffle_names[] = {"none", "full", "block"};
static const char *const rfi_tail_names[] = {"uneven", "drop", "pad"};
static const char *const rfi_hash_key_names[] = {"index", "key", "label"};
