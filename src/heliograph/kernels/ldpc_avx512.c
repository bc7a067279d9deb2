/* ldpc.c for processors with AVX-512 (BW and VBMI): 64 checks at once. As in ldpc_avx2.c, step by step. */
#include "ldpc_steps.h"

#ifdef HG_LDPC_X86
#include <immintrin.h>

enum { LANES = 64, LARGEST = HG_LDPC_LARGEST };

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi")))

AVX512 static inline __m512i load(const void *at) { return _mm512_loadu_si512(at); }
AVX512 static inline void store(void *at, __m512i value) { _mm512_storeu_si512(at, value); }

/* The bytes of phi, low and high, for look-ups by permutations. */
typedef struct {
    __m512i low, high;
} tables;

AVX512 static tables load_tables(void) {
    uint8_t low[LANES] = {0}, high[LANES] = {0};
    for (size_t i = 0; i <= LARGEST; i++) {
        low[i] = (uint8_t)(hg_ldpc_phi[i] & 255);
        high[i] = (uint8_t)(hg_ldpc_phi[i] >> 8);
    }
    return (tables){load(low), load(high)};
}

/* `size_of` 32 times. The bits of a float are its logarithm, linear between powers of two. */
AVX512 static inline __m512i sizes_of(__m512i sum) {
    const __m512i zero = _mm512_setzero_si512(), half = _mm512_set1_epi32(1 << 21), one = _mm512_set1_epi16(1);
    const __m512i a = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_unpacklo_epi16(sum, zero)));
    const __m512i b = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_unpackhi_epi16(sum, zero)));
    const __m512i twice = _mm512_packus_epi32(_mm512_srli_epi32(_mm512_add_epi32(a, half), 22),
                                              _mm512_srli_epi32(_mm512_add_epi32(b, half), 22));
    const __m512i size = _mm512_subs_epu16(_mm512_set1_epi16(26 + 2 * 127), twice);
    __m512i least = _mm512_maskz_mov_epi16(_mm512_cmple_epu16_mask(sum, _mm512_set1_epi16(HG_LDPC_ONE)), one);
    least = _mm512_mask_add_epi16(least, _mm512_cmple_epu16_mask(sum, _mm512_set1_epi16(HG_LDPC_TWO)), least, one);
    least = _mm512_mask_add_epi16(least, _mm512_cmple_epu16_mask(sum, _mm512_set1_epi16(HG_LDPC_THREE)), least, one);
    return _mm512_min_epi16(_mm512_max_epi16(size, least), _mm512_set1_epi16(LARGEST));
}

AVX512 static unsigned checks(const hg_ldpc *code, const hg_ldpc_state *s, const tables *phi, size_t r, size_t k) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    int8_t *messages = s->messages + first * z + k * degree;
    const __m512i largest = _mm512_set1_epi8(LARGEST), upper = _mm512_set1_epi16((short)0xFF00);
    const __m512i zero = _mm512_setzero_si512();
    __m512i sign = load(s->signs + r * z + k), least = largest, high = zero, mixed = zero, second = zero;
    for (size_t e = 0; e < degree; e++) {
        const __m512i total = load(hg_ldpc_bits(code, s, first + e, k));
        const __m512i t = _mm512_subs_epi8(total, load(messages + e * LANES));
        store(s->row + e * LANES, t);
        sign = _mm512_xor_si512(sign, t);
        const __m512i size = _mm512_min_epu8(_mm512_abs_epi8(t), largest);
        least = _mm512_min_epu8(least, size);
        high = _mm512_adds_epu8(high, _mm512_permutexvar_epi8(size, phi->high));
        const __m512i low = _mm512_permutexvar_epi8(size, phi->low);
        mixed = _mm512_add_epi16(mixed, low);
        second = _mm512_add_epi16(second, _mm512_srli_epi16(low, 8));
    }
    const __m512i low = _mm512_permutexvar_epi8(least, phi->low), top = _mm512_permutexvar_epi8(least, phi->high);
    const __m512i lower = _mm512_sub_epi16(mixed, _mm512_slli_epi16(second, 8));
    const __m512i even = _mm512_adds_epu16(_mm512_slli_epi16(high, 8), lower);
    const __m512i odd = _mm512_adds_epu16(_mm512_and_si512(high, upper), second);
    const __m512i less_even = _mm512_or_si512(_mm512_andnot_si512(upper, low), _mm512_slli_epi16(top, 8));
    const __m512i less_odd = _mm512_or_si512(_mm512_srli_epi16(low, 8), _mm512_and_si512(top, upper));
    const __m512i all = _mm512_or_si512(sizes_of(even), _mm512_slli_epi16(sizes_of(odd), 8));
    const __m512i others = _mm512_or_si512(sizes_of(_mm512_subs_epu16(even, less_even)),
                                           _mm512_slli_epi16(sizes_of(_mm512_subs_epu16(odd, less_odd)), 8));
    for (size_t e = 0; e < degree; e++) {
        const __m512i t = load(s->row + e * LANES);
        const __mmask64 own = _mm512_cmpeq_epi8_mask(_mm512_min_epu8(_mm512_abs_epi8(t), largest), least);
        const __m512i most = _mm512_set1_epi8((char)s->most[code->columns[first + e]]);
        const __m512i size = _mm512_min_epu8(_mm512_mask_blend_epi8(own, all, others), most);
        const __m512i m = _mm512_mask_sub_epi8(size, _mm512_movepi8_mask(_mm512_xor_si512(sign, t)), zero, size);
        store(messages + e * LANES, m);
        store(hg_ldpc_bits(code, s, first + e, k), _mm512_adds_epi8(t, m));
    }
    return (unsigned)__builtin_popcountll(_mm512_movepi8_mask(sign));
}

AVX512 size_t hg_ldpc_iterate_avx512(const hg_ldpc *code, const hg_ldpc_state *s) {
    const tables phi = load_tables();
    size_t odd = 0;
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) odd += checks(code, s, &phi, r, k);
        hg_ldpc_mend(code, s, r, LANES);
    }
    return odd;
}
#endif
