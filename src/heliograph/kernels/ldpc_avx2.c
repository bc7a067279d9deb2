/* ldpc.c for processors with AVX2: 32 checks at once. */
#include "ldpc_steps.h"

#ifdef HG_LDPC_X86
#include <immintrin.h>

enum { LANES = 32 };

#define HG_TARGET __attribute__((target("avx2")))
#define V(name) _mm256_##name
#define BITS(name) _mm256_##name##_si256
#define AS_BITS(floats) _mm256_castps_si256(floats)
typedef __m256i lanes;

HG_TARGET static inline lanes load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
HG_TARGET static inline void store(void *at, lanes value) { _mm256_storeu_si256((__m256i *)at, value); }

/* For look-ups by shuffles: the low bytes of sizes 0 to 15 and 16 to 31, the high ones of 0 to 15, where the others are 0. */
typedef struct {
    lanes low, low_far, high;
} tables;

HG_TARGET static tables load_tables(void) {
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
typedef struct {
    lanes near, far;
} index;

HG_TARGET static inline index of(lanes size) {
    return (index){_mm256_add_epi8(size, _mm256_set1_epi8(0x70)), _mm256_sub_epi8(size, _mm256_set1_epi8(16))};
}

HG_TARGET static inline lanes low_phi(const tables *t, index at) {
    return _mm256_or_si256(_mm256_shuffle_epi8(t->low, at.near), _mm256_shuffle_epi8(t->low_far, at.far));
}

HG_TARGET static inline lanes high_phi(const tables *t, index at) { return _mm256_shuffle_epi8(t->high, at.near); }

/* -1 where the number is at most `most`, else 0. */
HG_TARGET static inline lanes up_to(lanes numbers, int16_t most) {
    return _mm256_cmpeq_epi16(_mm256_min_epu16(numbers, _mm256_set1_epi16(most)), numbers);
}

HG_TARGET static inline lanes at_least(lanes sum) {
    const lanes less = _mm256_add_epi16(up_to(sum, HG_LDPC_ONE), up_to(sum, HG_LDPC_TWO));
    return _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_add_epi16(less, up_to(sum, HG_LDPC_THREE)));
}

HG_TARGET static inline lanes where_equal(lanes a, lanes b, lanes then, lanes otherwise) {
    return _mm256_blendv_epi8(otherwise, then, _mm256_cmpeq_epi8(a, b));
}

HG_TARGET static inline lanes negated_where(lanes sign, lanes size) {
    return _mm256_sign_epi8(size, _mm256_or_si256(sign, _mm256_set1_epi8(1))); /* or 1: a sign of 0 would give 0 */
}

HG_TARGET static inline unsigned tops(lanes v) { return (unsigned)__builtin_popcount((unsigned)_mm256_movemask_epi8(v)); }

#include "ldpc_body.h"

HG_TARGET size_t hg_ldpc_iterate_avx2(const hg_ldpc *code, const hg_ldpc_state *s) { return iterate(code, s); }

HG_TARGET void hg_ldpc_decide_avx2(const hg_ldpc *code, const hg_ldpc_state *s, uint64_t *pattern) {
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
