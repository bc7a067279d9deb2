#include "ldpc.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "words.h"

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define HG_AVX2 1
#include <immintrin.h>
#endif

enum { LANES = 32, LARGEST = 20, FIRST = 2 }; /* checks at once; the largest message; the first ones */

/* What one decoding holds. A block column of `totals` has z bytes and the first LANES of them once more, so that a load
 * may run over the end. `messages`: z for each edge. `signs`: 0x80 for a check that must be odd. `row`: LANES for each
 * edge of one row. */
typedef struct {
    int8_t *totals, *messages, *row;
    uint8_t *signs;
} state;

void hg_ldpc_syndrome(const hg_ldpc *code, size_t first, size_t last, const uint64_t *bits, uint64_t *out) {
    const size_t words = code->z / 64;
    memset(out, 0, (last - first) * words * sizeof *out);
    for (size_t r = first; r < last; r++, out += words)
        for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++) {
            const uint64_t *from = bits + code->columns[e] * words;
            size_t at = code->shifts[e] / 64;
            const unsigned by = code->shifts[e] % 64;
            for (size_t k = 0; k < words; k++) {
                const size_t next = at + 1 == words ? 0 : at + 1;
                out[k] ^= by ? from[at] << by | from[next] >> (64 - by) : from[at];
                at = next;
            }
        }
}

/* The LANES checks from `k` on of row `r`: what ldpc.py does, check by check. */
static void checks_portable(const hg_ldpc *code, const state *s, size_t r, size_t k, unsigned offset) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    uint8_t sign[LANES], least[LANES], second[LANES];
    memcpy(sign, s->signs + r * z + k, LANES);
    memset(least, 255, LANES);
    memset(second, 255, LANES);
    for (size_t e = 0; e < degree; e++) {
        size_t at = k + code->shifts[first + e];
        if (at >= z) at -= z;
        const int8_t *total = s->totals + code->columns[first + e] * (z + LANES) + at;
        const int8_t *message = s->messages + (first + e) * z + k;
        int8_t *row = s->row + e * LANES;
        for (size_t j = 0; j < LANES; j++) {
            int t = total[j] - message[j];
            t = t > 127 ? 127 : t < -128 ? -128 : t;
            row[j] = (int8_t)t;
            sign[j] ^= (uint8_t)t & 0x80;
            const uint8_t size = (uint8_t)(t < 0 ? -t : t), larger = size > least[j] ? size : least[j];
            second[j] = larger < second[j] ? larger : second[j];
            least[j] = size < least[j] ? size : least[j];
        }
    }
    for (size_t e = 0; e < degree; e++) {
        size_t at = k + code->shifts[first + e];
        if (at >= z) at -= z;
        int8_t *total = s->totals + code->columns[first + e] * (z + LANES) + at;
        int8_t *message = s->messages + (first + e) * z + k;
        const int8_t *row = s->row + e * LANES;
        for (size_t j = 0; j < LANES; j++) {
            int t = row[j];
            int size = (t < 0 ? -t : t) == least[j] ? second[j] : least[j];
            size = size > (int)offset ? size - (int)offset : 0;
            size = size > LARGEST ? LARGEST : size;
            const int m = (sign[j] ^ (uint8_t)t) & 0x80 ? -size : size;
            t += m;
            message[j] = (int8_t)m;
            total[j] = (int8_t)(t > 127 ? 127 : t < -128 ? -128 : t);
        }
    }
}

/* The row has written the first bytes of a block column or their copies behind its end, never both: make them equal. */
static void mend_portable(int8_t *column, size_t z, size_t written_behind) {
    memcpy(column, column + z, written_behind);
    memcpy(column + z + written_behind, column + written_behind, LANES - written_behind);
}

static void iterate_portable(const hg_ldpc *code, const state *s, unsigned offset) {
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) checks_portable(code, s, r, k, offset);
        for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++)
            mend_portable(s->totals + code->columns[e] * (code->z + LANES), code->z, code->shifts[e] % LANES);
    }
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

AVX2 static void checks_avx2(const hg_ldpc *code, const state *s, size_t r, size_t k, __m256i offset) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    const uint32_t *columns = code->columns + first, *shifts = code->shifts + first;
    __m256i sign = load(s->signs + r * z + k), least = _mm256_set1_epi8(-1), second = least;
    for (size_t e = 0; e < degree; e++) {
        const size_t at = k + shifts[e];
        const int8_t *total = s->totals + columns[e] * (z + LANES) + (at >= z ? at - z : at);
        const __m256i t = _mm256_subs_epi8(load(total), load(s->messages + (first + e) * z + k));
        const __m256i size = _mm256_abs_epi8(t);
        store(s->row + e * LANES, t);
        sign = _mm256_xor_si256(sign, t);
        second = _mm256_min_epu8(second, _mm256_max_epu8(least, size));
        least = _mm256_min_epu8(least, size);
    }
    const __m256i largest = _mm256_set1_epi8(LARGEST), one = _mm256_set1_epi8(1);
    const __m256i common = _mm256_min_epu8(_mm256_subs_epu8(least, offset), largest);
    const __m256i other = _mm256_min_epu8(_mm256_subs_epu8(second, offset), largest);
    for (size_t e = 0; e < degree; e++) {
        const size_t at = k + shifts[e];
        int8_t *total = s->totals + columns[e] * (z + LANES) + (at >= z ? at - z : at);
        const __m256i t = load(s->row + e * LANES);
        const __m256i own = _mm256_cmpeq_epi8(_mm256_abs_epi8(t), least);
        const __m256i size = _mm256_blendv_epi8(common, other, own);
        const __m256i m = _mm256_sign_epi8(size, _mm256_or_si256(_mm256_xor_si256(sign, t), one));
        store(s->messages + (first + e) * z + k, m);
        store(total, _mm256_adds_epi8(t, m));
    }
}

AVX2 static void iterate_avx2(const hg_ldpc *code, const state *s, unsigned offset) {
    const __m256i by = _mm256_set1_epi8((char)offset);
    const __m256i places = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                            22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) checks_avx2(code, s, r, k, by);
        for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++) {
            int8_t *column = s->totals + code->columns[e] * (code->z + LANES);
            const __m256i behind = _mm256_cmpgt_epi8(_mm256_set1_epi8((char)(code->shifts[e] % LANES)), places);
            const __m256i value = _mm256_blendv_epi8(load(column), load(column + code->z), behind);
            store(column, value);
            store(column + code->z, value);
        }
    }
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

/* Every check speaks once, from what all bits alike are worth: without it the first rows silence all others. */
static void begin(const hg_ldpc *code, const state *s, unsigned channel) {
    const size_t z = code->z;
    memset(s->totals, (int)channel, code->width * (z + LANES));
    for (size_t r = 0; r < code->rows; r++)
        for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++) {
            int8_t *total = s->totals + code->columns[e] * (z + LANES), *message = s->messages + e * z;
            for (size_t k = 0; k < z; k++) {
                const size_t at = k + code->shifts[e] < z ? k + code->shifts[e] : k + code->shifts[e] - z;
                message[k] = s->signs[r * z + k] ? -FIRST : FIRST;
                total[at] = (int8_t)(total[at] + message[k]);
            }
        }
    for (size_t c = 0; c < code->width; c++)
        memcpy(s->totals + c * (z + LANES) + z, s->totals + c * (z + LANES), LANES);
}

typedef struct {
    void (*iterate)(const hg_ldpc *, const state *, unsigned);
    void (*decide)(const hg_ldpc *, const state *, uint64_t *);
} steps;

static steps choose(int portable) {
#ifdef HG_AVX2
    if (!portable && __builtin_cpu_supports("avx2")) return (steps){iterate_avx2, decide_avx2};
#endif
    (void)portable;
    return (steps){iterate_portable, decide_portable};
}

int hg_ldpc_decode(const hg_ldpc *code, const uint64_t *syndrome, unsigned channel, unsigned offset, unsigned iterations,
                   uint64_t *pattern, int portable) {
    const size_t z = code->z, checks = code->rows * z, totals = code->width * (z + LANES);
    const size_t messages = code->starts[code->rows] * z;
    size_t degree = 0;
    for (size_t r = 0; r < code->rows; r++)
        if (code->starts[r + 1] - code->starts[r] > degree) degree = code->starts[r + 1] - code->starts[r];
    char *memory = hg_arena(checks / 8 + totals + messages + checks + degree * LANES);
    if (!memory) return HG_LDPC_NO_MEMORY;
    memset(memory, 0, checks / 8 + totals + messages + checks + degree * LANES);
    uint64_t *found = (uint64_t *)(void *)memory;
    state s;
    s.totals = (int8_t *)memory + checks / 8;
    s.messages = s.totals + totals;
    s.row = s.messages + messages;
    s.signs = (uint8_t *)(s.row + degree * LANES);
    for (size_t i = 0; i < checks; i++) s.signs[i] = hg_bit(syndrome, i) ? 0x80 : 0;
    begin(code, &s, channel);
    const steps run = choose(portable);
    int result = 0;
    for (unsigned i = 1; i <= iterations && !result; i++) {
        run.iterate(code, &s, offset);
        run.decide(code, &s, pattern);
        hg_ldpc_syndrome(code, 0, code->rows, pattern, found);
        if (!memcmp(found, syndrome, checks / 8)) result = (int)i;
    }
    free(memory);
    return result;
}
