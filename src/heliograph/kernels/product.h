/* The modified multiply-shift hash in words, by the transforms of ntt.h. */
#ifndef HELIOGRAPH_PRODUCT_H
#define HELIOGRAPH_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HG_PRODUCT_UNDECIDED 1
#define HG_PRODUCT_NO_MEMORY 2

/* 0: this machine cannot; 1: four lanes (AVX2, FMA); 2: eight (AVX-512). Both give the same bits. */
int hg_product_level(void);

/* Bytes that one hash of n bits to m takes besides its input and output, 1 <= m < n; 0 for one that is too long. */
size_t hg_product_memory(size_t n, size_t m);

/* out, ceil(m / 8) bytes: (x1 + (((a x2 + b) mod 2^al) >> (al - m))) mod 2^m as product.py says, al = n - 1. `key`
 * has ceil(n / 8) bytes, `seed` at least ceil(2 al / 8). `level` is at least 1 and at most hg_product_level(), and
 * hg_product_memory is not 0. Returns 0, HG_PRODUCT_NO_MEMORY, or HG_PRODUCT_UNDECIDED, and then `out` is not
 * written: see product.c. For a uniform seed that is never seen. */
int hg_multiply_shift(const uint8_t *key, size_t n, const uint8_t *seed, size_t seed_size, size_t m, int level,
                      uint8_t *out);

#ifdef __cplusplus
}
#endif

#endif
