/* The emitter: text and JSON of one walk. */
#include "cli_internal.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <json-c/json.h>
#include <math.h>
#include <string.h>

static void walk(bool json)
{
    struct cli_emit e;
    cli_emit_begin(&e, json);
    cli_emit_str(&e, "name",
                 "a\xff"
                 "b\n\033[2J");
    cli_emit_u64(&e, "most", UINT64_MAX);
    cli_emit_i64(&e, "least", INT64_MIN);
    cli_emit_f64(&e, "part", 0.125, 2);
    cli_emit_f64(&e, "nothing", NAN, 2);
    cli_emit_bytes(&e, "size", 3u << 20);
    cli_emit_bool(&e, "good", true);
    cli_emit_str(&e, "none", NULL);
    cli_emit_object(&e, "inner");
    cli_emit_u64(&e, "one", 1);
    cli_emit_close(&e);
    cli_emit_array(&e, "shape");
    cli_emit_u64(&e, NULL, 28);
    cli_emit_u64(&e, NULL, 30);
    cli_emit_close(&e);
    cli_emit_array(&e, "ranks");
    for (uint64_t i = 9; i < 11; i++) {
        cli_emit_object(&e, NULL);
        cli_emit_u64(&e, "rank", i);
        cli_emit_bytes(&e, "bytes", 2048 * i);
        cli_emit_str(&e, "status", i == 9 ? "idle" : "active");
        cli_emit_close(&e);
    }
    cli_emit_close(&e);
    cr_assert_eq(cli_emit_end(&e), CLI_OK);
}

static void output(char *text, size_t room)
{
    size_t n = fread(text, 1, room - 1, cr_get_redirected_stdout());
    text[n] = 0;
}

Test(emit, json_is_one_valid_line_whatever_the_bytes, .timeout = 10, .init = cr_redirect_stdout)
{
    char text[4096];
    walk(true);
    output(text, sizeof text);
    cr_assert_str_eq(text, "{\"name\":\"a\xef\xbf\xbd"
                           "b\\n\\u001b[2J\",\"most\":18446744073709551615,"
                           "\"least\":-9223372036854775808,\"part\":0.12,\"nothing\":null,\"size\":3145728,"
                           "\"good\":true,\"none\":null,\"inner\":{\"one\":1},\"shape\":[28,30],"
                           "\"ranks\":[{\"rank\":9,\"bytes\":18432,\"status\":\"idle\"},"
                           "{\"rank\":10,\"bytes\":20480,\"status\":\"active\"}]}\n");
}

Test(emit, text_is_aligned_and_escaped, .timeout = 10, .init = cr_redirect_stdout)
{
    char text[4096];
    walk(false);
    output(text, sizeof text);
    cr_assert_str_eq(text, "name     a\xef\xbf\xbd"
                           "b\\n\\x1b[2J\n"
                           "most     18446744073709551615\n"
                           "least    -9223372036854775808\n"
                           "part     0.12\n"
                           "nothing  -\n"
                           "size     3145728 (3.0 MiB)\n"
                           "good     yes\n"
                           "none     -\n"
                           "inner\n"
                           "  one  1\n"
                           "shape    28, 30\n"
                           "ranks\n"
                           "  rank     bytes  status\n"
                           "     9  18.0 KiB  idle\n"
                           "    10  20.0 KiB  active\n");
}

Test(emit, too_deep_fails_and_does_not_crash, .timeout = 10, .init = cr_redirect_stdout)
{
    struct cli_emit e;
    cli_emit_begin(&e, true);
    for (int i = 0; i < 40; i++)
        cli_emit_object(&e, "deeper");
    for (int i = 0; i < 50; i++)
        cli_emit_close(&e);
    cr_expect_eq(cli_emit_end(&e), CLI_FAILED);
}

Test(emit, a_full_standard_output_is_a_failure, .timeout = 10)
{
    struct cli_emit e;
    cr_assert_not_null(freopen("/dev/full", "w", stdout));
    cli_emit_begin(&e, true);
    cli_emit_u64(&e, "x", 1);
    cr_expect_eq(cli_emit_end(&e), CLI_FAILED);
}
