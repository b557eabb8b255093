/* Child processes for tests: the only way a test starts one.
 *
 * Criterion runs every test in a forked worker. A child that returned from the test's body, or failed a
 * cr_assert in it, would carry on as a second worker and hold the runner's pipes open. So a child here
 * either executes another program or ends by _exit with the value of a body that uses no cr_*, dies with
 * its parent, and has every wait bounded. Nothing here asserts: the caller looks at what is returned. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct child_stream {
    int fd; /* -1: at its end */
    char *text; /* NUL-terminated; never NULL after a start */
    size_t bytes;
};

struct child {
    pid_t pid; /* 0: none, or reaped */
    int pidfd;
    struct child_stream out, err;
    int status; /* as waitpid's, once reaped */
};

/* Starts argv[0] (found in PATH) with stdout and stderr captured and `environment` ("NAME=value", NULL at
 * the end; may be NULL) added to the caller's. 0 or a negative errno; a program that cannot be executed
 * ends with status 127. */
int child_start(struct child *c, const char *const *argv, const char *const *environment);

/* Forks and ends with _exit(body(ctx)). The body may use no cr_* and must not return into the test. */
int child_fork(struct child *c, int (*body)(void *ctx), void *ctx);

/* Reads until stdout holds `text`: 0; -ETIMEDOUT; -EPIPE when the child closed stdout without it. */
int child_wait_text(struct child *c, const char *text, int timeout_ms);

/* Reads to the end and reaps: 0, or -ETIMEDOUT with the child still running. */
int child_wait(struct child *c, int timeout_ms);

/* Sends the signal; 0 or a negative errno. Safe after the child's death (a pidfd cannot name another). */
int child_signal(struct child *c, int signal_number);

/* Kills what still runs, reaps, frees. Safe on a zeroed or finished child. */
void child_end(struct child *c);

/* Exit code of a reaped child; 128 + signal when it was killed. */
int child_exit_code(const struct child *c);

/* child_start + child_wait; on a time-out the child is killed and -ETIMEDOUT returned. Free with
 * child_end. */
int child_run(struct child *c, const char *const *argv, const char *const *environment, int timeout_ms);
