/* Cascade over the frames of one block, all of them one round at a time: what is compared next follows from what was
 * compared before. cascade.py is the oracle, and explains it.
 *
 * After a negative code a block is of no more use. */
#ifndef HELIOGRAPH_CASCADE_H
#define HELIOGRAPH_CASCADE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HG_OK = 0, HG_NO_MEMORY = -1, HG_CONTRADICTION = -2, HG_MISUSE = -3, HG_EXHAUSTED = -4 };
enum { HG_PERMUTED = 3, HG_DIGITS = 5, HG_DIGITS_OF_SUBSETS = 9, HG_SUBSETS = 16, HG_TILE = 4096, HG_KEYS = 253, HG_SHARES = 256 };
#define HG_FRAME_MAX ((size_t)1 << 18)
#define HG_LENGTH_MAX ((size_t)1 << 30)

/* A permutation of the words of all tiles, turns below 64, another one, and one of the positions behind the tiles. */
typedef struct {
    const uint32_t *words, *outs, *tail;
    const uint8_t *turns;
} hg_shuffle;

typedef struct hg_plan hg_plan;
typedef struct hg_block hg_block;

/* How frames of `length` bits are searched: groups of 2^first, 2^second[i] and 2^third in the permuted passes, where in
 * pass 0 of the whole block a share of odd groups from i / (2 * HG_SHARES) on is seen; halves within `window` levels of
 * the smallest, of all once `few` are left, all digits of a place at once once `at_once` are; keys: HG_KEYS of subsets;
 * portable: without what only some processors have. Copies everything; NULL without memory or for tables that are no permutations. */
hg_plan *hg_plan_new(size_t length, unsigned first, const uint8_t second[HG_SHARES], unsigned third,
                     const hg_shuffle shuffles[HG_PERMUTED], const uint64_t keys[HG_KEYS], unsigned window, size_t few,
                     size_t at_once, int portable);
void hg_plan_free(hg_plan *plan);

/* bits: ceil(length / 8) bytes, most significant bit first. Frames follow `plan`, the last one `last`, whose lengths
 * must add up (frames - 1) * plan + last = length; plan's is a multiple of 64. Both outlive the block. */
hg_block *hg_block_new(const uint8_t *bits, size_t length, const hg_plan *plan, const hg_plan *last, int corrects);
void hg_block_free(hg_block *block);

/* Settles what is compared first, or next, after the peer's parities of what was: hg_count of them. */
int hg_block_begin(hg_block *block);
int hg_block_learn(hg_block *block, const uint8_t *parities);
size_t hg_count(const hg_block *block);
const uint8_t *hg_parities(const hg_block *block);

/* Writes the bits as they are now, or the pattern of all errors found. */
void hg_block_bits(const hg_block *block, uint8_t *bytes);
void hg_block_pattern(const hg_block *block, uint8_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
