#include "ntt.h"

#ifdef HG_NTT
#include <immintrin.h>

/* Lanes of ntt_body.h: four doubles, AVX2 and FMA. */
#define LANES 4
#define HG_TARGET __attribute__((target("avx2,fma")))
#define NAMED(what) what##_narrow
typedef __m256d lanes;
typedef __m256i words;
#define LOAD(at) _mm256_load_pd(at)
#define STORE(at, v) _mm256_store_pd(at, v)
#define ALL(x) _mm256_set1_pd(x)
#define ADD(a, b) _mm256_add_pd(a, b)
#define SUB(a, b) _mm256_sub_pd(a, b)
#define MUL(a, b) _mm256_mul_pd(a, b)
#define FMADD(a, b, c) _mm256_fmadd_pd(a, b, c)
#define FMSUB(a, b, c) _mm256_fmsub_pd(a, b, c)
#define FNMADD(a, b, c) _mm256_fnmadd_pd(a, b, c)
#define IF_NEGATIVE(a, b) _mm256_and_pd(_mm256_cmp_pd(a, _mm256_setzero_pd(), _CMP_LT_OQ), b)
#define WORDS(at) _mm256_loadu_si256((const __m256i *)(at))
#define ALL_WORDS(x) _mm256_set1_epi64x((long long)(x))
#define AS_DOUBLES(a) _mm256_castsi256_pd(a)
#define AND_OR(a, b, c) _mm256_or_si256(_mm256_and_si256(a, b), c)
#define SHIFT_OR(a, by, c) _mm256_or_si256(_mm256_srli_epi64(a, by), c)

HG_TARGET static inline __attribute__((always_inline)) void transpose(lanes v[LANES]) {
    lanes a = _mm256_unpacklo_pd(v[0], v[1]), b = _mm256_unpackhi_pd(v[0], v[1]);
    lanes c = _mm256_unpacklo_pd(v[2], v[3]), d = _mm256_unpackhi_pd(v[2], v[3]);
    v[0] = _mm256_permute2f128_pd(a, c, 0x20);
    v[1] = _mm256_permute2f128_pd(b, d, 0x20);
    v[2] = _mm256_permute2f128_pd(a, c, 0x31);
    v[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

#include "ntt_body.h"
#else
typedef int hg_no_ntt_narrow; /* ISO C wants a declaration in every file */
#endif
