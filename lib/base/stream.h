/* Copies into memory that nobody reads soon: past the caches, so that it is not fetched before it is overwritten. What
 * was copied may become visible late: rfi_stream_end before anybody is told of it. */
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

enum { RFI_STREAM_LEAST = 256, RFI_STREAM_UNIT = 64 };

static inline void rfi_stream_copy(unsigned char *to, const unsigned char *from, uint64_t bytes)
{
    if (bytes >= RFI_STREAM_LEAST) {
        uint64_t head = -(uintptr_t)to & (RFI_STREAM_UNIT - 1);
        memcpy(to, from, head);
        to += head;
        from += head;
        bytes -= head;
        for (; bytes >= RFI_STREAM_UNIT; bytes -= RFI_STREAM_UNIT) {
            const __m128i *s = (const __m128i *)from;
            __m128i *d = (__m128i *)to, a = _mm_loadu_si128(s), b = _mm_loadu_si128(s + 1), c = _mm_loadu_si128(s + 2),
                    e = _mm_loadu_si128(s + 3);
            _mm_stream_si128(d, a);
            _mm_stream_si128(d + 1, b);
            _mm_stream_si128(d + 2, c);
            _mm_stream_si128(d + 3, e);
            to += RFI_STREAM_UNIT;
            from += RFI_STREAM_UNIT;
        }
    }
    memcpy(to, from, bytes);
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
