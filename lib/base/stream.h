/* Copies into memory that nobody reads soon: past the caches, so that it is not fetched before it is overwritten. What
 * was copied may become visible late: rfi_stream_end before anybody is told of it.
 *
 * A line of each of several pages in turn: the processor fetches each page ahead by itself, so that more of the memory's
 * requests are under way than for one page after the other. Measured on two cores at once (Sapphire Rapids), 110 KB and 2.8 MB
 * out of 1 GiB: one page 5.3 GB/s a core, two 5.6, four 6.3, eight 6.7; memcpy 4.1 to 5.5. */
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

enum { RFI_STREAM_LEAST = 256, RFI_STREAM_LINE = 64, RFI_STREAM_PAGE = 4096 };

static inline void rfi_stream_line(unsigned char *to, const unsigned char *from)
{
    const __m128i *s = (const __m128i *)from;
    __m128i *d = (__m128i *)to, a = _mm_loadu_si128(s), b = _mm_loadu_si128(s + 1), c = _mm_loadu_si128(s + 2),
            e = _mm_loadu_si128(s + 3);
    _mm_stream_si128(d, a);
    _mm_stream_si128(d + 1, b);
    _mm_stream_si128(d + 2, c);
    _mm_stream_si128(d + 3, e);
}

/* As many whole groups of pages as there are; returns the bytes of them. */
static inline uint64_t rfi_stream_pages(unsigned char *to, const unsigned char *from, uint64_t bytes, uint32_t pages)
{
    const uint64_t group = (uint64_t)pages * RFI_STREAM_PAGE;
    uint64_t done = 0;
    for (; bytes - done >= group; done += group)
        for (uint64_t line = done; line < done + RFI_STREAM_PAGE; line += RFI_STREAM_LINE)
            for (uint64_t page = 0; page < group; page += RFI_STREAM_PAGE)
                rfi_stream_line(to + line + page, from + line + page);
    return done;
}

static inline void rfi_stream_copy(unsigned char *to, const unsigned char *from, uint64_t bytes)
{
    uint64_t at = 0;
    if (bytes >= RFI_STREAM_LEAST) {
        at = -(uintptr_t)to & (RFI_STREAM_LINE - 1);
        memcpy(to, from, at);
        at += rfi_stream_pages(to + at, from + at, bytes - at, 8);
        at += rfi_stream_pages(to + at, from + at, bytes - at, 4);
        for (; bytes - at >= RFI_STREAM_LINE; at += RFI_STREAM_LINE)
            rfi_stream_line(to + at, from + at);
    }
    memcpy(to + at, from + at, bytes - at);
}

static inline void rfi_stream_end(void)
{
    _mm_sfence();
}
#else
static inline void rfi_stream_copy(unsigned char *to, const unsigned char *from, uint64_t bytes)
{
    memcpy(to, from, bytes);
}

static inline void rfi_stream_end(void)
{
}
#endif
