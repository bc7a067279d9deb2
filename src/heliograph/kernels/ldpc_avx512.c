/* ldpc.c for processors with AVX-512 (BW and VBMI): 64 checks at once. */
#include "ldpc_steps.h"

#ifdef HG_LDPC_X86
#include <immintrin.h>

enum { LANES = 64 };

#define HG_TARGET __attribute__((target("avx512f,avx512bw,avx512vbmi")))
#define V(name) _mm512_##name
#define BITS(name) _mm512_##name##_si512
#define AS_BITS(floats) _mm512_castps_si512(floats)
typedef __m512i lanes;
typedef lanes index; /* a permutation takes the size itself */

HG_TARGET static inline lanes load(const void *at) { return _mm512_loadu_si512(at); }
HG_TARGET static inline void store(void *at, lanes value) { _mm512_storeu_si512(at, value); }

/* For look-ups by permutations. */
typedef struct {
    lanes low, high;
} tables;

HG_TARGET static tables load_tables(void) {
    uint8_t low[LANES] = {0}, high[LANES] = {0};
    for (size_t i = 0; i <= HG_LDPC_LARGEST; i++) {
        low[i] = (uint8_t)(hg_ldpc_phi[i] & 255);
        high[i] = (uint8_t)(hg_ldpc_phi[i] >> 8);
    }
    return (tables){load(low), load(high)};
}

HG_TARGET static inline index of(lanes size) { return size; }

HG_TARGET static inline lanes low_phi(const tables *t, index at) { return _mm512_permutexvar_epi8(at, t->low); }

HG_TARGET static inline lanes high_phi(const tables *t, index at) { return _mm512_permutexvar_epi8(at, t->high); }

HG_TARGET static inline lanes at_least(lanes sum) {
    const lanes one = _mm512_set1_epi16(1);
    lanes least = _mm512_maskz_mov_epi16(_mm512_cmple_epu16_mask(sum, _mm512_set1_epi16(HG_LDPC_ONE)), one);
    least = _mm512_mask_add_epi16(least, _mm512_cmple_epu16_mask(sum, _mm512_set1_epi16(HG_LDPC_TWO)), least, one);
    return _mm512_mask_add_epi16(least, _mm512_cmple_epu16_mask(sum, _mm512_set1_epi16(HG_LDPC_THREE)), least, one);
}

HG_TARGET static inline lanes where_equal(lanes a, lanes b, lanes then, lanes otherwise) {
    return _mm512_mask_blend_epi8(_mm512_cmpeq_epi8_mask(a, b), otherwise, then);
}

HG_TARGET static inline lanes negated_where(lanes sign, lanes size) {
    return _mm512_mask_sub_epi8(size, _mm512_movepi8_mask(sign), _mm512_setzero_si512(), size);
}

HG_TARGET static inline unsigned tops(lanes v) { return (unsigned)__builtin_popcountll(_mm512_movepi8_mask(v)); }

#include "ldpc_body.h"

HG_TARGET size_t hg_ldpc_iterate_avx512(const hg_ldpc *code, const hg_ldpc_state *s) { return iterate(code, s); }
#endif
