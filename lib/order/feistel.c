/* The network. Halves never change places: even rounds add a function of the right half to the left
 * one, odd rounds xor a function of the left half into the right one, so halves of different size need
 * no special case and the inverse is the same rounds backwards.
 *
 * Round function: the half, offset by a keyed word, times a keyed odd word, both 64-bit words of the
 * product folded together. The low bits of the upper word depend on every bit of the input, the low
 * bits of the lower word correct their bias; one multiplication a round. */
#include "order/feistel.h"

enum { CHUNK = 256, LANES = 2 };

static inline uint64_t round_function(const struct rfi_feistel *f, unsigned i, uint64_t half)
{
    unsigned __int128 product = (unsigned __int128)(half ^ f->add[i]) * f->mul[i];
    return (uint64_t)(product >> 64) ^ (uint64_t)product;
}

/* Added to the left half: uniform in [0, n_left). */
static inline uint64_t left_shift(const struct rfi_feistel *f, unsigned i, uint64_t right)
{
    return (uint64_t)((unsigned __int128)round_function(f, i, right) * f->n_left >> 64);
}

static inline uint64_t add_left(const struct rfi_feistel *f, unsigned i, uint64_t left, uint64_t right)
{
    uint64_t sum = left + left_shift(f, i, right);
    return sum >= f->n_left ? sum - f->n_left : sum;
}

static inline uint64_t sub_left(const struct rfi_feistel *f, unsigned i, uint64_t left, uint64_t right)
{
    uint64_t shift = left_shift(f, i, right);
    return left >= shift ? left - shift : left + f->n_left - shift;
}

static inline uint64_t flip_right(const struct rfi_feistel *f, unsigned i, uint64_t right, uint64_t left)
{
    return right ^ (round_function(f, i, left) & f->right_mask);
}

static inline uint64_t forward(const struct rfi_feistel *f, uint64_t x)
{
    uint64_t right = x & f->right_mask, left = x >> f->right_bits;
    left = add_left(f, 0, left, right);
    right = flip_right(f, 1, right, left);
    left = add_left(f, 2, left, right);
    right = flip_right(f, 3, right, left);
    left = add_left(f, 4, left, right);
    right = flip_right(f, 5, right, left);
    left = add_left(f, 6, left, right);
    right = flip_right(f, 7, right, left);
    return left << f->right_bits | right;
}

static inline uint64_t backward(const struct rfi_feistel *f, uint64_t x)
{
    uint64_t right = x & f->right_mask, left = x >> f->right_bits;
    for (int i = RFI_FEISTEL_ROUNDS - 2; i >= 0; i -= 2) {
        right = flip_right(f, (unsigned)i + 1, right, left);
        left = sub_left(f, (unsigned)i, left, right);
    }
    return left << f->right_bits | right;
}

void rfi_feistel_init(struct rfi_feistel *f, uint64_t n, struct rfi_key key)
{
    struct rfi_random random;
    rfi_random_init(&random, key);
    /* ceil(log2 n) in integers: a floating-point logarithm is off by one near powers of two. */
    unsigned bits = n > 1 ? 64 - (unsigned)__builtin_clzll(n - 1) : 0;
    f->n = n;
    f->right_bits = bits / 2;
    f->right_mask = ((uint64_t)1 << f->right_bits) - 1;
    f->n_left = ((n - 1) >> f->right_bits) + 1;
    for (int i = 0; i < RFI_FEISTEL_ROUNDS; i++) {
        f->add[i] = rfi_random_next(&random);
        f->mul[i] = rfi_random_next(&random) | 1;
    }
}

uint64_t rfi_feistel_at(const struct rfi_feistel *f, uint64_t p)
{
    do
        p = forward(f, p);
    while (p >= f->n);
    return p;
}

uint64_t rfi_feistel_inverse(const struct rfi_feistel *f, uint64_t value)
{
    do
        value = backward(f, value);
    while (value >= f->n);
    return value;
}

/* LANES values through the network side by side: a round is a chain of about ten cycles that must wait
 * for the one before it, and only independent chains fill the gaps. */
static inline void forward_lanes(const struct rfi_feistel *f, const uint64_t *in, uint64_t *out)
{
    uint64_t left[LANES], right[LANES];
    for (unsigned l = 0; l < LANES; l++) {
        left[l] = in[l] >> f->right_bits;
        right[l] = in[l] & f->right_mask;
    }
    for (unsigned i = 0; i < RFI_FEISTEL_ROUNDS; i += 2) {
        for (unsigned l = 0; l < LANES; l++)
            left[l] = add_left(f, i, left[l], right[l]);
        for (unsigned l = 0; l < LANES; l++)
            right[l] = flip_right(f, i + 1, right[l], left[l]);
    }
    for (unsigned l = 0; l < LANES; l++)
        out[l] = left[l] << f->right_bits | right[l];
}

/* Sends the values that are still outside through the network again, all together. */
static void walk(const struct rfi_feistel *f, uint64_t *out, unsigned count)
{
    uint16_t outside[CHUNK];
    unsigned n_outside = 0;
    for (unsigned i = 0; i < count; i++) {
        outside[n_outside] = (uint16_t)i;
        n_outside += out[i] >= f->n;
    }
    while (n_outside) {
        unsigned left = 0;
        for (unsigned i = 0; i < n_outside; i++) {
            uint16_t at = outside[i];
            uint64_t x = forward(f, out[at]);
            out[at] = x;
            outside[left] = at;
            left += x >= f->n;
        }
        n_outside = left;
    }
}

void rfi_feistel_fill(const struct rfi_feistel *f, uint64_t start, uint64_t stride, uint64_t count, uint64_t *out)
{
    /* A copy whose address nobody else has: the compiler may keep it in registers across the stores. */
    const struct rfi_feistel local = *f;
    while (count) {
        unsigned n = count < CHUNK ? (unsigned)count : CHUNK;
        unsigned i = 0;
        for (; i + LANES <= n; i += LANES) {
            uint64_t p[LANES];
            for (unsigned l = 0; l < LANES; l++)
                p[l] = start + (i + l) * stride;
            forward_lanes(&local, p, out + i);
        }
        for (; i < n; i++)
            out[i] = forward(&local, start + i * stride);
        walk(&local, out, n);
        start += n * stride;
        out += n;
        count -= n;
    }
}
