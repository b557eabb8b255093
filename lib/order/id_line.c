/* Parsing of id lines: single spaces, plain decimals, nothing before and nothing behind. */
#include "order/id_line.h"

static bool number(const char **at, const char *end, uint64_t *ret)
{
    const char *p = *at;
    uint64_t value = 0;
    while (p < end && *p >= '0' && *p <= '9') {
        if (__builtin_mul_overflow(value, 10u, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
        p++;
    }
    if (p == *at || p == end || *p != ' ')
        return false;
    *at = p + 1;
    *ret = value;
    return true;
}

bool rfi_id_line_parse(const char *text, size_t bytes, struct rfi_id_line *ret)
{
    const char *end = text + bytes;
    uint64_t rank;
    if (!number(&text, end, &ret->epoch) || !number(&text, end, &rank) || !number(&text, end, &ret->batch) ||
        !number(&text, end, &ret->slot) || !number(&text, end, &ret->index))
        return false;
    if (rank > UINT32_MAX || end - text != 1)
        return false;
    ret->rank = (uint32_t)rank;
    ret->flag = *text;
    return ret->flag == '-' || ret->flag == 'p' || ret->flag == 's';
}
