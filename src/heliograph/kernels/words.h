/* Bits in 64-bit words: position p is bit 63 - p % 64 of word p / 64, as in bytes with the most significant bit first. */
#ifndef HELIOGRAPH_WORDS_H
#define HELIOGRAPH_WORDS_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t hg_load(const uint8_t *at) {
    return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 | (uint64_t)at[3] << 32 |
           (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 | (uint64_t)at[6] << 8 | (uint64_t)at[7];
}

static inline void hg_store(uint8_t *at, uint64_t word) {
    for (int i = 7; i >= 0; i--, word >>= 8) at[i] = (uint8_t)word;
}

static inline size_t hg_word_count(size_t bits) { return bits / 64 + (bits % 64 != 0); }

/* Reads ceil(bits / 8) bytes into hg_word_count(bits) words; bits beyond the end become zero. */
static inline void hg_load_bits(uint64_t *words, const uint8_t *bytes, size_t bits) {
    size_t whole = bits / 64;
    for (size_t i = 0; i < whole; i++) words[i] = hg_load(bytes + 8 * i);
    if (bits % 64) {
        uint64_t last = 0;
        size_t left = (bits % 64 + 7) / 8;
        for (size_t i = 0; i < left; i++) last |= (uint64_t)bytes[8 * whole + i] << (56 - 8 * i);
        words[whole] = last & ~(~0ULL >> (bits % 64));
    }
}

/* Writes ceil(bits / 8) bytes. */
static inline void hg_store_bits(uint8_t *bytes, const uint64_t *words, size_t bits) {
    size_t whole = bits / 64;
    for (size_t i = 0; i < whole; i++) hg_store(bytes + 8 * i, words[i]);
    if (bits % 64) {
        size_t left = (bits % 64 + 7) / 8;
        for (size_t i = 0; i < left; i++) bytes[8 * whole + i] = (uint8_t)(words[whole] >> (56 - 8 * i));
    }
}

static inline unsigned hg_parity(uint64_t word) {
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_parityll(word);
#else
    word ^= word >> 32;
    word ^= word >> 16;
    word ^= word >> 8;
    word ^= word >> 4;
    return (unsigned)(0x6996u >> (word & 15)) & 1u;
#endif
}

/* Says that memory will be read soon; `at` need not be valid. */
static inline void hg_prefetch(const void *at) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(at, 1);
#else
    (void)at;
#endif
}

static inline unsigned hg_bit(const uint64_t *words, size_t at) {
    return (unsigned)(words[at / 64] >> (63 - at % 64)) & 1u;
}

static inline void hg_flip(uint64_t *words, size_t at) { words[at / 64] ^= 1ULL << (63 - at % 64); }

static inline unsigned hg_top_bit(uint64_t word) { /* word is not zero */
#if defined(__GNUC__) || defined(__clang__)
    return 63u - (unsigned)__builtin_clzll(word);
#else
    unsigned at = 0;
    while (word >>= 1) at++;
    return at;
#endif
}

#endif
