#include "ntt_field.h"

#ifdef HG_NTT
const uint64_t hg_ntt_prime[HG_NTT_PRIMES] = {0x3feffb2000001, 0x3feff76000001, 0x3fefdff000001};

/* Neither squares, cubes nor fifth powers modulo their primes: their powers give roots of every order that is
 * needed. */
static const uint64_t generator[HG_NTT_PRIMES] = {11, 7, 19};

uint64_t hg_ntt_times(uint64_t a, uint64_t b, uint64_t p) { return (uint64_t)((hg_u128)a * b % p); }

uint64_t hg_ntt_power(uint64_t base, uint64_t exponent, uint64_t p) {
    uint64_t result = 1;
    for (; exponent; exponent >>= 1, base = hg_ntt_times(base, base, p))
        if (exponent & 1) result = hg_ntt_times(result, base, p);
    return result;
}

uint64_t hg_ntt_inverse(uint64_t a, uint64_t p) { return hg_ntt_power(a, p - 2, p); }

uint64_t hg_ntt_root(int prime, uint64_t order, int inverse) {
    uint64_t p = hg_ntt_prime[prime], step = (p - 1) / order;
    return hg_ntt_power(generator[prime], inverse ? p - 1 - step : step, p);
}

double hg_ntt_balanced(uint64_t a, uint64_t p) { return a > p / 2 ? -(double)(p - a) : (double)a; }

void hg_ntt_recombine_for(hg_ntt_recombination *with, uint64_t length) {
    for (int i = 0; i < HG_NTT_PRIMES; i++) {
        uint64_t p = hg_ntt_prime[i], one = hg_ntt_prime[(i + 1) % 3], two = hg_ntt_prime[(i + 2) % 3];
        hg_u128 others = (hg_u128)one * two;
        with->low[i] = (uint64_t)others;
        with->high[i] = (uint64_t)(others >> 64);
        uint64_t residue = hg_ntt_times((uint64_t)(others % p), length % p, p);
        with->scale[i] = hg_ntt_balanced(hg_ntt_inverse(residue, p), p);
    }
    hg_u128 low = (hg_u128)with->low[0] * hg_ntt_prime[0];
    for (int e = 0; e < 3; e++) {
        with->multiple_low[e] = (hg_i128)(uint64_t)low * e;
        with->multiple_high[e] = (hg_i128)((hg_u128)with->high[0] * hg_ntt_prime[0] + (low >> 64)) * e;
    }
}
#else
typedef int hg_no_ntt_field; /* ISO C wants a declaration in every file */
#endif
