#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t mix(uint64_t x)
{
    x = (x + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static unsigned char byte_at(uint64_t p)
{
    return (unsigned char)(mix(p / 8) >> (p % 8 * 8));
}

void pattern_fill(unsigned char *buf, uint64_t offset, size_t n)
{
    size_t i = 0;
    for (; i < n && (offset + i) % 8; i++)
        buf[i] = byte_at(offset + i);
    for (; i + 8 <= n; i += 8) {
        uint64_t w = mix((offset + i) / 8);
        for (unsigned b = 0; b < 8; b++)
            buf[i + b] = (unsigned char)(w >> (8 * b));
    }
    for (; i < n; i++)
        buf[i] = byte_at(offset + i);
}

bool pattern_is(const unsigned char *buf, uint64_t offset, size_t n)
{
    unsigned char want[4096];
    for (size_t at = 0; at < n; at += sizeof want) {
        size_t part = n - at < sizeof want ? n - at : sizeof want;
        pattern_fill(want, offset + at, part);
        if (memcmp(want, buf + at, part) != 0)
            return false;
    }
    return true;
}

static bool write_all(int fd, uint64_t bytes)
{
    enum { CHUNK = 1 << 20 };
    unsigned char *buf = malloc(CHUNK);
    bool ok = buf != NULL;
    for (uint64_t at = 0; ok && at < bytes; at += CHUNK) {
        size_t part = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;
        pattern_fill(buf, at, part);
        ok = pwrite(fd, buf, part, (off_t)at) == (ssize_t)part;
    }
    free(buf);
    return ok && fsync(fd) == 0;
}

static int file_in(const char *dir, uint64_t bytes, int flags)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/rf-reader-XXXXXX", dir);
    int w = mkostemp(path, O_CLOEXEC);
    if (w < 0)
        return -1;
    int fd = write_all(w, bytes) ? open(path, O_RDONLY | O_CLOEXEC | flags) : -1;
    int saved = errno;
    unlink(path);
    close(w);
    errno = saved;
    return fd;
}

int pattern_file(uint64_t bytes, int flags)
{
    const char *dirs[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
    int fd = -1;
    for (size_t i = 0; i < 3 && fd < 0; i++)
        if (dirs[i])
            fd = file_in(dirs[i], bytes, flags);
    return fd;
}
