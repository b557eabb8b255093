/* See failpoint.h. What to do stands in the environment, read once a process: a forked child counts its own passes
 * and has its own random numbers, or every restarted worker would die at the same place. */
#include "base/failpoint.h"

#include "base/clock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
    /* worker */
    "claim", "describe", "writers", "copy", "submit-entry", "submit-enter", "complete", "publish-before",
    "publish-after",
    /* trainer */
    "attach", "take", "release-before", "release-after", "detach",
    /* parent */
    "spawn", "drain", "reclaim", "cut", "rebalance", "checkpoint-temp", "checkpoint-prev", "checkpoint-new"};

enum { N_POINTS = sizeof names / sizeof *names };

struct point {
    double probability; /* of each pass */
    uint64_t nth; /* dies at this pass; 0: at none */
    uint64_t passes;
    bool named; /* in words, not by `*` */
};

static struct point points[N_POINTS];
static bool parsed, active;
static pid_t ready_in; /* the process that all this is of; 0: none yet */
static uint64_t random_state;

static _Noreturn void wrong(const char *entry)
{
    fprintf(stderr, "ringfeed: RINGFEED_FAIL_POINTS: %s: not POINT:PROBABILITY, POINT:1/N or POINT:NTH-PASS\n", entry);
    _exit(2);
}

static int find(const char *name)
{
    for (int i = 0; i < N_POINTS; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static struct point parse_how(const char *how, const char *entry)
{
    struct point p = {0};
    char *end;
    double number = strtod(how, &end);
    if (end == how || number < 0)
        wrong(entry);
    if (*end == '/') {
        double n = strtod(end + 1, &end);
        p.probability = n > 0 ? number / n : 0;
    } else if (strchr(how, '.')) {
        p.probability = number;
    } else {
        p.nth = (uint64_t)number;
    }
    if (*end)
        wrong(entry);
    return p;
}

static void parse_entry(char *entry)
{
    char *colon = strchr(entry, ':');
    if (!colon)
        wrong(entry);
    *colon = 0;
    struct point p = parse_how(colon + 1, entry);
    int i = find(entry);
    if (i < 0 && strcmp(entry, "*") != 0)
        wrong(entry);
    for (int k = 0; k < N_POINTS; k++)
        if (k == i || (i < 0 && !points[k].named))
            points[k] = p;
    if (i >= 0)
        points[i].named = true;
    active = true;
}

static void parse(void)
{
    const char *given = getenv("RINGFEED_FAIL_POINTS");
    char text[1024], *rest = text, *entry;
    parsed = true;
    if (!given || !*given)
        return;
    if (snprintf(text, sizeof text, "%s", given) >= (int)sizeof text)
        wrong("too long");
    while ((entry = strsep(&rest, ",")))
        parse_entry(entry);
}

static void get_ready(pid_t pid)
{
    ready_in = pid;
    random_state = rfi_now_ns() ^ (uint64_t)pid << 32;
    for (int i = 0; i < N_POINTS; i++)
        points[i].passes = 0;
}

/* splitmix64, in [0, 1). */
static double next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void say(const char *name)
{
    const char *path = getenv("RINGFEED_FAIL_LOG");
    char line[64];
    int n = snprintf(line, sizeof line, "%s %d\n", name, (int)getpid());
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (fd >= 0)
        (void)!write(fd, line, (size_t)n);
}

void rfi_fail_point(const char *name)
{
    if (!parsed)
        parse();
    if (!active) /* without a system call: tests forbid them on the trainer's path */
        return;
    pid_t pid = getpid();
    if (ready_in != pid)
        get_ready(pid);
    int i = find(name);
    if (i < 0) {
        fprintf(stderr, "ringfeed: fail point %s is not in the table of lib/base/failpoint.c\n", name);
        abort();
    }
    struct point *p = &points[i];
    p->passes++;
    if (p->passes != p->nth && !(p->probability > 0 && next_random() < p->probability))
        return;
    say(name);
    kill(pid, SIGKILL);
    for (;;) /* for good before the next instruction, but the compiler need not know it */
        pause();
}

bool rfi_fail_points_list(FILE *to)
{
    const char *given = getenv("RINGFEED_FAIL_POINTS");
    if (!given || strcmp(given, "list") != 0)
        return false;
    for (int i = 0; i < N_POINTS; i++)
        fprintf(to, "%s\n", names[i]);
    return true;
}

bool rfi_test_switch(const char *name)
{
    const char *given = getenv(name);
    return given && strcmp(given, "1") == 0;
}
