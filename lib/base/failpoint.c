/* See failpoint.h. One thread a process; the choice is made once, the dice are the process's own. */
#include "base/failpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* One pass in how many; 0: never. */
static unsigned long odds_of(const char *name)
{
    static const char *list;
    size_t n = strlen(name);
    if (!list && !(list = getenv("RINGFEED_FAIL_POINTS")))
        list = "";
    for (const char *at = list; *at; at += *at == ',') {
        if (strncmp(at, name, n) == 0 && at[n] == ':')
            return strtoul(at + n + 1, NULL, 10);
        at += strcspn(at, ",");
    }
    return 0;
}

/* A forked child throws other dice than its parent. */
static uint32_t roll(void)
{
    static uint64_t state;
    static pid_t owner;
    if (owner != getpid()) {
        owner = getpid();
        if (getrandom(&state, sizeof state, 0) != sizeof state)
            abort();
    }
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static void note(const char *name)
{
    const char *path = getenv("RINGFEED_FAIL_LOG");
    char line[64];
    size_t n = strlen(name);
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || n > sizeof line - 1)
        return;
    memcpy(line, name, n);
    line[n] = '\n';
    (void)!write(fd, line, n + 1);
}

void rfi_fail_point(const char *name)
{
    unsigned long odds = odds_of(name);
    if (!odds || roll() % odds)
        return;
    note(name);
    kill(getpid(), SIGKILL);
    for (;;) /* not a step further */
        pause();
}
