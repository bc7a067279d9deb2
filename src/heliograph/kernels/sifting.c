#include "sifting.h"

#include <string.h>

#include "words.h"

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define HG_BMI2 1
#include <immintrin.h>
#endif

/* Bit `place` of each of 64 bytes, the first one in the highest place. Eight at a time: each byte's bit is moved by the
 * multiplication to its own place in the highest byte, and no two terms meet. */
static inline uint64_t gather(const uint8_t *at, unsigned place) {
    uint64_t word = 0;
    for (int i = 0; i < 64; i += 8) {
        uint64_t eight = hg_load(at + i) >> place & 0x0101010101010101ULL;
        word = word << 8 | (eight * 0x0102040810204080ULL) >> 56;
    }
    return word;
}

/* The bits of `word` where `mask` has ones, moved to the lowest places in order. */
static inline uint64_t compress(uint64_t word, uint64_t mask) {
    uint64_t out = 0;
    for (uint64_t place = 1; mask; place <<= 1) {
        uint64_t lowest = mask & (0 - mask);
        if (word & lowest) out |= place;
        mask ^= lowest;
    }
    return out;
}

static inline unsigned ones(uint64_t word) {
    word -= word >> 1 & 0x5555555555555555ULL;
    word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL);
    return (unsigned)(((word + (word >> 4)) & 0x0F0F0F0F0F0F0F0FULL) * 0x0101010101010101ULL >> 56);
}

/* A stream of bits, most significant first. */
typedef struct {
    uint8_t *at;
    uint64_t word;
    unsigned filled;
} writer;

static inline void put(writer *to, uint64_t bits, unsigned count) { /* count <= 64, bits below 2^count */
    if (to->filled + count < 64) {
        to->word = to->word << count | bits;
        to->filled += count;
        return;
    }
    unsigned room = 64 - to->filled, rest = count - room; /* 1 <= room <= 64, rest < 64 */
    uint64_t full = room == 64 ? bits >> rest : to->word << room | bits >> rest;
    hg_store(to->at, full);
    to->at += 8;
    to->word = rest ? bits & (~0ULL >> (64 - rest)) : 0;
    to->filled = rest;
}

static inline void end(writer *to) {
    if (to->filled) hg_store(to->at, to->word << (64 - to->filled));
}

/* `count` (<= 64) bits of a packed stream from bit `from` on; bits beyond the end of its bytes are zero. */
static inline uint64_t take(const uint8_t *stream, size_t bytes, size_t from, unsigned count) {
    if (!count) return 0;
    uint8_t near[9] = {0};
    size_t first = from / 8;
    if (first + 9 <= bytes)
        memcpy(near, stream + first, 9);
    else if (first < bytes)
        memcpy(near, stream + first, bytes - first);
    uint64_t word = hg_load(near) << (from % 8);
    if (from % 8) word |= (uint64_t)near[8] >> (8 - from % 8);
    return word >> (64 - count);
}

/* Appends those of 64 bytes that the mask keeps; up to 8 bytes behind them are overwritten. */
static inline size_t keep(uint8_t *to, size_t count, const uint8_t *from, uint64_t mask) {
    for (unsigned i = 0; i < 64; i++) { /* written always, kept where it counts */
        to[count] = from[i];
        count += mask >> (63 - i) & 1;
    }
    return count;
}

#ifdef HG_BMI2
__attribute__((target("bmi2,popcnt"))) static inline size_t keep_bmi2(uint8_t *to, size_t count, const uint8_t *from,
                                                                      uint64_t mask) {
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t eight = mask >> (56 - i) & 0xFF;
        unsigned kept = (unsigned)_mm_popcnt_u64(eight);
        uint64_t bytes = _pext_u64(hg_load(from + i), _pdep_u64(eight, 0x0101010101010101ULL) * 0xFF);
        hg_store(to + count, kept ? bytes << (64 - 8 * kept) : 0);
        count += kept;
    }
    return count;
}
#endif

#define SIFT_LOOP(COMPRESS, ONES, KEEP)                                                                              \
    size_t key_bits = 0, tested = 0, peer_bytes = (peer_bits + 7) / 8;                                         \
    writer to_key = {key, 0, 0}, to_test = {test, 0, 0};                                                       \
    for (size_t at = 0; at < slots; at += 64) {                                                                \
        uint8_t part[4][64];                                                                                   \
        const uint8_t *a = own_bases + at, *v = own_bits + at, *b = peer_bases + at, *k = kinds + at;          \
        uint64_t there = ~0ULL;                                                                                \
        if (slots - at < 64) { /* the last ones, with zeros behind them */                                     \
            size_t left = slots - at;                                                                          \
            memset(part, 0, sizeof part);                                                                      \
            memcpy(part[0], a, left), memcpy(part[1], v, left), memcpy(part[2], b, left);                      \
            memcpy(part[3], k, left);                                                                          \
            a = part[0], v = part[1], b = part[2], k = part[3];                                                \
            there = ~(~0ULL >> left);                                                                          \
        }                                                                                                      \
        uint64_t bases_a = gather(a, 0), bases_b = gather(b, 0), bits = gather(v, 0);                          \
        uint64_t in_key = ~(bases_a | bases_b) & there, in_test = bases_a & bases_b & there;                   \
        unsigned keys = ONES(in_key), tests = ONES(in_test);                                                   \
        put(&to_key, COMPRESS(bits, in_key), keys);                                                            \
        key_bits = KEEP(key_kinds, key_bits, k, in_key);                                                       \
        if (tests) {                                                                                           \
            uint64_t own = COMPRESS(bits, in_test);                                                            \
            put(&to_test, own, tests);                                                                         \
            uint64_t low = COMPRESS(gather(k, 0), in_test), high = COMPRESS(gather(k, 1), in_test);            \
            uint64_t all = tests < 64 ? (1ULL << tests) - 1 : ~0ULL;                                           \
            uint64_t wrong = peer ? (own ^ take(peer, peer_bytes, tested, tests)) & all : 0;                   \
            uint64_t of[HG_KINDS] = {~low & ~high & all, low & ~high, ~low & high & all, low & high};          \
            for (int i = 0; i < HG_KINDS; i++) {                                                               \
                detections[i] += ONES(of[i]);                                                                  \
                errors[i] += ONES(of[i] & wrong);                                                              \
            }                                                                                                  \
            tested += tests;                                                                                   \
        }                                                                                                      \
    }                                                                                                          \
    end(&to_key);                                                                                              \
    end(&to_test);                                                                                             \
    *test_bits = tested;                                                                                       \
    return key_bits;

#define ARGUMENTS                                                                                                  \
    const uint8_t *own_bases, const uint8_t *own_bits, const uint8_t *peer_bases, const uint8_t *kinds,            \
        size_t slots, const uint8_t *peer, size_t peer_bits, uint8_t *key, uint8_t *key_kinds, uint8_t *test,      \
        size_t *test_bits, uint64_t detections[HG_KINDS], uint64_t errors[HG_KINDS]

static size_t sift_portable(ARGUMENTS) { SIFT_LOOP(compress, ones, keep) }

#ifdef HG_BMI2
#define PEXT(word, mask) _pext_u64(word, mask)
#define POPCNT(word) (unsigned)_mm_popcnt_u64(word)
__attribute__((target("bmi2,popcnt"))) static size_t sift_bmi2(ARGUMENTS) { SIFT_LOOP(PEXT, POPCNT, keep_bmi2) }
#endif

size_t hg_sift(ARGUMENTS) {
#ifdef HG_BMI2
    if (__builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
        return sift_bmi2(own_bases, own_bits, peer_bases, kinds, slots, peer, peer_bits, key, key_kinds, test, test_bits,
                         detections, errors);
#endif
    return sift_portable(own_bases, own_bits, peer_bases, kinds, slots, peer, peer_bits, key, key_kinds, test, test_bits,
                         detections, errors);
}

size_t hg_sift_portable(ARGUMENTS) {
    return sift_portable(own_bases, own_bits, peer_bases, kinds, slots, peer, peer_bits, key, key_kinds, test, test_bits,
                         detections, errors);
}
