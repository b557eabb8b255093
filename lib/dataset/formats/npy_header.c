/* The header is a Python literal: {'descr': ..., 'fortran_order': ..., 'shape': (...), }. A small
 * recursive parser over at most HEADER_MAX bytes; nothing in it allocates by what the file claims. */
#include "dataset/formats/npy_header.h"

#include "base/bytes.h"
#include "dataset/formats/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 1 << 20, NEST_MAX = 32 };

struct parser {
    const char *p, *end;
    const char *why; /* first complaint */
    bool object; /* an element of type O was met */
};

static bool fail(struct parser *x, const char *why)
{
    if (!x->why)
        x->why = why;
    return false;
}

static void skip_space(struct parser *x)
{
    while (x->p < x->end && (*x->p == ' ' || *x->p == '\t' || *x->p == '\n' || *x->p == '\r'))
        x->p++;
}

static bool peek(struct parser *x, char c)
{
    skip_space(x);
    return x->p < x->end && *x->p == c;
}

static bool take(struct parser *x, char c)
{
    if (!peek(x, c))
        return false;
    x->p++;
    return true;
}

/* 'text', "text", with u or b in front; escapes only keep the closing quote from closing. */
static bool string(struct parser *x, const char **ret, size_t *ret_n)
{
    skip_space(x);
    if (x->p < x->end && (*x->p == 'u' || *x->p == 'b'))
        x->p++;
    if (x->p >= x->end || (*x->p != '\'' && *x->p != '"'))
        return fail(x, "a string is missing");
    char quote = *x->p++;
    *ret = x->p;
    while (x->p < x->end && *x->p != quote)
        x->p += *x->p == '\\' && x->p + 1 < x->end ? 2 : 1;
    if (x->p >= x->end)
        return fail(x, "a string does not end");
    *ret_n = (size_t)(x->p++ - *ret);
    return true;
}

static bool number(struct parser *x, uint64_t *ret)
{
    uint64_t v = 0;
    skip_space(x);
    const char *start = x->p;
    while (x->p < x->end && *x->p >= '0' && *x->p <= '9')
        if (rfi_mul_over(v, 10, &v) || rfi_add_over(v, (uint64_t)(*x->p++ - '0'), &v))
            return fail(x, "a number is too large");
    if (x->p == start)
        return fail(x, "a dimension is not a number");
    if (x->p < x->end && *x->p == 'L') /* written by Python 2 */
        x->p++;
    *ret = v;
    return true;
}

static bool word(struct parser *x, const char *w)
{
    size_t n = strlen(w);
    skip_space(x);
    if ((size_t)(x->end - x->p) < n || memcmp(x->p, w, n))
        return false;
    x->p += n;
    return true;
}

/* (), (3,), (3, 4) */
static bool tuple(struct parser *x, uint64_t *dims, uint32_t cap, uint32_t *ret_n)
{
    *ret_n = 0;
    if (!take(x, '('))
        return fail(x, "the shape is not a tuple");
    while (!take(x, ')')) {
        if (*ret_n == cap)
            return fail(x, "the shape has more than 32 dimensions");
        if (!number(x, &dims[*ret_n]))
            return false;
        ++*ret_n;
        if (!take(x, ',') && !peek(x, ')'))
            return fail(x, "the shape is not a tuple");
    }
    return true;
}

/* ---- types ---- */

static const char *letters_with_size = "biufcSaUVmM";

/* "<f4", "|S10", "<U5", "<M8[ns]", "?" */
static bool simple_type(struct parser *x, const char *t, size_t n, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;
    if (i < n && strchr("<>|=", t[i]))
        i++;
    if (i < n && t[i] == 'O') {
        x->object = true;
        return fail(x, "objects");
    }
    if (i + 1 == n && t[i] == '?') {
        *ret = 1;
        return true;
    }
    if (i >= n || !strchr(letters_with_size, t[i]) || !t[i])
        return fail(x, "the element type is unknown");
    char letter = t[i++];
    size_t digits = i;
    for (; i < n && t[i] >= '0' && t[i] <= '9'; i++)
        if (rfi_mul_over(v, 10, &v) || rfi_add_over(v, (uint64_t)(t[i] - '0'), &v) || v > INT32_MAX)
            return fail(x, "the element type is too large");
    bool unit = (letter == 'm' || letter == 'M') && i < n && t[i] == '[' && t[n - 1] == ']';
    if (i == digits || (i != n && !unit))
        return fail(x, "the element type is unknown");
    *ret = letter == 'U' ? 4 * v : v;
    return true;
}

static bool type(struct parser *x, int depth, uint64_t *ret);

/* ('name', type) or ('name', type, shape); the name may be a pair ('title', 'name'). */
static bool field(struct parser *x, int depth, uint64_t *ret)
{
    const char *s;
    size_t n;
    uint64_t dims[RFI_NPY_MAX_DIMS];
    uint32_t n_dims;
    if (!take(x, '('))
        return fail(x, "a field of the element type is malformed");
    if (take(x, '(')) {
        if (!string(x, &s, &n) || !take(x, ',') || !string(x, &s, &n) || !take(x, ')'))
            return fail(x, "a field's title is malformed");
    } else if (!string(x, &s, &n)) {
        return false;
    }
    if (!take(x, ',') || !type(x, depth + 1, ret))
        return fail(x, "a field of the element type is malformed");
    if (take(x, ',') && !peek(x, ')')) {
        if (!peek(x, '(')) { /* a bare number is a shape of one dimension */
            n_dims = 1;
            if (!number(x, &dims[0]))
                return false;
        } else if (!tuple(x, dims, RFI_NPY_MAX_DIMS, &n_dims)) {
            return false;
        }
        for (uint32_t i = 0; i < n_dims; i++)
            if (rfi_mul_over(*ret, dims[i], ret))
                return fail(x, "the element type is too large");
        take(x, ',');
    }
    return take(x, ')') || fail(x, "a field of the element type is malformed");
}

/* A string, or a list of fields (NumPy writes padding as fields of its own, so sizes add up). */
static bool type(struct parser *x, int depth, uint64_t *ret)
{
    const char *s;
    size_t n;
    if (depth > NEST_MAX)
        return fail(x, "the element type is nested too deep");
    if (!take(x, '['))
        return string(x, &s, &n) && simple_type(x, s, n, ret);
    *ret = 0;
    while (!take(x, ']')) {
        uint64_t bytes;
        if (!field(x, depth, &bytes))
            return false;
        if (rfi_add_over(*ret, bytes, ret) || *ret > INT32_MAX)
            return fail(x, "the element type is too large");
        if (!take(x, ',') && !peek(x, ']'))
            return fail(x, "the element type is malformed");
    }
    return true;
}

static bool descr(struct parser *x, struct rfi_npy *a)
{
    const char *s;
    size_t n;
    if (peek(x, '[')) {
        if (!type(x, 0, &a->item_bytes))
            return false;
        snprintf(a->dtype, sizeof a->dtype, "|V%llu", (unsigned long long)a->item_bytes);
        return true;
    }
    if (!string(x, &s, &n) || !simple_type(x, s, n, &a->item_bytes))
        return false;
    if (n >= sizeof a->dtype)
        return fail(x, "the name of the element type is too long");
    memcpy(a->dtype, s, n);
    return true;
}

/* ---- the dictionary ---- */

enum { HAVE_DESCR = 1, HAVE_ORDER = 2, HAVE_SHAPE = 4, HAVE_ALL = 7 };

static bool entry(struct parser *x, struct rfi_npy *a, bool *fortran, int *have)
{
    const char *key;
    size_t n;
    int which;
    if (!string(x, &key, &n))
        return false;
    if (!take(x, ':'))
        return fail(x, "the dictionary is malformed");
    if (n == 5 && !memcmp(key, "descr", 5)) {
        which = HAVE_DESCR;
        if (!descr(x, a))
            return false;
    } else if (n == 13 && !memcmp(key, "fortran_order", 13)) {
        which = HAVE_ORDER;
        *fortran = word(x, "True");
        if (!*fortran && !word(x, "False"))
            return fail(x, "fortran_order is neither True nor False");
    } else if (n == 5 && !memcmp(key, "shape", 5)) {
        which = HAVE_SHAPE;
        if (!tuple(x, a->dims, RFI_NPY_MAX_DIMS, &a->n_dims))
            return false;
    } else {
        return fail(x, "the dictionary has an unknown key");
    }
    if (*have & which)
        return fail(x, "the dictionary has a key twice");
    *have |= which;
    return true;
}

static bool dictionary(struct parser *x, struct rfi_npy *a, bool *fortran)
{
    int have = 0;
    if (!take(x, '{'))
        return fail(x, "the header is not a dictionary");
    while (!take(x, '}')) {
        if (!entry(x, a, fortran, &have))
            return false;
        if (!take(x, ',') && !peek(x, '}'))
            return fail(x, "the dictionary is malformed");
    }
    return have == HAVE_ALL || fail(x, "the dictionary lacks descr, fortran_order or shape");
}

static int parse(const char *text, size_t bytes, const char *path, struct rfi_npy *a, struct rfi_error *err)
{
    struct parser x = {.p = text, .end = text + bytes};
    bool fortran = false;
    bool ok = dictionary(&x, a, &fortran);
    if (x.object)
        return rfi_fail(
            err, ENOTSUP,
            "%s: an array of Python objects (object dtype) has no fixed bytes to read. Save the data as numbers", path);
    if (!ok)
        return rfi_fail(err, EINVAL, "%s: not a valid .npy header: %s. Save the array again", path, x.why);
    if (fortran)
        return rfi_fail(err, ENOTSUP,
                        "%s: the array is in Fortran order, so a record is not one piece of the file. Save it with "
                        "numpy.ascontiguousarray",
                        path);
    return 0;
}

/* ---- sizes ---- */

uint64_t rfi_npy_records(const struct rfi_npy *a)
{
    return a->n_dims ? a->dims[0] : 1;
}

uint64_t rfi_npy_record_bytes(const struct rfi_npy *a)
{
    uint64_t bytes = a->item_bytes;
    for (uint32_t i = 1; i < a->n_dims; i++)
        bytes *= a->dims[i]; /* checked by check_size */
    return bytes;
}

static int check_size(const struct rfi_npy *a, const char *path, uint64_t file_bytes, struct rfi_error *err)
{
    uint64_t record = a->item_bytes, total, end;
    bool over = false;
    for (uint32_t i = 1; i < a->n_dims; i++)
        over = over || rfi_mul_over(record, a->dims[i], &record);
    over = over || rfi_mul_over(record, rfi_npy_records(a), &total) || rfi_add_over(total, a->data_offset, &end);
    if (over || end > file_bytes)
        return rfi_fail(err, EBADMSG,
                        "%s: truncated: its header claims more data than its %llu bytes hold. Get it again", path,
                        (unsigned long long)file_bytes);
    if (end < file_bytes)
        return rfi_fail(
            err, EINVAL,
            "%s: %llu bytes follow the array; several arrays in one .npy file are not supported. Save them apart", path,
            (unsigned long long)(file_bytes - end));
    return 0;
}

int rfi_npy_read(int fd, const char *path, uint64_t file_bytes, struct rfi_npy *ret, struct rfi_error *err)
{
    unsigned char head[12];
    *ret = (struct rfi_npy){0};
    int rc = rfi_read_exact(fd, path, head, 10, 0, err);
    if (rc < 0)
        return rc;
    if (memcmp(head, "\x93NUMPY", 6) || head[6] < 1 || head[6] > 3)
        return rfi_fail(err, EINVAL, "%s: not a .npy file of version 1, 2 or 3. Check the format", path);
    uint64_t fixed = head[6] == 1 ? 10 : 12, bytes = head[8] | (uint64_t)head[9] << 8;
    if (head[6] > 1) {
        rc = rfi_read_exact(fd, path, head + 10, 2, 10, err);
        if (rc < 0)
            return rc;
        bytes |= (uint64_t)head[10] << 16 | (uint64_t)head[11] << 24;
    }
    if (bytes > HEADER_MAX)
        return rfi_fail(err, EINVAL, "%s: a header of %llu bytes; the limit is %d. Save the array again", path,
                        (unsigned long long)bytes, HEADER_MAX);
    char *text = malloc(bytes + 1);
    if (!text)
        return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", path);
    rc = rfi_read_exact(fd, path, text, (size_t)bytes, fixed, err);
    if (rc == 0)
        rc = parse(text, (size_t)bytes, path, ret, err);
    free(text);
    ret->data_offset = fixed + bytes;
    return rc < 0 ? rc : check_size(ret, path, file_bytes, err);
}
