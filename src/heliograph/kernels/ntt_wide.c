#include "ntt.h"

#ifdef HG_NTT
#include <immintrin.h>

/* Lanes of ntt_body.h: eight doubles, AVX-512 F and DQ. */
#define LANES 8
#define HG_TARGET __attribute__((target("avx512f,avx512dq")))
#define NAMED(what) what##_wide
typedef __m512d lanes;
typedef __m512i words;
#define LOAD(at) _mm512_load_pd(at)
#define STORE(at, v) _mm512_store_pd(at, v)
#define ALL(x) _mm512_set1_pd(x)
#define ADD(a, b) _mm512_add_pd(a, b)
#define SUB(a, b) _mm512_sub_pd(a, b)
#define MUL(a, b) _mm512_mul_pd(a, b)
#define FMADD(a, b, c) _mm512_fmadd_pd(a, b, c)
#define FMSUB(a, b, c) _mm512_fmsub_pd(a, b, c)
#define FNMADD(a, b, c) _mm512_fnmadd_pd(a, b, c)
#define IF_NEGATIVE(a, b) _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a, _mm512_setzero_pd(), _CMP_LT_OQ), b)
#define WORDS(at) _mm512_loadu_si512(at)
#define ALL_WORDS(x) _mm512_set1_epi64((long long)(x))
#define AS_DOUBLES(a) _mm512_castsi512_pd(a)
#define AND_OR(a, b, c) _mm512_or_si512(_mm512_and_si512(a, b), c)
#define SHIFT_OR(a, by, c) _mm512_or_si512(_mm512_srli_epi64(a, by), c)

HG_TARGET static inline __attribute__((always_inline)) void transpose(lanes v[LANES]) {
    lanes a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_pd(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_pd(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + j] = _mm512_shuffle_f64x2(a[i + j], a[i + j + 2], 0x88);     /* quarters 0 and 2 of both */
            b[i + j + 2] = _mm512_shuffle_f64x2(a[i + j], a[i + j + 2], 0xDD); /* quarters 1 and 3 of both */
        }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_f64x2(b[j], b[j + 4], 0x88);
        v[j + 4] = _mm512_shuffle_f64x2(b[j], b[j + 4], 0xDD);
    }
}

#include "ntt_body.h"
#else
typedef int hg_no_ntt_wide; /* ISO C wants a declaration in every file */
#endif
