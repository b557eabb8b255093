/* The text form of a tree of facts. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct json_object;

/* Scalars as aligned "key value" lines, objects indented below their key, arrays of objects as
 * tables, other arrays on one line. */
void cli_text_write(FILE *out, struct json_object *top);

/* True for a number that cli_emit_bytes put there. */
bool cli_emit_is_bytes(struct json_object *value);
