#include "aes.h"

#ifdef HG_AES
#include <immintrin.h>

#define NARROW __attribute__((target("aes,ssse3,sse4.1")))

int hg_aes_level(void) {
    if (!__builtin_cpu_supports("aes") || !__builtin_cpu_supports("sse4.1")) return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vaes"))
        return 2;
    return 1;
}

/* FIPS 197, 5.2, with four words to a step: each word is the sum of all before it in the step and of `word`. */
NARROW static __m128i next(__m128i before, __m128i word) {
    before = _mm_xor_si128(before, _mm_slli_si128(before, 4));
    before = _mm_xor_si128(before, _mm_slli_si128(before, 8));
    return _mm_xor_si128(before, word);
}

#define KEEP(at, what) _mm_storeu_si128((__m128i *)key->round[at], what)
#define STEP(at, constant)                                                                     \
    a = next(a, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(b, constant), 0xFF));              \
    KEEP(at, a);                                                                               \
    if (at < 14) {                                                                             \
        b = next(b, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(a, 0), 0xAA));                 \
        KEEP(at + 1 < 15 ? at + 1 : 14, b);                                                    \
    }

NARROW void hg_aes_key(hg_aes *key, const uint8_t seed[HG_SEED]) {
    __m128i a = _mm_loadu_si128((const __m128i *)seed), b = _mm_loadu_si128((const __m128i *)(seed + 16));
    KEEP(0, a);
    KEEP(1, b);
    STEP(2, 0x01) STEP(4, 0x02) STEP(6, 0x04) STEP(8, 0x08) STEP(10, 0x10) STEP(12, 0x20) STEP(14, 0x40)
}

NARROW void hg_aes_narrow(const hg_aes *key, const uint64_t *high, const uint64_t *low, uint64_t *first,
                          uint64_t *second) {
    const __m128i swap = _mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    for (int at = 0; at < HG_LANES; at += 8) {
        __m128i block[8], round = _mm_loadu_si128((const __m128i *)key->round[0]);
        for (int i = 0; i < 8; i++) {
            __m128i counter = _mm_set_epi64x((long long)low[at + i], (long long)high[at + i]);
            block[i] = _mm_xor_si128(_mm_shuffle_epi8(counter, swap), round);
        }
        for (int r = 1; r < 14; r++) {
            round = _mm_loadu_si128((const __m128i *)key->round[r]);
            for (int i = 0; i < 8; i++) block[i] = _mm_aesenc_si128(block[i], round);
        }
        round = _mm_loadu_si128((const __m128i *)key->round[14]);
        for (int i = 0; i < 8; i++) {
            block[i] = _mm_aesenclast_si128(block[i], round);
            first[at + i] = (uint64_t)_mm_cvtsi128_si64(block[i]);
            second[at + i] = (uint64_t)_mm_extract_epi64(block[i], 1);
        }
    }
}

HG_WIDE void hg_aes_wide(const hg_aes *key, const uint64_t *high, const uint64_t *low, uint64_t *first,
                         uint64_t *second) {
    const __m512i swap =
        _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    __m512i block[8];
    for (int i = 0; i < 4; i++) { /* eight counters: their even blocks in one register, the odd ones in the next */
        __m512i h = _mm512_loadu_si512(high + 8 * i), l = _mm512_loadu_si512(low + 8 * i);
        block[2 * i] = _mm512_shuffle_epi8(_mm512_unpacklo_epi64(h, l), swap);
        block[2 * i + 1] = _mm512_shuffle_epi8(_mm512_unpackhi_epi64(h, l), swap);
    }
    for (int r = 0; r < 15; r++) {
        __m512i round = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)key->round[r]));
        for (int i = 0; i < 8; i++)
            block[i] = r == 0   ? _mm512_xor_si512(block[i], round)
                       : r < 14 ? _mm512_aesenc_epi128(block[i], round)
                                : _mm512_aesenclast_epi128(block[i], round);
    }
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(first + 8 * i, _mm512_unpacklo_epi64(block[2 * i], block[2 * i + 1]));
        _mm512_storeu_si512(second + 8 * i, _mm512_unpackhi_epi64(block[2 * i], block[2 * i + 1]));
    }
}
#else
typedef int hg_no_aes; /* ISO C wants a declaration in every file */
#endif
