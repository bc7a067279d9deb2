/* How frames of one length are shuffled: shared by all frames of a block, so that the tables stay in the cache. */
#ifndef HELIOGRAPH_CASCADE_PLAN_H
#define HELIOGRAPH_CASCADE_PLAN_H

#include "cascade.h"
#include "words.h"

typedef struct {
    uint16_t *words, *words_back, *outs, *outs_back, *tail, *tail_back; /* HG_FRAME_MAX / 64 words at most */
    uint8_t *turns;
} hg_tables;

struct hg_plan {
    size_t length, words, whole; /* whole: positions in tiles */
    unsigned first, highest, third, window; /* highest of `second` */
    uint8_t second[HG_SHARES];
    size_t few, at_once;
    int wide; /* whether the processor transposes four rows at a time */
    hg_tables tables[HG_PERMUTED];
    uint64_t keys[HG_KEYS];
    uint64_t (*masks)[HG_SUBSETS]; /* word by word, the first subsets, which every frame compares */
};

static inline size_t hg_position(const hg_plan *plan, const hg_tables *by, size_t rank) {
    if (rank >= plan->whole) return plan->whole + by->tail[rank - plan->whole];
    size_t row = by->outs[rank / 64], slot = row / 64 * 64 + rank % 64;
    return (size_t)by->words[slot] * 64 + (row + by->turns[slot]) % 64;
}

static inline size_t hg_rank(const hg_plan *plan, const hg_tables *by, size_t position) {
    if (position >= plan->whole) return plan->whole + by->tail_back[position - plan->whole];
    size_t slot = by->words_back[position / 64], row = (position - by->turns[slot]) % 64;
    return (size_t)by->outs_back[slot / 64 * 64 + row] * 64 + slot % 64;
}

/* Writes the bits of a frame in the order of a pass, a word in every `stride`; `out` is zero before. */
void hg_shuffle_bits(const hg_plan *plan, const hg_tables *by, const uint64_t *bits, uint64_t *out, size_t stride);

/* Word `at` of a subset: the finalizer of SplitMix64 [Steele, Lea and Flood 2014] over key and counter. */
static inline uint64_t hg_subset_word(uint64_t key, size_t at) {
    uint64_t z = key + ((uint64_t)at + 1) * 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static inline unsigned hg_in_subset(uint64_t key, size_t position) {
    return (unsigned)(hg_subset_word(key, position / 64) >> (63 - position % 64)) & 1u;
}

#endif
