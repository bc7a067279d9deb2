/* What is known of one pass: a binary tree over its order. Node i of level l covers ranks [i * 2^l, (i + 1) * 2^l).
 *
 * Two bits for each node: whether its parity of errors is known, and, where it is, whether it is odd. Six levels lie
 * together as a heap in one word (root in bit 1, the 32 nodes of its lowest level from bit 32 on), so a correction
 * touches one line of memory for levels 0 to 6 and one for each further six. */
#ifndef HELIOGRAPH_CASCADE_TREE_H
#define HELIOGRAPH_CASCADE_TREE_H

#include "words.h"

typedef struct {
    uint64_t leaf_known, leaf_odd; /* level 0, rank r in bit r % 64 */
    uint64_t known, odd;           /* levels 1 to 6 */
} hg_low;

typedef struct {
    uint64_t known, odd;
} hg_heap;

enum { HG_TIERS = 3 }; /* levels 1..6, 7..12, 13..18 */

typedef struct {
    unsigned tiers;
    hg_low *low;
    hg_heap *high[HG_TIERS]; /* [0] is not used */
} hg_tree;

/* The heap bits of node j of a heap's lowest level and of the nodes above it. */
static inline uint64_t hg_path(size_t j) {
    return 1ULL << (32 + j) | 1ULL << (16 + j / 2) | 1ULL << (8 + j / 4) | 1ULL << (4 + j / 8) | 1ULL << (2 + j / 16) |
           2;
}

static inline unsigned hg_tier(unsigned level) { return (level - 1) / 6; }

static inline int hg_is_odd(const hg_tree *tree, unsigned level, size_t index) {
    if (!level) return (int)(tree->low[index / 64].leaf_odd >> (index % 64)) & 1;
    unsigned tier = hg_tier(level), up = 6 * tier + 6 - level; /* levels below the heap's root */
    uint64_t odd = tier ? tree->high[tier][index >> up].odd : tree->low[index >> up].odd;
    return (int)(odd >> ((1u << up) + (index & ((1u << up) - 1)))) & 1;
}

static inline void hg_know(hg_tree *tree, unsigned level, size_t index, unsigned odd) {
    uint64_t bit, *known, *odds;
    if (!level) {
        bit = 1ULL << (index % 64);
        known = &tree->low[index / 64].leaf_known, odds = &tree->low[index / 64].leaf_odd;
    } else {
        unsigned tier = hg_tier(level), up = 6 * tier + 6 - level;
        bit = 1ULL << ((1u << up) + (index & ((1u << up) - 1)));
        if (tier)
            known = &tree->high[tier][index >> up].known, odds = &tree->high[tier][index >> up].odd;
        else
            known = &tree->low[index >> up].known, odds = &tree->low[index >> up].odd;
    }
    *known |= bit;
    *odds = (*odds & ~bit) | (bit & (0 - (uint64_t)odd));
}

/* The same for both halves of a node, which lie side by side in one word. `level` and `left` are of the left one. */
static inline void hg_know_halves(hg_tree *tree, unsigned level, size_t left, unsigned odd) {
    uint64_t bits, *known, *odds;
    unsigned shift;
    if (!level) {
        shift = (unsigned)(left % 64);
        known = &tree->low[left / 64].leaf_known, odds = &tree->low[left / 64].leaf_odd;
    } else {
        unsigned tier = hg_tier(level), up = 6 * tier + 6 - level;
        if (!up) { /* two roots, of two heaps */
            hg_know(tree, level, left, odd);
            hg_know(tree, level, left + 1, !odd);
            return;
        }
        shift = (unsigned)((1u << up) + (left & ((1u << up) - 1)));
        if (tier)
            known = &tree->high[tier][left >> up].known, odds = &tree->high[tier][left >> up].odd;
        else
            known = &tree->low[left >> up].known, odds = &tree->low[left >> up].odd;
    }
    bits = 3ULL << shift;
    *known |= bits;
    *odds = (*odds & ~bits) | (uint64_t)(odd ? 1 : 2) << shift;
}

/* Fetches what is known about a node. */
static inline void hg_prefetch_node(const hg_tree *tree, unsigned level, size_t index) {
    if (level <= 6)
        hg_prefetch(&tree->low[index << level >> 6]);
    else
        hg_prefetch(&tree->high[hg_tier(level)][index << level >> (6 * hg_tier(level) + 6)]);
}

/* Flips the parity of all nodes above a rank, known or not: an unknown one's is set when it becomes known. */
static inline void hg_flip_above(hg_tree *tree, size_t rank) {
    hg_low *here = &tree->low[rank / 64];
    here->leaf_odd ^= 1ULL << (rank % 64);
    here->odd ^= hg_path((rank >> 1) & 31);
    for (unsigned t = 1; t < tree->tiers; t++) tree->high[t][rank >> (6 * t + 6)].odd ^= hg_path((rank >> (6 * t + 1)) & 31);
}

/* The level of the smallest known node above a rank, or -1. */
static inline int hg_lowest_known(const hg_tree *tree, size_t rank) {
    const hg_low *here = &tree->low[rank / 64];
    if (here->leaf_known >> (rank % 64) & 1) return 0;
    for (unsigned t = 0; t < tree->tiers; t++) {
        uint64_t known = t ? tree->high[t][rank >> (6 * t + 6)].known : here->known;
        known &= hg_path((rank >> (6 * t + 1)) & 31);
        if (known) return (int)(6 * t + 6 - hg_top_bit(hg_top_bit(known)));
    }
    return -1;
}

#endif
