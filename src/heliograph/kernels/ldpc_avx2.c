/* ldpc.c for processors with AVX2: 32 checks at once. */
#include "ldpc_steps.h"

#ifdef HG_LDPC_X86
#include <immintrin.h>

enum { LANES = 32, LARGEST = HG_LDPC_LARGEST };

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
        low[i] = (uint8_t)(hg_ldpc_phi[i] & 255);
        far[i] = (uint8_t)(hg_ldpc_phi[i + 16] & 255);
        high[i] = (uint8_t)(hg_ldpc_phi[i] >> 8);
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
    const __m256i least = _mm256_add_epi16(_mm256_add_epi16(up_to(sum, HG_LDPC_ONE), up_to(sum, HG_LDPC_TWO)), up_to(sum, HG_LDPC_THREE));
    return _mm256_min_epi16(_mm256_max_epi16(size, _mm256_sub_epi16(zero, least)), _mm256_set1_epi16(LARGEST));
}

AVX2 static unsigned checks(const hg_ldpc *code, const hg_ldpc_state *s, const tables *phi, size_t r, size_t k) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    int8_t *messages = s->messages + first * z + k * degree;
    const __m256i largest = _mm256_set1_epi8(LARGEST), near = _mm256_set1_epi8(0x70), one = _mm256_set1_epi8(1);
    const __m256i upper = _mm256_set1_epi16((short)0xFF00);
    __m256i sign = load(s->signs + r * z + k), least = largest, high = _mm256_setzero_si256();
    __m256i mixed = high, second = high; /* sums of low bytes: of pairs of lanes as 16-bit numbers, of the upper ones */
    for (size_t e = 0; e < degree; e++) {
        const __m256i total = load(hg_ldpc_bits(code, s, first + e, k));
        const __m256i t = _mm256_subs_epi8(total, load(messages + e * LANES));
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
        const __m256i t = load(s->row + e * LANES);
        const __m256i own = _mm256_cmpeq_epi8(_mm256_min_epu8(_mm256_abs_epi8(t), largest), least);
        const __m256i most = _mm256_set1_epi8((char)s->most[code->columns[first + e]]);
        const __m256i size = _mm256_min_epu8(_mm256_blendv_epi8(all, others, own), most);
        const __m256i m = _mm256_sign_epi8(size, _mm256_or_si256(_mm256_xor_si256(sign, t), one));
        store(messages + e * LANES, m);
        store(hg_ldpc_bits(code, s, first + e, k), _mm256_adds_epi8(t, m));
    }
    return (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(sign));
}

AVX2 size_t hg_ldpc_iterate_avx2(const hg_ldpc *code, const hg_ldpc_state *s) {
    const tables phi = load_tables();
    size_t odd = 0;
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) odd += checks(code, s, &phi, r, k);
        hg_ldpc_mend(code, s, r, LANES);
    }
    return odd;
}

AVX2 void hg_ldpc_decide_avx2(const hg_ldpc *code, const hg_ldpc_state *s, uint64_t *pattern) {
    const size_t words = code->z / 64;
    const __m256i turn = _mm256_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9,
                                          8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (size_t w = 0; w < code->width * words; w++) {
        const int8_t *from = s->totals + w / words * (code->z + HG_LDPC_LANES_MOST) + w % words * 64;
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
