#define _DEFAULT_SOURCE /* madvise */
#include "product.h"

#include "ntt.h"

#ifdef HG_NTT
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "wipe.h"
#include "words.h"

/* Only the m highest of the al lowest bits of a x2 + b are wanted. With digits of 64 bits, A of a and X of x2, they
 * begin in digit X - 1, and a cyclic convolution of length L >= A + GUARDS adds to coefficient k < A only what
 * belongs to k + L <= A + X - 2, so leaves all k >= X - 1 - GUARDS as they are. So L need not be A + X - 1: two
 * thirds of it do for m = n / 2.
 *
 * What the coefficients below `first` = X - 1 - GUARDS add is unknown, but small: each is below 2^150 (ntt.h), so
 * their sum, with the part of b that lies there, is below 2^87 in units of 2^(64 first). It changes a wanted bit
 * only if it carries through the guards, and it cannot if those, as a number of 64 GUARDS bits, are below 2^(64
 * GUARDS) - 2^87. Else the answer is HG_PRODUCT_UNDECIDED and the caller takes the whole product: never a wrong bit.
 * For uniform a and b the guards are uniform, so this happens once in 2^105 hashes; an all-one a and key can force
 * it, which the tests do. */
#define GUARDS ((size_t)3)
#define UNKNOWN 87 /* bits */

#define HUGE_PAGE ((size_t)1 << 21)

typedef struct {
    size_t a, x, first; /* digits of a and of x2, the first coefficient that is looked at */
    hg_ntt_shape shape;
    size_t doubles, bytes;
} layout;

hg_ntt_shape hg_ntt_shape_for(size_t digits) {
    hg_ntt_shape best = {0, 0, 0, 0};
    for (unsigned radix = 1; radix <= 5; radix += 2) {
        size_t part = radix == 1 ? HG_NTT_LEAST : 64;
        while (radix * part < digits) part *= 2;
        if (best.length && best.length <= radix * part) continue;
        best = (hg_ntt_shape){radix * part, part, part, radix};
    }
    /* With a first step of two or four, what remains are steps of four. */
    if (best.radix == 1) best.radix = __builtin_ctzll(best.length) & 1 ? 2 : 4;
    best.part = best.length / best.radix;
    return best;
}

size_t hg_ntt_table_size(const hg_ntt_shape *shape) { return shape->tree; }

static int plan(size_t n, size_t m, layout *l) {
    if (n / 64 > HG_NTT_MOST || (n - m) / 64 >= HG_NTT_TERMS) return 0;
    l->a = hg_word_count(n - 1);
    l->x = hg_word_count(n - m);
    l->first = l->x > 1 + GUARDS ? l->x - 1 - GUARDS : 0;
    l->shape = hg_ntt_shape_for(l->a + GUARDS);
    if (l->shape.length > HG_NTT_MOST) return 0;
    l->doubles = (HG_NTT_PRIMES + 1) * l->shape.length + hg_ntt_table_size(&l->shape);
    l->bytes = (8 * (l->doubles + l->x) + 63) / 64 * 64;
    return 1;
}

size_t hg_product_memory(size_t n, size_t m) {
    layout l;
    return plan(n, m, &l) ? l.bytes : 0;
}

int hg_product_level(void) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? 2 : 1;
}

/* The 64 bits from bit `at` on of an integer of `size` bytes; zeros beyond its end. */
static inline uint64_t little_bits(const uint8_t *bytes, size_t size, size_t at) {
    size_t from = at / 8, shift = at % 8;
    uint8_t some[9] = {0};
    if (from + 9 > size) {
        if (from < size) memcpy(some, bytes + from, size - from);
        bytes = some;
        from = 0;
    }
    uint64_t word;
    memcpy(&word, bytes + from, 8); /* every machine with these transforms is little endian */
    return shift ? word >> shift | (uint64_t)bytes[from + 8] << (64 - shift) : word;
}

static inline uint64_t big_bits(const uint8_t *bytes, size_t size, size_t at) {
    size_t end = at / 8 < size ? size - at / 8 : 0, shift = at % 8;
    uint8_t some[9] = {0};
    if (end < 9) {
        memcpy(some + 9 - end, bytes, end);
        bytes = some;
        end = 9;
    }
    uint64_t word = hg_load(bytes + end - 8);
    return shift ? word >> shift | (uint64_t)bytes[end - 9] << (64 - shift) : word;
}

/* Adds b, as bits al and on of the seed, to `count` digits from `first` on. */
static void add_seed(uint64_t *digits, size_t count, const uint8_t *seed, size_t seed_size, size_t at) {
    unsigned carry = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t b = little_bits(seed, seed_size, at + 64 * i), sum = digits[i] + b, whole = sum + carry;
        carry = (sum < b) | (whole < sum);
        digits[i] = whole;
    }
}

/* out = (x1 + bits `shift` and on of `digits`) mod 2^m, most significant bit first. */
static void store_sum(const uint8_t *key, size_t n, const uint64_t *digits, size_t count, size_t shift, size_t m,
                      uint8_t *out) {
    size_t size = (m + 7) / 8, pad = 8 * size - m, at = n - m + (8 * ((n + 7) / 8) - n), end = size;
    uint64_t before = 0;
    unsigned carry = 0;
    for (size_t i = 0; end; i++) {
        size_t word = shift / 64 + i, by = shift % 64;
        uint64_t h = word < count ? digits[word] >> by : 0;
        if (by && word + 1 < count) h |= digits[word + 1] << (64 - by);
        uint64_t x1 = big_bits(key, (n + 7) / 8, at + 64 * i), sum = h + x1, whole = sum + carry;
        carry = (sum < h) | (whole < sum);
        uint64_t moved = pad ? whole << pad | before >> (64 - pad) : whole;
        before = whole;
        if (end >= 8) {
            hg_store(out + end - 8, moved);
            end -= 8;
        } else {
            for (; end; moved >>= 8) out[--end] = (uint8_t)moved;
        }
    }
}

static void *room(size_t bytes) {
#ifdef __linux__
    void *memory = NULL;
    if (bytes >= 2 * HUGE_PAGE && !posix_memalign(&memory, HUGE_PAGE, bytes)) {
        madvise(memory, bytes, MADV_HUGEPAGE); /* only faster: whether it can does not matter */
        return memory;
    }
#endif
    return aligned_alloc(64, bytes);
}

int hg_multiply_shift(const uint8_t *key, size_t n, const uint8_t *seed, size_t seed_size, size_t m, int level,
                      uint8_t *out) {
    layout l;
    if (!plan(n, m, &l)) return HG_PRODUCT_UNDECIDED;
    if (_MM_GET_ROUNDING_MODE() != _MM_ROUND_NEAREST) return HG_PRODUCT_UNDECIDED; /* another library's doing */
    void *memory = room(l.bytes);
    if (!memory) return HG_PRODUCT_NO_MEMORY;
    size_t length = l.shape.length, size = (n + 7) / 8, pad = 8 * size - n;
    double *results[HG_NTT_PRIMES], *scratch = (double *)memory + HG_NTT_PRIMES * length;
    for (size_t i = 0; i < HG_NTT_PRIMES; i++) results[i] = (double *)memory + i * length;
    uint64_t *x2 = (uint64_t *)memory + l.doubles;

    for (size_t i = 0; i < l.x; i++) x2[i] = big_bits(key, size, pad + 64 * i);
    if ((n - m) % 64) x2[l.x - 1] &= ((uint64_t)1 << (n - m) % 64) - 1;
    hg_ntt_factor a = {seed, (n - 1) / 64, 0}, x = {(uint8_t *)x2, l.x, 0};
    if ((n - 1) % 64) a.last = little_bits(seed, seed_size, 64 * a.whole) & (((uint64_t)1 << (n - 1) % 64) - 1);
    for (int i = 0; i < HG_NTT_PRIMES; i++)
        (level >= 2 ? hg_ntt_convolve_wide : hg_ntt_convolve_narrow)(&l.shape, i, &a, &x, results[i], scratch,
                                                                     scratch + length);
    uint64_t *digits = (uint64_t *)(void *)scratch;
    size_t count = l.a - l.first;
    (level >= 2 ? hg_ntt_recombine_wide : hg_ntt_recombine_narrow)(&l.shape, results, l.first, count, digits);
    add_seed(digits, count, seed, seed_size, n - 1 + 64 * l.first);
    int undecided = l.first && digits[2] == UINT64_MAX && digits[1] >> (UNKNOWN - 64) == UINT64_MAX >> (UNKNOWN - 64);
    if (!undecided) store_sum(key, n, digits, count, n - m - 1 - 64 * l.first, m, out);
    hg_wipe_and_free(memory, l.bytes);
    return undecided ? HG_PRODUCT_UNDECIDED : 0;
}
#else
int hg_product_level(void) { return 0; }

size_t hg_product_memory(size_t n, size_t m) {
    (void)n, (void)m;
    return 0;
}

int hg_multiply_shift(const uint8_t *key, size_t n, const uint8_t *seed, size_t seed_size, size_t m, int level,
                      uint8_t *out) {
    (void)key, (void)n, (void)seed, (void)seed_size, (void)m, (void)level, (void)out;
    return HG_PRODUCT_UNDECIDED;
}
#endif
