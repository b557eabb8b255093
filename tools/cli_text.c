/* Facts for people: aligned lines and tables. Reads the same tree that is printed as JSON, so the two
 * cannot disagree. */
#include "cli_text.h"

#include "cli_internal.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

enum { INDENT = 2, COLUMNS_MAX = 64 };

/* Terminal columns of UTF-8 text (continuation bytes take none). */
static int width(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void pad(FILE *out, int n)
{
    for (; n > 0; n--)
        fputc(' ', out);
}

static void human_bytes(uint64_t bytes, char *text, size_t room)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t unit = 0;
    while (v >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        v /= 1024;
        unit++;
    }
    snprintf(text, room, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

static void print_scalar(FILE *out, struct json_object *value, bool in_table)
{
    char unit[32];
    if (!value) {
        fputc('-', out);
    } else if (cli_emit_is_bytes(value)) {
        uint64_t bytes = json_object_get_uint64(value);
        human_bytes(bytes, unit, sizeof unit);
        if (in_table)
            fputs(unit, out);
        else if (bytes < 1024)
            fprintf(out, "%llu", (unsigned long long)bytes);
        else
            fprintf(out, "%llu (%s)", (unsigned long long)bytes, unit);
    } else if (json_object_is_type(value, json_type_boolean)) {
        fputs(json_object_get_boolean(value) ? "yes" : "no", out);
    } else {
        cli_print_escaped(out, json_object_get_string(value));
    }
}

/* A value in one line, whatever it is. */
static void print_inline(FILE *out, struct json_object *value, bool in_table)
{
    if (json_object_is_type(value, json_type_array)) {
        size_t n = json_object_array_length(value);
        if (!n)
            fputc('-', out);
        for (size_t i = 0; i < n; i++) {
            if (i)
                fputs(in_table ? "," : ", ", out);
            print_inline(out, json_object_array_get_idx(value, i), in_table);
        }
    } else if (json_object_is_type(value, json_type_object)) {
        const char *between = "";
        json_object_object_foreach(value, key, member)
        {
            fprintf(out, "%s%s=", between, key);
            print_inline(out, member, true);
            between = ",";
        }
    } else {
        print_scalar(out, value, in_table);
    }
}

/* The cell's text, to be freed; NULL when memory is out. */
static char *cell_text(struct json_object *value)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return NULL;
    print_inline(f, value, true);
    fclose(f);
    return text;
}

struct column {
    const char *key;
    int width;
    bool number;
};

struct table {
    struct json_object *rows;
    struct column columns[COLUMNS_MAX];
    size_t n_columns;
};

static struct column *column(struct table *t, const char *key)
{
    for (size_t i = 0; i < t->n_columns; i++)
        if (!strcmp(t->columns[i].key, key))
            return &t->columns[i];
    if (t->n_columns == COLUMNS_MAX)
        return NULL;
    t->columns[t->n_columns] = (struct column){.key = key, .width = width(key), .number = true};
    return &t->columns[t->n_columns++];
}

static bool is_number(struct json_object *value)
{
    enum json_type type = json_object_get_type(value);
    return !value || type == json_type_int || type == json_type_double;
}

static void measure(struct table *t)
{
    for (size_t i = 0; i < json_object_array_length(t->rows); i++) {
        json_object_object_foreach(json_object_array_get_idx(t->rows, i), key, value)
        {
            struct column *c = column(t, key);
            char *text = c ? cell_text(value) : NULL;
            if (!text)
                continue;
            if (width(text) > c->width)
                c->width = width(text);
            c->number = c->number && is_number(value);
            free(text);
        }
    }
}

static void print_cell(FILE *out, const struct column *c, const char *text, bool first, bool last)
{
    if (!first)
        pad(out, 2);
    if (c->number)
        pad(out, c->width - width(text));
    fputs(text, out);
    if (!c->number && !last)
        pad(out, c->width - width(text));
}

static void print_row(FILE *out, const struct table *t, struct json_object *row, int indent)
{
    pad(out, indent);
    for (size_t i = 0; i < t->n_columns; i++) {
        const struct column *c = &t->columns[i];
        struct json_object *value = NULL;
        char *text = NULL;
        if (row && json_object_object_get_ex(row, c->key, &value))
            text = cell_text(value);
        print_cell(out, c, !row ? c->key : text ? text : "", i == 0, i + 1 == t->n_columns);
        free(text);
    }
    fputc('\n', out);
}

static void print_table(FILE *out, struct json_object *rows, int indent)
{
    struct table t = {.rows = rows};
    measure(&t);
    print_row(out, &t, NULL, indent);
    for (size_t i = 0; i < json_object_array_length(rows); i++)
        print_row(out, &t, json_object_array_get_idx(rows, i), indent);
}

static bool is_table(struct json_object *value)
{
    return json_object_is_type(value, json_type_array) && json_object_array_length(value) &&
           json_object_is_type(json_object_array_get_idx(value, 0), json_type_object);
}

static void print_object(FILE *out, struct json_object *object, int indent)
{
    int widest = 0;
    json_object_object_foreach(object, name, any)
    {
        if (!json_object_is_type(any, json_type_object) && !is_table(any) && width(name) > widest)
            widest = width(name);
    }
    json_object_object_foreach(object, key, value)
    {
        pad(out, indent);
        fputs(key, out);
        if (is_table(value)) {
            fputc('\n', out);
            print_table(out, value, indent + INDENT);
        } else if (json_object_is_type(value, json_type_object)) {
            fputc('\n', out);
            print_object(out, value, indent + INDENT);
        } else {
            pad(out, widest - width(key) + 2);
            print_inline(out, value, false);
            fputc('\n', out);
        }
    }
}

void cli_text_write(FILE *out, struct json_object *top)
{
    print_object(out, top, 0);
}
