/* Finding the state that --resume names. */
#pragma once

#include "checkpoint/resume.h"

/* `files`: one a server, or "auto" alone: the dead run's control object, else the newer valid one of
 * `checkpoint` (may be NULL) and its predecessor. 1: *ret filled; 0: start at the beginning; negative: an error.
 * *note: something that the user should be told (code 0: nothing). */
int rfi_resume_find(const char *const *files, size_t n, const char *name, const char *checkpoint, struct rfi_state *ret,
                    struct rfi_error *note, struct rfi_error *err);
