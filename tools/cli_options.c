/* Parsing of the command line against tables of options. Knows no verb and no option by name but
 * --help. */
#include "cli_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cli_frame cli_frame;

/* One parse: where we are in argv. */
struct parse {
    const struct cli_option *const *groups;
    int argc, at;
    char **argv;
};

struct kept {
    struct kept *before;
    _Alignas(16) unsigned char bytes[];
};
static struct kept *kept_head; /* keeps everything reachable for leak checkers */

void *cli_keep(size_t bytes)
{
    struct kept *k = calloc(1, sizeof *k + bytes);
    if (!k) {
        cli_message("command line: out of memory. Free some memory");
        exit(CLI_FAILED);
    }
    k->before = kept_head;
    kept_head = k;
    return k->bytes;
}

/* Grown by doubling; the old array stays with cli_keep, at most as much again. */
static void push(struct cli_list *list, const char *item)
{
    if ((list->n & (list->n - 1)) == 0) {
        const char **grown = cli_keep((list->n ? 2 * list->n : 1) * sizeof *grown);
        if (list->n)
            memcpy(grown, list->items, list->n * sizeof *grown);
        list->items = grown;
    }
    list->items[list->n++] = item;
}

static const struct cli_option *find(const struct cli_option *const *groups, const char *name, size_t n)
{
    for (; *groups; groups++)
        for (const struct cli_option *o = *groups; o->name; o++)
            if (strlen(o->name) == n && !memcmp(o->name, name, n))
                return o;
    return NULL;
}

struct walk {
    const struct cli_option *const *groups;
    const struct cli_option *at;
};

static const char *next_name(void *ctx)
{
    struct walk *w = ctx;
    while (*w->groups) {
        w->at = w->at ? w->at + 1 : *w->groups;
        if (w->at->name)
            return w->at->name;
        w->groups++;
        w->at = NULL;
    }
    return NULL;
}

static int unknown(const struct parse *p, const char *arg, size_t n)
{
    char word[64];
    struct walk w = {.groups = p->groups};
    snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), arg);
    const char *near = cli_closest(word, next_name, &w);
    if (near && near[1])
        cli_usage("--%s: no such option. Did you mean --%s?", word, near);
    else
        cli_usage("%s%s: no such option", n == 1 ? "-" : "--", word);
    return -EINVAL;
}

static const char *dashes(const struct cli_option *o)
{
    return o->name[1] ? "--" : "-";
}

static int bad_value(const struct cli_option *o, const char *text, const char *why)
{
    cli_usage("%s%s %s: %s", dashes(o), o->name, text, why);
    return -EINVAL;
}

static int set_unsigned(const struct cli_option *o, const char *text)
{
    const char *why;
    uint64_t v, max = o->max ? o->max : o->kind == CLI_U32 ? UINT32_MAX : UINT64_MAX;
    char limit[64];
    int rc = o->kind == CLI_BYTES ? cli_value_bytes(text, &v, &why) : cli_value_u64(text, &v, &why);
    if (rc < 0)
        return bad_value(o, text, why);
    if (v < o->min) {
        snprintf(limit, sizeof limit, "must be at least %llu", (unsigned long long)o->min);
        return bad_value(o, text, limit);
    }
    if (v > max) {
        snprintf(limit, sizeof limit, "must be at most %llu", (unsigned long long)max);
        return bad_value(o, text, limit);
    }
    if (o->kind == CLI_U32)
        *(uint32_t *)o->target = (uint32_t)v;
    else
        *(uint64_t *)o->target = v;
    return 0;
}

static int set_double(const struct cli_option *o, const char *text)
{
    const char *why;
    double v;
    char limit[96];
    if (cli_value_double(text, &v, &why) < 0)
        return bad_value(o, text, why);
    if ((o->dmin < o->dmax) && (v < o->dmin || v > o->dmax)) {
        snprintf(limit, sizeof limit, "must be from %g to %g", o->dmin, o->dmax);
        return bad_value(o, text, limit);
    }
    *(double *)o->target = v;
    return 0;
}

static int set_choice(const struct cli_option *o, const char *text)
{
    char why[512] = "is none of";
    for (int i = 0; o->choices[i]; i++) {
        if (!strcmp(o->choices[i], text)) {
            *(int *)o->target = i;
            return 0;
        }
        size_t n = strlen(why);
        snprintf(why + n, sizeof why - n, "%s %s", i ? "," : "", o->choices[i]);
    }
    return bad_value(o, text, why);
}

static int set(const struct cli_option *o, const char *text)
{
    int rc = 0;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->target = true;
        break;
    case CLI_U64:
    case CLI_U32:
    case CLI_BYTES:
        rc = set_unsigned(o, text);
        break;
    case CLI_DOUBLE:
        rc = set_double(o, text);
        break;
    case CLI_STRING:
        *(const char **)o->target = text;
        break;
    case CLI_LIST:
        push(o->target, text);
        break;
    case CLI_CHOICE:
        rc = set_choice(o, text);
        break;
    }
    if (rc == 0 && o->given)
        *o->given = true;
    return rc;
}

/* The value of an option: what stands behind '=' (or behind the letter), else the next argument. */
static int take(struct parse *p, const struct cli_option *o, const char *attached)
{
    if (o->kind == CLI_FLAG)
        return attached ? bad_value(o, attached, "takes no value") : set(o, NULL);
    if (attached)
        return set(o, attached);
    if (p->at + 1 >= p->argc) {
        cli_usage("%s%s: needs a value %s", dashes(o), o->name, o->metavar ? o->metavar : "");
        return -EINVAL;
    }
    return set(o, p->argv[++p->at]);
}

static int parse_long(struct parse *p, const char *arg)
{
    const char *equals = strchr(arg, '=');
    size_t n = equals ? (size_t)(equals - arg) : strlen(arg);
    const struct cli_option *o = n > 1 ? find(p->groups, arg, n) : NULL;
    return o ? take(p, o, equals ? equals + 1 : NULL) : unknown(p, arg, n);
}

/* "-o FILE", "-oFILE" and "-ab" for flags. */
static int parse_short(struct parse *p, const char *arg)
{
    for (; *arg; arg++) {
        const struct cli_option *o = find(p->groups, arg, 1);
        if (!o)
            return unknown(p, arg, 1);
        if (o->kind != CLI_FLAG)
            return take(p, o, arg[1] ? arg + 1 : NULL);
        set(o, NULL);
    }
    return 0;
}

static int positional(struct cli_list *list, const char *arg)
{
    if (!list) {
        cli_usage("%s: unexpected argument", arg);
        return -EINVAL;
    }
    push(list, arg);
    return 0;
}

static bool is_help(const char *arg)
{
    return !strcmp(arg, "--help") || !strcmp(arg, "-h");
}

static int parse_all(struct parse *p, struct cli_list *positionals)
{
    bool options = true;
    for (p->at = 1; p->at < p->argc; p->at++) {
        const char *arg = p->argv[p->at];
        int rc;
        if (!options || arg[0] != '-' || !arg[1]) {
            rc = positional(positionals, arg);
        } else if (!strcmp(arg, "--")) {
            options = false;
            rc = 0;
        } else if (is_help(arg)) {
            return 1;
        } else {
            rc = arg[1] == '-' ? parse_long(p, arg + 2) : parse_short(p, arg + 1);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

int cli_parse(const struct cli_verb *verb, const struct cli_option *const *groups, int argc, char **argv,
              struct cli_list *positionals)
{
    struct parse p = {.groups = groups, .argc = argc, .argv = argv};
    verb = verb ? verb : cli_frame.verb;
    if (positionals)
        *positionals = (struct cli_list){0};
    if (cli_frame.mode == CLI_MODE_MAN) {
        cli_man_verb(stdout, verb, groups);
        return 1;
    }
    if (cli_frame.mode == CLI_MODE_COMPLETION) {
        cli_completion_verb(stdout, verb, groups);
        return 1;
    }
    int rc = parse_all(&p, positionals);
    if (rc == 1)
        cli_help_verb(stdout, verb, groups);
    return rc;
}
