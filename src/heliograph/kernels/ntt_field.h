/* Three primes below 2^50 and the arithmetic modulo each: whole numbers here, doubles in ntt_body.h. */
#ifndef HELIOGRAPH_NTT_FIELD_H
#define HELIOGRAPH_NTT_FIELD_H

#include <stddef.h>
#include <stdint.h>

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define HG_NTT 1

#define HG_NTT_PRIMES 3

/* p - 1 is a multiple of 15 * 2^24, and p <= 2^50 (1 - 2^-10): the bounds in ntt_body.h have that much to spare. */
extern const uint64_t hg_ntt_prime[HG_NTT_PRIMES];

__extension__ typedef unsigned __int128 hg_u128;
__extension__ typedef __int128 hg_i128;

uint64_t hg_ntt_times(uint64_t a, uint64_t b, uint64_t p);
uint64_t hg_ntt_power(uint64_t base, uint64_t exponent, uint64_t p);
uint64_t hg_ntt_inverse(uint64_t a, uint64_t p);

/* A root of unity of exactly this order, which divides 15 * 2^24; with `inverse` its inverse. */
uint64_t hg_ntt_root(int prime, uint64_t order, int inverse);

/* The representative of least magnitude; exact, since p < 2^50. */
double hg_ntt_balanced(uint64_t a, uint64_t p);

/* What the Chinese remainder theorem needs for transforms of one length; see hg_ntt_recombination. */
typedef struct {
    double scale[HG_NTT_PRIMES];                                 /* (length * M / p)^-1 modulo p, balanced */
    uint64_t low[HG_NTT_PRIMES], high[HG_NTT_PRIMES];            /* M / p */
    hg_i128 multiple_low[HG_NTT_PRIMES], multiple_high[HG_NTT_PRIMES]; /* e M for e = 0, 1, 2, as low + 2^64 high */
} hg_ntt_recombination;

void hg_ntt_recombine_for(hg_ntt_recombination *with, uint64_t length);

#endif
#endif
