/* What is known of one pass: a binary tree over its order. Node i of level l covers ranks [i * 2^l, (i + 1) * 2^l).
 *
 * Two bits for each node: whether its parity of errors is known, and, where it is, whether it is odd. Six levels lie
 * together as a heap in one word (root in bit 1, the 32 nodes of its lowest level from bit 32 on). Own bits lie with
 * levels 0 to 6, so that a question or a correction touches half a line of memory for these and a quarter for each
 * further six. A single bit known to be wrong is corrected before anything else: only known right ones are remembered. */
#ifndef HELIOGRAPH_CASCADE_TREE_H
#define HELIOGRAPH_CASCADE_TREE_H

#include "words.h"

typedef struct {
    uint64_t own;        /* in the order of the pass, first bit highest; zero outside a subset */
    uint64_t right;      /* level 0, rank r in bit r % 64: known to be right */
    uint64_t known, odd; /* levels 1 to 6 */
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

static inline unsigned hg_tier(unsigned level) { return (level > 6) + (level > 12); }

/* Where the word of a node of level 1 or higher lies, and which bit of it is the node's. */
static inline uint64_t *hg_known_at(const hg_tree *tree, unsigned level, size_t index, unsigned *bit) {
    unsigned tier = hg_tier(level), up = 6 * tier + 6 - level; /* levels below the heap's root */
    *bit = (1u << up) + (unsigned)(index & ((1u << up) - 1));
    return tier ? &tree->high[tier][index >> up].known : &tree->low[index >> up].known;
}

static inline unsigned hg_is_right(const hg_tree *tree, size_t rank) {
    return (unsigned)(tree->low[rank / 64].right >> (rank % 64)) & 1u;
}

static inline unsigned hg_is_odd(const hg_tree *tree, unsigned level, size_t index) { /* of a known node */
    unsigned bit;
    if (!level) return !hg_is_right(tree, index);
    const uint64_t *at = hg_known_at(tree, level, index, &bit); /* first: it says which bit */
    return (unsigned)(at[1] >> bit) & 1u;
}

static inline void hg_know_rank(hg_tree *tree, size_t rank, unsigned odd) {
    uint64_t *right = &tree->low[rank / 64].right;
    *right = (*right & ~(1ULL << (rank % 64))) | (uint64_t)!odd << (rank % 64);
}

static inline void hg_know(hg_tree *tree, unsigned level, size_t index, unsigned odd) {
    unsigned bit;
    if (!level) {
        hg_know_rank(tree, index, odd);
        return;
    }
    uint64_t *at = hg_known_at(tree, level, index, &bit);
    at[0] |= 1ULL << bit;
    at[1] = (at[1] & ~(1ULL << bit)) | (uint64_t)odd << bit;
}

/* The same for both halves of an odd node, which lie side by side in one word. `level` and `left` are of the left one. */
static inline void hg_know_halves(hg_tree *tree, unsigned level, size_t left, unsigned odd) {
    unsigned bit;
    if (!level) {
        uint64_t *right = &tree->low[left / 64].right;
        *right = (*right & ~(3ULL << (left % 64))) | (uint64_t)(odd ? 2 : 1) << (left % 64);
    } else if (level % 6) {
        uint64_t *at = hg_known_at(tree, level, left, &bit);
        at[0] |= 3ULL << bit;
        at[1] = (at[1] & ~(3ULL << bit)) | (uint64_t)(odd ? 1 : 2) << bit;
    } else { /* two roots, of two heaps */
        hg_know(tree, level, left, odd);
        hg_know(tree, level, left + 1, !odd);
    }
}

/* Fetches what is known about a node, and the own bits it begins with. */
static inline void hg_prefetch_node(const hg_tree *tree, unsigned level, size_t index) {
    hg_prefetch(&tree->low[index << level >> 6]);
    if (level > 6) hg_prefetch(&tree->high[hg_tier(level)][index << level >> (6 * hg_tier(level) + 6)]);
}

/* Flips the parity of all nodes above a rank, known or not: an unknown one's is set when it becomes known. */
static inline void hg_flip_above(hg_tree *tree, size_t rank) {
    tree->low[rank / 64].odd ^= hg_path((rank >> 1) & 31);
    for (unsigned t = 1; t < tree->tiers; t++) tree->high[t][rank >> (6 * t + 6)].odd ^= hg_path((rank >> (6 * t + 1)) & 31);
}

/* The level of the smallest known node above a rank, the rank itself left out; 0 if there is none. */
static inline unsigned hg_lowest_known(const hg_tree *tree, size_t rank) {
    for (unsigned t = 0; t < tree->tiers; t++) {
        uint64_t known = t ? tree->high[t][rank >> (6 * t + 6)].known : tree->low[rank / 64].known;
        known &= hg_path((rank >> (6 * t + 1)) & 31);
        if (known) return 6 * t + 6 - hg_top_bit(hg_top_bit(known));
    }
    return 0;
}

#endif
