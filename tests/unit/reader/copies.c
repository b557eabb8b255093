/* The two copies that are not the C library's: every length around what they treat apart, from and to places of any
 * alignment, and not a byte beside. */
#include "pattern.h"

#include "base/copy.h"
#include "base/stream.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, MOST = 25 * PAGE, BESIDE = 128, UNTOUCHED = 0x5A };

typedef void copy_fn(unsigned char *to, const unsigned char *from, uint64_t bytes);

static unsigned char source[MOST + BESIDE], target[MOST + 2 * BESIDE];

static void stream(unsigned char *to, const unsigned char *from, uint64_t bytes)
{
    rfi_stream_copy(to, from, bytes);
    rfi_stream_end();
}

static void string(unsigned char *to, const unsigned char *from, uint64_t bytes)
{
    rfi_string_copy(to, from, bytes);
}

static bool untouched(const unsigned char *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] != UNTOUCHED)
            return false;
    return true;
}

static void check(copy_fn *copy, uint64_t bytes, uint32_t from, uint32_t to)
{
    unsigned char *place = target + BESIDE + to;
    memset(target, UNTOUCHED, bytes + 2 * BESIDE);
    copy(place, source + from, bytes);
    cr_assert(pattern_is(place, from, bytes), "%lu bytes from %u to %u", (unsigned long)bytes, from, to);
    cr_assert(untouched(target, BESIDE + to) && untouched(place + bytes, BESIDE - to), "beside %lu bytes from %u to %u",
              (unsigned long)bytes, from, to);
}

static void check_all(copy_fn *copy)
{
    const uint32_t at[][2] = {{0, 0}, {1, 0}, {0, 1}, {17, 17}, {63, 32}, {5, 63}};
    pattern_fill(source, 0, sizeof source);
    for (size_t k = 0; k < sizeof at / sizeof *at; k++) {
        for (uint64_t bytes = 0; bytes <= 600; bytes++)
            check(copy, bytes, at[k][0], at[k][1]);
        for (uint64_t pages = 1; pages <= MOST / PAGE; pages++)
            for (int64_t more = -65; more <= 65; more += more == -1 || more == 0 ? 1 : 32)
                if (pages * PAGE + (uint64_t)more <= MOST)
                    check(copy, pages * PAGE + (uint64_t)more, at[k][0], at[k][1]);
    }
}

Test(copies, past_the_caches)
{
    check_all(stream);
}

Test(copies, by_string_instruction)
{
    check_all(string);
}
