/* See tar_reader.h. References: POSIX pax interchange format; GNU tar manual, "Basic Tar Format". */
#include "dataset/formats/tar_reader.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 1 << 20 }; /* of one extended header or long name: a path has at most 4096 bytes */

/* Offsets in a header block. */
enum { NAME = 0, SIZE = 124, CHECKSUM = 148, TYPE = 156, MAGIC = 257, PREFIX = 345, STAR_MAGIC = 508 };

/* ---- one header ---- */

static bool is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* Octal digits between spaces, ended by a space or NUL; or base-256 when the top bit is set. */
static bool number(const unsigned char *p, size_t n, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;
    if (p[0] & 0x80) {
        if (p[0] != 0x80) /* negative (0xff), or bits that no size needs */
            return false;
        for (i = 1; i < n; i++) {
            if (v >> 55)
                return false;
            v = v << 8 | p[i];
        }
        *ret = v;
        return true;
    }
    while (i < n && p[i] == ' ')
        i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        if (v >> 60)
            return false;
        v = v << 3 | (uint64_t)(p[i] - '0');
    }
    if (i < n && p[i] && p[i] != ' ')
        return false;
    *ret = v;
    return true;
}

/* Some old writers summed signed bytes. */
static bool checksum_good(const unsigned char *b)
{
    uint64_t want;
    uint32_t plain = 8 * ' ';
    int32_t with_sign = 8 * ' ';
    for (int i = 0; i < RFI_TAR_BLOCK; i++)
        if (i < CHECKSUM || i >= CHECKSUM + 8) {
            plain += b[i];
            with_sign += (signed char)b[i];
        }
    return number(b + CHECKSUM, 8, &want) && (want == plain || (with_sign >= 0 && want == (uint32_t)with_sign));
}

static bool is_ustar(const unsigned char *b)
{
    return !memcmp(b + MAGIC, "ustar\0", 6);
}

/* GNU headers have other things where ustar has the prefix; star's prefix is shorter. */
static void short_name(struct rfi_tar *t, const unsigned char *b)
{
    size_t prefix_max = !memcmp(b + STAR_MAGIC, "tar", 4) ? 131 : 155;
    size_t prefix = is_ustar(b) ? strnlen((const char *)b + PREFIX, prefix_max) : 0;
    size_t name = strnlen((const char *)b + NAME, 100);
    memcpy(t->short_name, b + PREFIX, prefix);
    if (prefix)
        t->short_name[prefix++] = '/';
    memcpy(t->short_name + prefix, b + NAME, name);
    t->short_name[prefix + name] = 0;
}

/* ---- texts ---- */

static int no_memory(struct rfi_tar *t, struct rfi_error *err)
{
    return rfi_fail(err, ENOMEM, "%s: out of memory. Free some", t->w.path);
}

static int malformed(struct rfi_tar *t, const char *what, struct rfi_error *err)
{
    return rfi_fail(err, EBADMSG, "%s: malformed tar archive: %s at offset %llu. Get or pack it again", t->w.path, what,
                    (unsigned long long)t->at);
}

static int set_text(struct rfi_tar *t, struct rfi_tar_text *x, const char *text, size_t n, struct rfi_error *err)
{
    rfi_grow_cut(&x->text, 0);
    if (rfi_grow_add(&x->text, text, n ? strnlen(text, n) : 0) < 0 || rfi_grow_add(&x->text, "", 1) < 0)
        return no_memory(t, err);
    x->set = true;
    return 0;
}

/* The data of the header at hand into t->text; `bytes` was held against the file's size before. */
static int read_text(struct rfi_tar *t, uint64_t offset, uint64_t bytes, struct rfi_error *err)
{
    if (bytes > TEXT_MAX)
        return malformed(t, "an extended header of more than 1 MiB", err);
    rfi_grow_cut(&t->text, 0);
    while (bytes) {
        const unsigned char *p;
        size_t n = (size_t)rfi_min(bytes, RFI_WINDOW_BYTES);
        int rc = rfi_window_at(&t->w, offset, n, &p, err);
        if (rc < 0)
            return rc;
        if (rfi_grow_add(&t->text, p, n) < 0)
            return no_memory(t, err);
        offset += n;
        bytes -= n;
    }
    return 0;
}

static int long_name(struct rfi_tar *t, struct rfi_error *err)
{
    if (t->name.set) /* an earlier header about the same member counts */
        return 0;
    return set_text(t, &t->name, (const char *)t->text.data, t->text.used, err);
}

/* ---- pax records ---- */

struct record {
    const char *key, *value;
    size_t key_bytes, value_bytes;
};

/* "LENGTH KEY=VALUE\n", where LENGTH counts all of it. */
static bool next_record(const char *p, size_t left, struct record *ret, size_t *ret_bytes)
{
    size_t n = 0, i = 0;
    for (; i < left && p[i] >= '0' && p[i] <= '9'; i++) {
        n = n * 10 + (size_t)(p[i] - '0');
        if (n > left)
            return false;
    }
    if (!i || i >= left || p[i] != ' ' || n < i + 4 || p[n - 1] != '\n')
        return false;
    ret->key = p + i + 1;
    const char *eq = memchr(ret->key, '=', n - i - 2);
    if (!eq || eq == ret->key)
        return false;
    ret->key_bytes = (size_t)(eq - ret->key);
    ret->value = eq + 1;
    ret->value_bytes = (size_t)(p + n - 1 - ret->value);
    *ret_bytes = n;
    return true;
}

static bool key_is(const struct record *r, const char *key)
{
    return r->key_bytes == strlen(key) && !memcmp(r->key, key, r->key_bytes);
}

static bool decimal(const struct record *r, uint64_t *ret)
{
    *ret = 0;
    for (size_t i = 0; i < r->value_bytes; i++)
        if (r->value[i] < '0' || r->value[i] > '9' || rfi_mul_over(*ret, 10, ret) ||
            rfi_add_over(*ret, (uint64_t)(r->value[i] - '0'), ret))
            return false;
    return r->value_bytes > 0;
}

/* An empty value takes the word back. */
static int pax_name(struct rfi_tar *t, const struct record *r, bool global, struct rfi_error *err)
{
    struct rfi_tar_text *x = global ? &t->global_name : &t->name;
    x->set = false;
    return r->value_bytes ? set_text(t, x, r->value, r->value_bytes, err) : 0;
}

static int pax_size(struct rfi_tar *t, const struct record *r, bool global, struct rfi_error *err)
{
    uint64_t v = 0;
    if (r->value_bytes && !decimal(r, &v))
        return malformed(t, "a pax size that is no number", err);
    if (global) {
        t->has_global_size = r->value_bytes > 0;
        t->global_size = v;
    } else {
        t->has_size = r->value_bytes > 0;
        t->size = v;
    }
    return 0;
}

static int pax_records(struct rfi_tar *t, bool global, struct rfi_error *err)
{
    const char *p = (const char *)t->text.data;
    size_t left = t->text.used, n;
    struct record r;
    bool keep_name = !global && t->name.set, keep_size = !global && t->has_size;
    int rc = 0;
    for (; left && *p && rc == 0; p += n, left -= n) {
        if (!next_record(p, left, &r, &n))
            return malformed(t, "a pax record that does not parse", err);
        if (key_is(&r, "path") && !keep_name)
            rc = pax_name(t, &r, global, err);
        else if (key_is(&r, "size") && !keep_size)
            rc = pax_size(t, &r, global, err);
        else if (r.key_bytes > 11 && !memcmp(r.key, "GNU.sparse.", 11))
            t->sparse = true;
    }
    return rc;
}

/* ---- members ---- */

int rfi_tar_open(struct rfi_tar *t, int fd, const char *path, uint64_t file_bytes, struct rfi_error *err)
{
    *t = (struct rfi_tar){0};
    int rc = rfi_window_open(&t->w, fd, path, file_bytes, err);
    if (rc == 0 && !file_bytes)
        rc = malformed(t, "the file is empty, it lacks even the end mark", err);
    if (rc < 0)
        rfi_tar_close(t);
    return rc;
}

void rfi_tar_close(struct rfi_tar *t)
{
    rfi_window_close(&t->w);
    rfi_grow_free(&t->name.text);
    rfi_grow_free(&t->global_name.text);
    rfi_grow_free(&t->text);
}

/* Which typeflags have data behind their header that must be passed over. Links and folders have
 * none, whatever their size says (established readers agree). */
static bool has_data(unsigned char type)
{
    return !(type >= '1' && type <= '6');
}

/* A regular file; v7 writers mark folders only by a slash at the end of the name. */
static bool is_regular(unsigned char type, const char *name)
{
    size_t n = strlen(name);
    return type == '0' || type == '7' || (type == 0 && !(n && name[n - 1] == '/'));
}

static void forget_member(struct rfi_tar *t)
{
    t->name.set = t->has_size = t->sparse = false;
}

/* Where the data of the header at t->at ends, padding included; the whole must be in the file. */
static int data_end(struct rfi_tar *t, const char *name, uint64_t bytes, uint64_t *ret, struct rfi_error *err)
{
    uint64_t data = t->at + RFI_TAR_BLOCK;
    if (bytes > t->w.file_bytes || rfi_align_up(data + bytes, RFI_TAR_BLOCK) > t->w.file_bytes)
        return rfi_fail(
            err, EBADMSG,
            "%s: truncated: member \"%.200s\" at offset %llu claims %llu bytes, the file ends before. Get it again",
            t->w.path, name, (unsigned long long)t->at, (unsigned long long)bytes);
    *ret = rfi_align_up(data + bytes, RFI_TAR_BLOCK);
    return 0;
}

/* A header that is about the next one. */
static int extension(struct rfi_tar *t, unsigned char type, uint64_t bytes, struct rfi_error *err)
{
    uint64_t end = 0;
    int rc = data_end(t, t->short_name, bytes, &end, err);
    if (rc == 0 && type != 'K')
        rc = read_text(t, t->at + RFI_TAR_BLOCK, bytes, err);
    if (rc == 0 && type == 'L')
        rc = long_name(t, err);
    else if (rc == 0 && type != 'K')
        rc = pax_records(t, type == 'g', err);
    if (rc == 0)
        t->at = end;
    return rc;
}

static int sparse(struct rfi_tar *t, const char *name, struct rfi_error *err)
{
    return rfi_fail(
        err, ENOTSUP,
        "%s: member \"%.200s\" at offset %llu is sparse, so its bytes are not one piece of the file. Pack it again "
        "without --sparse",
        t->w.path, name, (unsigned long long)t->at);
}

/* 1: *ret is a regular member; 0: passed over. */
static int member(struct rfi_tar *t, unsigned char type, uint64_t bytes, struct rfi_tar_member *ret,
                  struct rfi_error *err)
{
    uint64_t end = t->at + RFI_TAR_BLOCK;
    const char *name = t->name.set          ? (const char *)t->name.text.data
                       : t->global_name.set ? (const char *)t->global_name.text.data
                                            : t->short_name;
    bytes = t->has_size ? t->size : t->has_global_size ? t->global_size : bytes;
    if (type == 'S' || (t->sparse && is_regular(type, name)))
        return sparse(t, name, err);
    if (type == 'M')
        return rfi_fail(err, ENOTSUP, "%s: member \"%.200s\" goes on from another volume. Join the volumes first",
                        t->w.path, name);
    int rc = has_data(type) ? data_end(t, name, bytes, &end, err) : 0;
    if (rc < 0)
        return rc;
    *ret = (struct rfi_tar_member){.name = name, .offset = t->at + RFI_TAR_BLOCK, .bytes = bytes};
    t->at = end;
    return is_regular(type, name);
}

/* 1: a header is in *ret; 0: the end of the archive. */
static int next_header(struct rfi_tar *t, const unsigned char **ret, struct rfi_error *err)
{
    if (t->at == t->w.file_bytes) /* no end mark: common, and all members were whole */
        return 0;
    int rc = rfi_window_at(&t->w, t->at, RFI_TAR_BLOCK, ret, err);
    if (rc < 0)
        return rc;
    if (is_zero(*ret, RFI_TAR_BLOCK))
        return 0;
    return checksum_good(*ret) ? 1 : malformed(t, "a header with a wrong checksum", err);
}

static bool is_extension(unsigned char type)
{
    return type == 'x' || type == 'X' || type == 'g' || type == 'L' || type == 'K';
}

int rfi_tar_next(struct rfi_tar *t, struct rfi_tar_member *ret, struct rfi_error *err)
{
    const unsigned char *b;
    uint64_t bytes;
    forget_member(t);
    for (;;) {
        int rc = next_header(t, &b, err);
        if (rc <= 0)
            return rc;
        unsigned char type = b[TYPE];
        short_name(t, b);
        if (!number(b + SIZE, 12, &bytes))
            return malformed(t, "a size that is no number", err);
        if (is_extension(type)) {
            rc = extension(t, type, bytes, err);
            if (rc < 0)
                return rc;
            continue;
        }
        rc = member(t, type, bytes, ret, err);
        if (rc != 0)
            return rc;
        forget_member(t);
    }
}

bool rfi_tar_match(const unsigned char *head, size_t n, uint64_t file_bytes)
{
    if (n < RFI_TAR_BLOCK)
        return false;
    if (checksum_good(head))
        return true;
    /* no member at all: two blocks of zeros, or the record of 20 that tar programs write */
    return n >= 2 * RFI_TAR_BLOCK && (file_bytes == 1024 || file_bytes == 10240) && is_zero(head, 2 * RFI_TAR_BLOCK);
}
