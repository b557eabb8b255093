/* Output of facts: a verb walks its data once and names each value; this builds a tree and writes it
 * as one JSON object a line, or as text by cli_text.c. */
#include "cli_internal.h"
#include "cli_text.h"

#include <json-c/json.h>
#include <math.h>
#include <string.h>

/* Marks a number that is a count of bytes for the text writer. */
static char bytes_mark;

bool cli_emit_is_bytes(struct json_object *value)
{
    return json_object_get_userdata(value) == &bytes_mark;
}

/* Length of the valid UTF-8 sequence at `s`, 0 when there is none (RFC 3629: no overlong forms, no
 * surrogates, at most U+10FFFF). */
static size_t utf8_length(const unsigned char *s)
{
    static const unsigned char low[] = {0xc2, 0xe0, 0xf0}, high[] = {0xdf, 0xef, 0xf4};
    if (s[0] < 0x80)
        return 1;
    for (size_t k = 0; k < 3; k++) {
        if (s[0] < low[k] || s[0] > high[k])
            continue;
        for (size_t i = 1; i <= k + 1; i++)
            if ((s[i] & 0xc0) != 0x80)
                return 0;
        if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
            (s[0] == 0xf4 && s[1] > 0x8f))
            return 0;
        return k + 2;
    }
    return 0;
}

/* Bytes that are not UTF-8 become U+FFFD: file names are bytes, JSON is text. */
static struct json_object *new_string(const char *text)
{
    size_t n = strlen(text), at = 0;
    char *clean = malloc(3 * n + 1);
    if (!clean)
        return NULL;
    for (size_t i = 0; i < n;) {
        size_t k = utf8_length((const unsigned char *)text + i);
        memcpy(clean + at, k ? text + i : "\xef\xbf\xbd", k ? k : 3);
        at += k ? k : 3;
        i += k ? k : 1;
    }
    struct json_object *s = json_object_new_string_len(clean, (int)at);
    free(clean);
    return s;
}

/* Takes `value` over. A NULL value is JSON null. */
static void put(struct cli_emit *e, const char *key, struct json_object *value)
{
    struct json_object *at = e->stack[e->depth];
    int rc = json_object_is_type(at, json_type_array) ? json_object_array_add(at, value)
                                                      : json_object_object_add(at, key ? key : "", value);
    if (rc < 0) {
        e->failed = true;
        json_object_put(value);
    }
}

/* As put, where NULL means that memory is out. */
static void put_new(struct cli_emit *e, const char *key, struct json_object *value)
{
    if (value)
        put(e, key, value);
    else
        e->failed = true;
}

static void open_nested(struct cli_emit *e, const char *key, struct json_object *value)
{
    size_t room = sizeof e->stack / sizeof *e->stack;
    put_new(e, key, value);
    if (e->failed || (size_t)e->depth + 1 >= room) {
        e->failed = true;
        return;
    }
    e->stack[++e->depth] = value;
}

void cli_emit_begin(struct cli_emit *e, bool json)
{
    *e = (struct cli_emit){.json = json, .out = stdout};
    e->stack[0] = json_object_new_object();
    e->failed = !e->stack[0];
}

void cli_emit_str(struct cli_emit *e, const char *key, const char *value)
{
    if (e->failed)
        return;
    if (value)
        put_new(e, key, new_string(value));
    else
        put(e, key, NULL);
}

void cli_emit_u64(struct cli_emit *e, const char *key, uint64_t value)
{
    if (!e->failed)
        put_new(e, key, json_object_new_uint64(value));
}

void cli_emit_i64(struct cli_emit *e, const char *key, int64_t value)
{
    if (!e->failed)
        put_new(e, key, json_object_new_int64(value));
}

void cli_emit_f64(struct cli_emit *e, const char *key, double value, int digits)
{
    char text[400];
    if (e->failed)
        return;
    if (!isfinite(value)) { /* JSON has no such number */
        put(e, key, NULL);
        return;
    }
    snprintf(text, sizeof text, "%.*f", digits < 0 ? 0 : digits > 17 ? 17 : digits, value);
    put_new(e, key, json_object_new_double_s(value, text));
}

void cli_emit_bytes(struct cli_emit *e, const char *key, uint64_t value)
{
    struct json_object *v = e->failed ? NULL : json_object_new_uint64(value);
    if (v)
        json_object_set_userdata(v, &bytes_mark, NULL);
    if (!e->failed)
        put_new(e, key, v);
}

void cli_emit_bool(struct cli_emit *e, const char *key, bool value)
{
    if (!e->failed)
        put_new(e, key, json_object_new_boolean(value));
}

void cli_emit_null(struct cli_emit *e, const char *key)
{
    if (!e->failed)
        put(e, key, NULL);
}

void cli_emit_object(struct cli_emit *e, const char *key)
{
    if (!e->failed)
        open_nested(e, key, json_object_new_object());
}

void cli_emit_array(struct cli_emit *e, const char *key)
{
    if (!e->failed)
        open_nested(e, key, json_object_new_array());
}

void cli_emit_close(struct cli_emit *e)
{
    if (!e->failed && e->depth > 0)
        e->depth--;
}

int cli_emit_end(struct cli_emit *e)
{
    bool failed = e->failed;
    if (!failed && e->json) {
        const char *text =
            json_object_to_json_string_ext(e->stack[0], JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        failed = !text || fputs(text, e->out) < 0 || fputc('\n', e->out) < 0;
    } else if (!failed) {
        cli_text_write(e->out, e->stack[0]);
    }
    json_object_put(e->stack[0]);
    e->stack[0] = NULL;
    if (e->failed)
        return cli_fail("output: out of memory while building it. Free some memory");
    return cli_close_stdout();
}
