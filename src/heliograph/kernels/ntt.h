/* Cyclic convolutions of 64-bit digits by number-theoretic transforms modulo three primes; see ntt_body.h. */
#ifndef HELIOGRAPH_NTT_H
#define HELIOGRAPH_NTT_H

#include "ntt_field.h"

#ifdef HG_NTT
#define HG_NTT_LEAST 256               /* digits */
#define HG_NTT_MOST ((size_t)3 << 22)  /* digits; a block of 2^29.5 bits */
/* 4000000 * 2^128 / (p1 p2 p3) < 0.957: see hg_ntt_recombination's use in ntt_body.h. */
#define HG_NTT_TERMS 4000000 /* digits of the shorter factor */

/* A factor: `whole` digits, little endian, at any address, then the digit `last`, then zeros. */
typedef struct {
    const uint8_t *digits;
    size_t whole;
    uint64_t last;
} hg_ntt_factor;

/* A transform of `radix` * 2^k digits: first a step of this radix (2, 3, 4 or 5), then steps of four. After 2 or 4
 * the parts go on as the next nodes of one tree of `length` leaves; after 3 or 5 each is a tree of its own. */
typedef struct {
    size_t length, part, tree;
    unsigned radix;
} hg_ntt_shape;

/* The least length that is at least `digits` and 2^k, 3 * 2^k or 5 * 2^k. */
hg_ntt_shape hg_ntt_shape_for(size_t digits);

/* Doubles of memory for the roots of a shape. */
size_t hg_ntt_table_size(const hg_ntt_shape *shape);

/* result[k] = length * sum of a_i b_j over i + j = k modulo length, modulo one prime, as doubles of magnitude below
 * 4 p. `result` and `scratch` have `length` doubles, `table` hg_ntt_table_size; all three are aligned to 64 bytes. */
typedef void hg_ntt_convolve(const hg_ntt_shape *shape, int prime, const hg_ntt_factor *a, const hg_ntt_factor *b,
                             double *result, double *scratch, double *table);

/* Writes `count` digits of sum c_k 2^(64 (k - first)) over first <= k < first + count, c_k the coefficients whose three
 * residues `results` are; what would go beyond the last digit is dropped. 0 <= c_k <= HG_NTT_TERMS * (2^64 - 1)^2. */
typedef void hg_ntt_recombine(const hg_ntt_shape *shape, double *const results[HG_NTT_PRIMES], size_t first,
                              size_t count, uint64_t *out);

hg_ntt_convolve hg_ntt_convolve_narrow, hg_ntt_convolve_wide;
hg_ntt_recombine hg_ntt_recombine_narrow, hg_ntt_recombine_wide;

#endif
#endif
