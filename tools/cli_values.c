/* Texts of option values to numbers. Strict: no signs, no blanks, no overflow, all of the text. */
#include "cli_internal.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Digits at *text, which is moved behind them. */
static int digits(const char **text, uint64_t *ret, const char **why)
{
    uint64_t v = 0;
    const char *c = *text;
    *why = "is not a whole number";
    if (!isdigit((unsigned char)*c))
        return -EINVAL;
    *why = "is too large";
    for (; isdigit((unsigned char)*c); c++)
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*c - '0'), &v))
            return -ERANGE;
    *text = c;
    *ret = v;
    return 0;
}

int cli_value_u64(const char *text, uint64_t *ret, const char **why)
{
    int rc = digits(&text, ret, why);
    if (rc == 0 && *text) {
        *why = "is not a whole number";
        return -EINVAL;
    }
    return rc;
}

int cli_value_bytes(const char *text, uint64_t *ret, const char **why)
{
    static const char units[] = "kmgtpe";
    uint64_t v = 0;
    int rc = digits(&text, &v, why);
    if (rc < 0)
        return rc;
    const char *unit = *text ? strchr(units, tolower((unsigned char)*text)) : NULL;
    unsigned shift = 0;
    if (unit) {
        shift = 10u * (unsigned)(unit - units + 1);
        text++;
        if (*text == 'i')
            text++;
    }
    if (*text == 'b' || *text == 'B')
        text++;
    if (*text) {
        *why = "is not a size like 4096, 64k, 4MiB or 1G";
        return -EINVAL;
    }
    if (v > UINT64_MAX >> shift) {
        *why = "is too large";
        return -ERANGE;
    }
    *ret = v << shift;
    return 0;
}

int cli_value_double(const char *text, double *ret, const char **why)
{
    char *end = NULL;
    *why = "is not a number";
    if (!isdigit((unsigned char)*text) && *text != '.' && *text != '-')
        return -EINVAL;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v))
        return -EINVAL;
    *ret = v;
    return 0;
}
