/* The option parser: every kind, every way to write a value, every way to be wrong. */
#include "cli_internal.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <string.h>

static const char *const colours[] = {"red", "green", NULL};

struct parsed {
    bool flag, flag_given, number_given;
    uint64_t number, bytes;
    uint32_t small;
    double part;
    const char *text;
    struct cli_list list;
    int choice;
    struct cli_list rest;
};

static int run(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return CLI_OK;
}

static const struct cli_verb verb = {"test", "", "", "", run};

static int parse(struct parsed *p, const char *const *words)
{
    const struct cli_option first[] = {
        {.name = "flag", .kind = CLI_FLAG, .target = &p->flag, .given = &p->flag_given},
        {.name = "v", .kind = CLI_FLAG, .target = &p->flag},
        {.name = "number", .kind = CLI_U64, .target = &p->number, .min = 2, .max = 100, .given = &p->number_given},
        {.name = "n", .kind = CLI_U64, .target = &p->number},
        {.name = "small", .kind = CLI_U32, .target = &p->small},
        {0}};
    const struct cli_option second[] = {
        {.name = "bytes", .kind = CLI_BYTES, .target = &p->bytes},
        {.name = "part", .kind = CLI_DOUBLE, .target = &p->part, .dmin = 0, .dmax = 1},
        {.name = "text", .kind = CLI_STRING, .target = &p->text},
        {.name = "list", .kind = CLI_LIST, .target = &p->list},
        {.name = "choice", .kind = CLI_CHOICE, .target = &p->choice, .choices = colours},
        {0}};
    const struct cli_option *const groups[] = {first, second, NULL};
    char *argv[32] = {0};
    int argc = 1;
    argv[0] = (char[]){"test"};
    for (; *words; words++)
        argv[argc++] = strdup(*words);
    *p = (struct parsed){0};
    return cli_parse(&verb, groups, argc, argv, &p->rest);
}

#define PARSE(p, ...) parse(p, (const char *const[]){__VA_ARGS__, NULL})

Test(options, all_kinds_in_any_order_among_positionals, .timeout = 10)
{
    struct parsed p;
    cr_assert_eq(PARSE(&p, "one", "--number", "7", "--flag", "two", "--bytes=4MiB", "--part", "0.5", "--text=",
                       "--list", "a", "--list=b", "--choice", "green", "--small", "4294967295", "--", "--flag", "-"),
                 0);
    cr_expect(p.flag && p.flag_given && p.number_given);
    cr_expect_eq(p.number, 7);
    cr_expect_eq(p.bytes, 4u << 20);
    cr_expect_eq(p.part, 0.5);
    cr_expect_str_eq(p.text, "");
    cr_assert_eq(p.list.n, 2);
    cr_expect_str_eq(p.list.items[1], "b");
    cr_expect_eq(p.choice, 1);
    cr_expect_eq(p.small, UINT32_MAX);
    cr_assert_eq(p.rest.n, 4);
    cr_expect_str_eq(p.rest.items[2], "--flag");
    cr_expect_str_eq(p.rest.items[3], "-");
}

Test(options, short_forms, .timeout = 10)
{
    struct parsed p;
    cr_expect_eq(PARSE(&p, "-n", "5"), 0);
    cr_expect_eq(p.number, 5);
    cr_expect_eq(PARSE(&p, "-vn12"), 0);
    cr_expect(p.flag);
    cr_expect_eq(p.number, 12);
}

Test(options, a_value_may_begin_with_a_dash, .timeout = 10)
{
    struct parsed p;
    cr_expect_eq(PARSE(&p, "--text", "-x"), 0);
    cr_expect_str_eq(p.text, "-x");
}

Test(options, the_last_of_a_repeated_option_counts, .timeout = 10)
{
    struct parsed p;
    cr_expect_eq(PARSE(&p, "--number", "5", "--number", "6"), 0);
    cr_expect_eq(p.number, 6);
}

Test(options, many_positionals_survive, .timeout = 10)
{
    struct parsed p;
    cr_expect_eq(PARSE(&p, "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"),
                 0);
    cr_assert_eq(p.rest.n, 17);
    cr_expect_str_eq(p.rest.items[0], "0");
    cr_expect_str_eq(p.rest.items[16], "16");
}

Test(options, sizes_are_binary_multiples, .timeout = 10)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},
                {"4096", 4096},
                {"64k", 65536},
                {"64K", 65536},
                {"1kib", 1024},
                {"4MiB", 4u << 20},
                {"4mb", 4u << 20},
                {"1G", 1u << 30},
                {"2t", UINT64_C(2) << 40},
                {"512b", 512},
                {"15e", UINT64_C(15) << 60},
                {"18446744073709551615", UINT64_MAX}};
    static const char *const bad[] = {
        "", "k", "-1", "+1", " 1", "1 ", "1.5k", "1kk", "1x", "16e", "1i", "0x10", "18446744073709551616", "1k1"};
    const char *why;
    uint64_t v;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_expect_eq(cli_value_bytes(good[i].text, &v, &why), 0, "%s", good[i].text);
        cr_expect_eq(v, good[i].value, "%s", good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_lt(cli_value_bytes(bad[i], &v, &why), 0, "%s", bad[i]);
}

Test(options, numbers_are_strict, .timeout = 10)
{
    static const char *const bad[] = {
        "", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x10", "one", "18446744073709551616", "99999999999999999999999999"};
    static const char *const bad_doubles[] = {"", "nan", "inf", "1e999", "x", "1x", " 1", "--1"};
    const char *why;
    uint64_t v;
    double f;
    cr_expect_eq(cli_value_u64("18446744073709551615", &v, &why), 0);
    cr_expect_eq(v, UINT64_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_lt(cli_value_u64(bad[i], &v, &why), 0, "%s", bad[i]);
    for (size_t i = 0; i < sizeof bad_doubles / sizeof *bad_doubles; i++)
        cr_expect_lt(cli_value_double(bad_doubles[i], &f, &why), 0, "%s", bad_doubles[i]);
    cr_expect_eq(cli_value_double("0.25", &f, &why), 0);
    cr_expect_eq(f, 0.25);
}

/* What is wrong and what the one line must say about it. */
Test(options, every_mistake_is_one_line_that_names_it, .timeout = 10, .init = cr_redirect_stderr)
{
    static const struct {
        const char *words[4];
        const char *says;
    } wrong[] = {
        {{"--number", "1"}, "ringfeed: --number 1: must be at least 2."},
        {{"--number=101"}, "ringfeed: --number 101: must be at most 100."},
        {{"--number"}, "ringfeed: --number: needs a value"},
        {{"--number="}, "ringfeed: --number : is not a whole number"},
        {{"--small=4294967296"}, "must be at most 4294967295"},
        {{"--part=1.5"}, "must be from 0 to 1"},
        {{"--choice=blue"}, "ringfeed: --choice blue: is none of red, green."},
        {{"--flag=yes"}, "takes no value"},
        {{"--numbre", "5"}, "Did you mean --number?"},
        {{"--zzzzzzzzz"}, "ringfeed: --zzzzzzzzz: no such option"},
        {{"-q"}, "ringfeed: -q: no such option"},
        {{"--n", "5"}, "no such option"},
        {{"--list=a\nb\033[2J", "--number=\x01"}, "ringfeed: --number \\x01:"},
    };
    struct parsed p;
    char text[16384] = "";
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_expect_lt(parse(&p, wrong[i].words), 0, "%s", wrong[i].words[0]);
    fflush(stderr);
    FILE *f = cr_get_redirected_stderr();
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    char *line = text;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *end = strchr(line, '\n');
        cr_assert_not_null(end, "line %zu is missing", i);
        *end = 0;
        cr_expect(strstr(line, wrong[i].says), "%s\n  is not in: %s", wrong[i].says, line);
        cr_expect(!strncmp(line, "ringfeed: ", 10), "%s", line);
        line = end + 1;
    }
    cr_expect_str_eq(line, "");
}

Test(options, help_is_printed_from_the_tables, .timeout = 10, .init = cr_redirect_stdout)
{
    struct parsed p;
    char text[8192];
    cr_assert_eq(PARSE(&p, "--help"), 1);
    fflush(stdout);
    size_t n = fread(text, 1, sizeof text - 1, cr_get_redirected_stdout());
    text[n] = 0;
    cr_expect(strstr(text, "Usage: ringfeed test"));
    cr_expect(strstr(text, "--choice red|green"));
    cr_expect(strstr(text, "--help"));
}
