/* AES-256 (FIPS 197) of counter blocks, 32 at a time, by the processor's own instructions: the keystream of counter mode.
 * Without them nothing here exists and the twins in numpy work, on OpenSSL: a table in memory would tell the key by its
 * timing. */
#ifndef HELIOGRAPH_AES_H
#define HELIOGRAPH_AES_H

#include <stdint.h>

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define HG_AES 1

enum { HG_LANES = 32, HG_SEED = 32 };

/* The labels of kernels/expansion.py, as upper halves of counter blocks. */
#define HG_LABEL_LIGHT 0x68672d6c69676874ULL
#define HG_LABEL_BASES 0x68672d6261736573ULL

typedef struct {
    uint8_t round[15][16];
} hg_aes;

/* What a machine can do: 0 nothing, 1 one block an instruction, 2 four blocks and AVX-512 for the rest. */
int hg_aes_level(void);

void hg_aes_key(hg_aes *key, const uint8_t seed[HG_SEED]);

/* Encrypts HG_LANES blocks, high[i] then low[i] as eight big-endian bytes each; out as little-endian words. */
typedef void hg_aes_batch(const hg_aes *key, const uint64_t *high, const uint64_t *low, uint64_t *first,
                          uint64_t *second);
hg_aes_batch hg_aes_narrow, hg_aes_wide;

#define HG_WIDE __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,vaes,aes,prefer-vector-width=512")))
#define HG_INLINE static inline __attribute__((always_inline))

#endif
#endif
