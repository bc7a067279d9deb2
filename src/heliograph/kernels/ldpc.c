#include "ldpc.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "words.h"

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define HG_AVX2 1
#include <immintrin.h>
#endif

enum { LANES = 32, LARGEST = 31, PATIENCE = 12 }; /* checks at once; the largest size; iterations without progress */

/* PHI and the rounding of `size_of`: as in ldpc.py, which says what they are. */
static const uint16_t PHI[LARGEST + 1] = {16384, 7220, 4500, 3027, 2092, 1464, 1029, 726, 513, 362, 256,
                                          181,   128,  91,   64,   45,   32,   23,   16,  11,  8,   6,
                                          4,     3,    2,    1,    1,    1,    1,    0,   0,   0};

/* What one decoding holds. A block column of `totals` has z bytes and the first LANES of them once more, so that a load
 * may run over the end. `messages`: of each row, of each LANES checks, of each edge: as they are used. `signs`: 0x80 for
 * a check that must be odd. `row`: LANES for each edge of one row. `most`: the largest message to each column. */
typedef struct {
    int8_t *totals, *messages, *row;
    uint8_t *signs, *most;
} state;

void hg_ldpc_syndrome(const hg_ldpc *code, size_t first, size_t last, const uint64_t *bits, uint64_t *out) {
    const size_t words = code->z / 64;
    memset(out, 0, (last - first) * words * sizeof *out);
    for (size_t r = first; r < last; r++, out += words)
        for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++) {
            const uint64_t *from = bits + code->columns[e] * words;
            const size_t at = code->shifts[e] / 64, whole = words - at - 1;
            const unsigned by = code->shifts[e] % 64;
            if (!by) {
                for (size_t k = 0; k < words - at; k++) out[k] ^= from[at + k];
                for (size_t k = words - at; k < words; k++) out[k] ^= from[at + k - words];
                continue;
            }
            for (size_t k = 0; k < whole; k++) out[k] ^= from[at + k] << by | from[at + k + 1] >> (64 - by);
            out[whole] ^= from[words - 1] << by | from[0] >> (64 - by);
            for (size_t k = 0; k < at; k++) out[whole + 1 + k] ^= from[k] << by | from[k + 1] >> (64 - by);
        }
}

/* Sums up to which the size is 1, 2 and 3 at least, where the logarithm alone says less. */
enum { ONE = 10028, TWO = 5609, THREE = 3671 };

/* The size whose PHI this sum is: 26 less twice its binary logarithm, which is taken linear between powers of two. */
static uint8_t size_of(uint16_t sum) {
    if (!sum) return LARGEST;
    const int top = (int)hg_top_bit(sum);
    const unsigned eighths = (top > 2 ? (unsigned)sum >> (top - 3) : (unsigned)sum << (3 - top)) & 7u;
    const int size = 26 - 2 * top - (eighths >= 2) - (eighths >= 6), least = (sum <= ONE) + (sum <= TWO) + (sum <= THREE);
    return (uint8_t)(size < least ? least : size > LARGEST ? LARGEST : size);
}

/* The LANES checks from `k` on of row `r`: what ldpc.py does, check by check. Returns how many were not as they must. */
static unsigned checks_portable(const hg_ldpc *code, const state *s, size_t r, size_t k) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    int8_t *messages = s->messages + first * z + k * degree;
    uint8_t sign[LANES], least[LANES], high[LANES], all[LANES], others[LANES];
    uint16_t low[LANES] = {0};
    memcpy(sign, s->signs + r * z + k, LANES);
    memset(least, LARGEST, LANES);
    memset(high, 0, LANES);
    for (size_t e = 0; e < degree; e++) {
        size_t at = k + code->shifts[first + e];
        if (at >= z) at -= z;
        const int8_t *total = s->totals + code->columns[first + e] * (z + LANES) + at;
        for (size_t j = 0; j < LANES; j++) {
            int t = total[j] - messages[e * LANES + j];
            t = t > 127 ? 127 : t < -128 ? -128 : t;
            s->row[e * LANES + j] = (int8_t)t;
            sign[j] ^= (uint8_t)t & 0x80;
            int size = t < 0 ? -t : t;
            size = size > LARGEST ? LARGEST : size;
            least[j] = size < least[j] ? (uint8_t)size : least[j];
            const unsigned sum = (unsigned)high[j] + (PHI[size] >> 8);
            high[j] = (uint8_t)(sum > 255 ? 255 : sum);
            low[j] = (uint16_t)(low[j] + (PHI[size] & 255));
        }
    }
    unsigned odd = 0;
    for (size_t j = 0; j < LANES; j++) {
        const unsigned sum = ((unsigned)high[j] << 8) + low[j], most = sum > 65535 ? 65535 : sum;
        all[j] = size_of((uint16_t)most);
        others[j] = size_of((uint16_t)(most > PHI[least[j]] ? most - PHI[least[j]] : 0));
        odd += sign[j] >> 7;
    }
    for (size_t e = 0; e < degree; e++) {
        size_t at = k + code->shifts[first + e];
        if (at >= z) at -= z;
        const int most = s->most[code->columns[first + e]];
        int8_t *total = s->totals + code->columns[first + e] * (z + LANES) + at;
        for (size_t j = 0; j < LANES; j++) {
            int t = s->row[e * LANES + j];
            const int size = t < 0 ? -t : t;
            int sent = (size > LARGEST ? LARGEST : size) == least[j] ? others[j] : all[j];
            sent = sent > most ? most : sent;
            const int m = (sign[j] ^ (uint8_t)t) & 0x80 ? -sent : sent;
            t += m;
            messages[e * LANES + j] = (int8_t)m;
            total[j] = (int8_t)(t > 127 ? 127 : t < -128 ? -128 : t);
        }
    }
    return odd;
}

/* The row has written the first bytes of a block column or their copies behind its end, never both: make them equal. */
static void mend(int8_t *column, size_t z, size_t written_behind) {
    memcpy(column, column + z, written_behind);
    memcpy(column + z + written_behind, column + written_behind, LANES - written_behind);
}

static void mend_row(const hg_ldpc *code, const state *s, size_t r) {
    for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++)
        mend(s->totals + code->columns[e] * (code->z + LANES), code->z, code->shifts[e] % LANES);
}

static size_t iterate_portable(const hg_ldpc *code, const state *s) {
    size_t odd = 0;
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) odd += checks_portable(code, s, r, k);
        mend_row(code, s, r);
    }
    return odd;
}

static void decide_portable(const hg_ldpc *code, const state *s, uint64_t *pattern) {
    const size_t words = code->z / 64;
    for (size_t w = 0; w < code->width * words; w++) {
        const int8_t *from = s->totals + w / words * (code->z + LANES) + w % words * 64;
        uint64_t word = 0;
        for (size_t j = 0; j < 64; j++) word = word << 1 | (from[j] < 0);
        pattern[w] = word;
    }
}

#ifdef HG_AVX2
#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
AVX2 static inline void store(void *at, __m256i value) { _mm256_storeu_si256((__m256i *)at, value); }

/* PHI in bytes, for look-ups by shuffles: the low ones of sizes 0 to 15 and 16 to 31, the high ones of 0 to 15. */
typedef struct {
    __m256i low, low_far, high;
} tables;

AVX2 static tables load_tables(void) {
    uint8_t low[16], far[16], high[16];
    for (size_t i = 0; i < 16; i++) {
        low[i] = (uint8_t)(PHI[i] & 255);
        far[i] = (uint8_t)(PHI[i + 16] & 255);
        high[i] = (uint8_t)(PHI[i] >> 8);
    }
    return (tables){_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)low)),
                    _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)far)),
                    _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)high))};
}

/* A shuffle gives zero where the index has its top bit: so each table answers for its own half of the sizes only. */
AVX2 static inline __m256i low_phi(const tables *t, __m256i near, __m256i size) {
    const __m256i far = _mm256_sub_epi8(size, _mm256_set1_epi8(16));
    return _mm256_or_si256(_mm256_shuffle_epi8(t->low, near), _mm256_shuffle_epi8(t->low_far, far));
}

/* -1 where the number is at most `most`, else 0. */
AVX2 static inline __m256i up_to(__m256i numbers, int16_t most) {
    return _mm256_cmpeq_epi16(_mm256_min_epu16(numbers, _mm256_set1_epi16(most)), numbers);
}

/* `size_of` sixteen times. The bits of a float are its logarithm, linear between powers of two. */
AVX2 static inline __m256i sizes_of(__m256i sum) {
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(1 << 21);
    const __m256i a = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_unpacklo_epi16(sum, zero)));
    const __m256i b = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_unpackhi_epi16(sum, zero)));
    const __m256i twice = _mm256_packus_epi32(_mm256_srli_epi32(_mm256_add_epi32(a, half), 22),
                                              _mm256_srli_epi32(_mm256_add_epi32(b, half), 22));
    const __m256i size = _mm256_subs_epu16(_mm256_set1_epi16(26 + 2 * 127), twice);
    const __m256i least = _mm256_add_epi16(_mm256_add_epi16(up_to(sum, ONE), up_to(sum, TWO)), up_to(sum, THREE));
    return _mm256_min_epi16(_mm256_max_epi16(size, _mm256_sub_epi16(zero, least)), _mm256_set1_epi16(LARGEST));
}

AVX2 static unsigned checks_avx2(const hg_ldpc *code, const state *s, const tables *phi, size_t r, size_t k) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    const uint32_t *columns = code->columns + first, *shifts = code->shifts + first;
    int8_t *messages = s->messages + first * z + k * degree;
    const __m256i largest = _mm256_set1_epi8(LARGEST), near = _mm256_set1_epi8(0x70), one = _mm256_set1_epi8(1);
    const __m256i upper = _mm256_set1_epi16((short)0xFF00);
    __m256i sign = load(s->signs + r * z + k), least = largest, high = _mm256_setzero_si256();
    __m256i mixed = high, second = high; /* sums of low bytes: of pairs of lanes as 16-bit numbers, of the upper ones */
    for (size_t e = 0; e < degree; e++) {
        const size_t at = k + shifts[e];
        const int8_t *total = s->totals + columns[e] * (z + LANES) + (at >= z ? at - z : at);
        const __m256i t = _mm256_subs_epi8(load(total), load(messages + e * LANES));
        store(s->row + e * LANES, t);
        sign = _mm256_xor_si256(sign, t);
        const __m256i size = _mm256_min_epu8(_mm256_abs_epi8(t), largest), index = _mm256_add_epi8(size, near);
        least = _mm256_min_epu8(least, size);
        high = _mm256_adds_epu8(high, _mm256_shuffle_epi8(phi->high, index));
        const __m256i low = low_phi(phi, index, size);
        mixed = _mm256_add_epi16(mixed, low);
        second = _mm256_add_epi16(second, _mm256_srli_epi16(low, 8));
    }
    const __m256i index = _mm256_add_epi8(least, near);
    const __m256i low = low_phi(phi, index, least), top = _mm256_shuffle_epi8(phi->high, index);
    const __m256i lower = _mm256_sub_epi16(mixed, _mm256_slli_epi16(second, 8));
    const __m256i even = _mm256_adds_epu16(_mm256_slli_epi16(high, 8), lower);
    const __m256i odd = _mm256_adds_epu16(_mm256_and_si256(high, upper), second);
    const __m256i less_even = _mm256_or_si256(_mm256_andnot_si256(upper, low), _mm256_slli_epi16(top, 8));
    const __m256i less_odd = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_and_si256(top, upper));
    const __m256i all = _mm256_or_si256(sizes_of(even), _mm256_slli_epi16(sizes_of(odd), 8));
    const __m256i others = _mm256_or_si256(sizes_of(_mm256_subs_epu16(even, less_even)),
                                           _mm256_slli_epi16(sizes_of(_mm256_subs_epu16(odd, less_odd)), 8));
    for (size_t e = 0; e < degree; e++) {
        const size_t at = k + shifts[e];
        int8_t *total = s->totals + columns[e] * (z + LANES) + (at >= z ? at - z : at);
        const __m256i t = load(s->row + e * LANES);
        const __m256i own = _mm256_cmpeq_epi8(_mm256_min_epu8(_mm256_abs_epi8(t), largest), least);
        const __m256i most = _mm256_set1_epi8((char)s->most[columns[e]]);
        const __m256i size = _mm256_min_epu8(_mm256_blendv_epi8(all, others, own), most);
        const __m256i m = _mm256_sign_epi8(size, _mm256_or_si256(_mm256_xor_si256(sign, t), one));
        store(messages + e * LANES, m);
        store(total, _mm256_adds_epi8(t, m));
    }
    return (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(sign));
}

AVX2 static size_t iterate_avx2(const hg_ldpc *code, const state *s) {
    const tables phi = load_tables();
    size_t odd = 0;
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) odd += checks_avx2(code, s, &phi, r, k);
        mend_row(code, s, r);
    }
    return odd;
}

AVX2 static void decide_avx2(const hg_ldpc *code, const state *s, uint64_t *pattern) {
    const size_t words = code->z / 64;
    const __m256i turn = _mm256_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9,
                                          8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (size_t w = 0; w < code->width * words; w++) {
        const int8_t *from = s->totals + w / words * (code->z + LANES) + w % words * 64;
        uint64_t word = 0;
        for (size_t half = 0; half < 64; half += LANES) {
            const __m256i turned = _mm256_permute2x128_si256(_mm256_shuffle_epi8(load(from + half), turn),
                                                             _mm256_setzero_si256(), 0x01);
            /* permute2x128 with 0x01 swaps the halves of its first operand. */
            word = word << 32 | (uint32_t)_mm256_movemask_epi8(turned);
        }
        pattern[w] = word;
    }
}
#endif

typedef struct {
    size_t (*iterate)(const hg_ldpc *, const state *);
    void (*decide)(const hg_ldpc *, const state *, uint64_t *);
} steps;

static steps choose(int portable) {
#ifdef HG_AVX2
    if (!portable && __builtin_cpu_supports("avx2")) return (steps){iterate_avx2, decide_avx2};
#endif
    (void)portable;
    return (steps){iterate_portable, decide_portable};
}

/* As large as leaves the total of a column's bits below its end, whatever the checks say, but at least 1. */
static void limit(const hg_ldpc *code, const state *s, unsigned channel) {
    const unsigned room = channel < 127 ? 127 - channel : 0;
    memset(s->most, 0, code->width);
    for (size_t e = 0; e < code->starts[code->rows]; e++) s->most[code->columns[e]]++;
    for (size_t c = 0; c < code->width; c++) {
        const unsigned share = s->most[c] ? room / s->most[c] : 0;
        s->most[c] = (uint8_t)(share > LARGEST ? LARGEST : share ? share : 1);
    }
}

int hg_ldpc_decode(const hg_ldpc *code, const uint64_t *syndrome, unsigned channel, unsigned iterations,
                   uint64_t *pattern, int portable) {
    const size_t z = code->z, checks = code->rows * z, totals = code->width * (z + LANES);
    const size_t messages = code->starts[code->rows] * z;
    size_t degree = 0;
    for (size_t r = 0; r < code->rows; r++)
        if (code->starts[r + 1] - code->starts[r] > degree) degree = code->starts[r + 1] - code->starts[r];
    char *memory = hg_arena(checks / 8 + totals + messages + checks + degree * LANES + code->width);
    if (!memory) return HG_LDPC_NO_MEMORY;
    uint64_t *found = (uint64_t *)(void *)memory;
    state s;
    s.totals = (int8_t *)memory + checks / 8;
    s.messages = s.totals + totals; /* zeros: nothing was said yet */
    s.row = s.messages + messages;
    s.signs = (uint8_t *)(s.row + degree * LANES);
    s.most = s.signs + checks;
    for (size_t i = 0; i < checks; i++) s.signs[i] = hg_bit(syndrome, i) ? 0x80 : 0;
    memset(s.totals, (int)channel, totals);
    limit(code, &s, channel);
    const steps run = choose(portable);
    size_t fewest = checks + 1;
    int result = 0;
    for (unsigned i = 1, since = 0; i <= iterations && since < PATIENCE && !result; i++) {
        const size_t odd = run.iterate(code, &s);
        since = odd < fewest ? 0 : since + 1;
        fewest = odd < fewest ? odd : fewest;
        run.decide(code, &s, pattern);
        if (odd > checks / 16 && i < iterations) continue; /* far from it: no need to look */
        hg_ldpc_syndrome(code, 0, code->rows, pattern, found);
        if (!memcmp(found, syndrome, checks / 8)) result = (int)i;
    }
    free(memory);
    return result;
}
