/* One frame as it is searched, and its passes: what the files of the search share, not for others.
 *
 * Each function takes in or asks for something and leaves the frame ready for the next; after a negative code (HG_NO_MEMORY,
 * HG_CONTRADICTION, HG_EXHAUSTED) the block is of no more use, but everything can still be freed. cascade.py says what a
 * step is for. */
#ifndef HELIOGRAPH_CASCADE_FRAME_H
#define HELIOGRAPH_CASCADE_FRAME_H

#include "cascade.h"
#include "cascade_lists.h"
#include "cascade_plan.h"
#include "cascade_stream.h"
#include "cascade_tree.h"
#include "words.h"

/* Nodes are level << 27 | index, in ascending order of size, then place; HG_FRAME_MAX keeps both in 32 bits. */
#define HG_NODE(level, index) ((uint32_t)(level) << 27 | (uint32_t)(index))
#define HG_LEVEL(node) ((node) >> 27)
#define HG_INDEX(node) ((size_t)((node) & 0x7FFFFFFu))

typedef struct {
    hg_tree tree;
    const hg_tables *by; /* NULL for a subset */
    uint64_t key;        /* of a subset */
    hg_list frontier;    /* the smallest nodes known to be odd, sorted */
    hg_list fresh, gone; /* those that join it, and those that became even */
    size_t chosen;       /* how many of the frontier are asked about, from its start on */
    hg_list guesses; /* ranks where errors may be, from digits of this round; each lies in a node of the frontier */
    hg_list how;     /* of the chosen nodes, if any is not asked by halves */
    void *memory; /* of a subset */
} hg_pass;

typedef enum { HG_ASKED_NOTHING, HG_ASKED_TOPS, HG_ASKED_HALVES, HG_ASKED_SUBSETS } hg_stage;

typedef struct {
    const hg_plan *plan;
    uint64_t *memory; /* for the next permuted pass */
    uint64_t *own, *pattern; /* pattern: errors found */
    hg_pass passes[HG_PERMUTED + HG_SUBSETS];
    size_t open, permuted;
    unsigned top; /* level of the groups of the last permuted pass */
    uint64_t keys[HG_SUBSETS]; /* of the subsets compared; `odd`: which are; `searched`: which were opened to the search */
    uint32_t odd, searched;
    size_t subsets, settled, keys_used; /* settled: how many of them were there before those asked for now */
    hg_stage asked;
    hg_list found; /* positions of cornered errors */
} hg_frame;

/* What the frames of a block use one after another. */
typedef struct {
    hg_asked asked; /* by all frames in this round */
    size_t share;   /* of odd groups in pass 0, in 2 * HG_SHARES; HG_SHARES before it is known */
    int corrects;   /* whether this side's bits are the ones that change */
    uint64_t *now;  /* as many words as the widest frame has: errors of this round, zero between rounds */
    hg_list spare, ranks;
    uint64_t folded[HG_FRAME_MAX / 64];
} hg_workspace;

/* --- cascade_pass.c: a pass and its frontier. */

/* The 64-bit words that a tree up to level `top` takes. */
size_t hg_pass_words(const hg_plan *plan, unsigned top);

/* Lays a tree, nothing known, into memory of hg_pass_words. */
void hg_lay_pass(const hg_frame *of, hg_pass *in, unsigned top, uint64_t *at);

/* Frees what a pass holds; it is all zero then. */
void hg_free_pass(const hg_frame *of, hg_pass *in);

/* Takes in a known odd node, going down where one half is empty; at level 0 an error is cornered. */
int hg_enter(hg_frame *of, hg_pass *in, unsigned level, size_t index);

/* Takes what was asked about and what became even out of the frontier, and joins the new nodes to it. */
int hg_merge(hg_workspace *with, hg_pass *in);

/* Our own parity of a node. */
static inline unsigned hg_own_parity(const hg_pass *in, size_t words, unsigned level, size_t index) {
    const hg_low *low = in->tree.low;
    if (level < 6) {
        size_t start = index << level;
        return hg_parity(low[start / 64].own << (start % 64) >> (64 - (1u << level)));
    }
    size_t first = index << (level - 6), last = first + ((size_t)1 << (level - 6));
    uint64_t fold = 0;
    if (last > words) last = words; /* beyond the end bits are zero */
    for (size_t i = first; i < last; i++) fold ^= low[i].own;
    return hg_parity(fold);
}

/* --- cascade_groups.c: groups that are compared whole. */

/* Opens the next permuted pass and asks for its groups. */
int hg_open_permuted(hg_workspace *with, hg_frame *of);
int hg_learn_tops(hg_workspace *with, hg_frame *of, hg_answers *answers);

/* Asks for the first subsets, or for new ones in place of those searched. */
int hg_ask_subsets(hg_workspace *with, hg_frame *of);
void hg_learn_subsets(hg_frame *of, hg_answers *answers);

/* Opens the first odd subset to the search; there must be one that was not. */
int hg_search_a_subset(hg_workspace *with, hg_frame *of);

/* --- cascade_search.c: within odd groups. */

/* Asks about the smallest odd nodes, if there are any: for their left halves as a rule. */
int hg_ask_halves(hg_workspace *with, hg_frame *of);
int hg_learn_halves(hg_workspace *with, hg_frame *of, hg_answers *answers);

/* --- cascade_correction.c. */

/* Corrects what is cornered, and what that corners in turn. HG_CONTRADICTION for what was right, or corrected, before. */
int hg_settle(hg_workspace *with, hg_frame *of);

#endif
