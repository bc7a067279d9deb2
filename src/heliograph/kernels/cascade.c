#include "cascade.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "cascade_plan.h"
#include "cascade_tree.h"
#include "wipe.h"
#include "words.h"

/* Nodes are level << 27 | index, in ascending order of size, then place; HG_FRAME_MAX keeps both in 32 bits. */
#define NODE(level, index) ((uint32_t)(level) << 27 | (uint32_t)(index))
#define LEVEL(node) ((node) >> 27)
#define INDEX(node) ((size_t)((node) & 0x7FFFFFFu))

#define NOWHERE UINT32_MAX
#define HALF UINT32_MAX /* how a node is asked about: by its left half, by all digits of a place, or by one rank */
#define DIGITS (UINT32_MAX - 1)

enum { AHEAD = 16, SHORT = 16 }; /* how many nodes before its turn one is fetched from memory */

typedef struct {
    uint32_t *at;
    size_t count, room;
} list;

typedef struct {
    hg_tree tree;
    const hg_tables *by; /* NULL for a subset */
    uint64_t key;        /* of a subset */
    list frontier;       /* the smallest nodes known to be odd, sorted */
    list fresh, gone;    /* those that join it, and those that became even */
    size_t chosen;       /* how many of the frontier are asked about, from its start on */
    list guesses; /* ranks where errors may be, from digits of this round; each lies in a node of the frontier */
    list how;     /* of the chosen nodes, if any is not asked by halves */
    void *memory; /* of a subset */
} pass;

enum stage { NOTHING, TOPS, HALVES, SUBSETS };

typedef struct {
    const hg_plan *plan;
    uint64_t *memory; /* for the next permuted pass */
    uint64_t *own, *pattern; /* pattern: errors found */
    pass passes[HG_PERMUTED + HG_SUBSETS];
    size_t open, permuted;
    unsigned top; /* level of the groups of the last permuted pass */
    uint64_t keys[HG_SUBSETS]; /* of the subsets compared; `odd`: which are; `searched`: which were opened to the search */
    uint32_t odd, searched;
    size_t subsets, settled, keys_used; /* settled: how many of them were there before those asked for now */
    enum stage asked;
    list found; /* positions of cornered errors */
} frame;

struct hg_block {
    size_t length, frames, stride; /* stride: words from one frame to the next */
    size_t share;                  /* of odd groups in pass 0, in 2 * HG_SHARES; HG_SHARES before it is known */
    int corrects, spoilt;
    uint64_t *arena, *own, *pattern, *now; /* now: errors of this round and frame, else zero */
    frame *at;
    uint32_t *active; /* frames that are not at their end */
    size_t actives;
    uint8_t *asked, *before; /* in this round and in the last one */
    size_t count, room, room_before; /* bits */
    uint64_t pending;
    list spare, ranks;
    uint64_t folded[HG_FRAME_MAX / 64];
};

static int grow(list *to, size_t room) {
    if (room <= to->room) return HG_OK;
    if (room < 2 * to->room) room = 2 * to->room;
    if (room < 32) room = 32;
    uint32_t *at = realloc(to->at, room * sizeof *at);
    if (!at) return HG_NO_MEMORY;
    to->at = at;
    to->room = room;
    return HG_OK;
}

static inline int push(list *to, uint32_t item) {
    if (to->count == to->room && grow(to, to->count + 1)) return HG_NO_MEMORY;
    to->at[to->count++] = item;
    return HG_OK;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sort(list *of) {
    size_t i = 1;
    while (i < of->count && of->at[i - 1] <= of->at[i]) i++;
    if (i >= of->count) return;
    if (of->count > 48) {
        qsort(of->at, of->count, sizeof *of->at, ascending);
        return;
    }
    for (; i < of->count; i++) {
        uint32_t item = of->at[i];
        size_t j = i;
        for (; j && of->at[j - 1] > item; j--) of->at[j] = of->at[j - 1];
        of->at[j] = item;
    }
}

/* --- What is asked: a stream of bits. */

static int more_room(hg_block *block) {
    size_t room = 2 * block->count + 4096;
    uint8_t *asked = realloc(block->asked, room / 8);
    if (!asked) return HG_NO_MEMORY;
    block->asked = asked;
    block->room = room / 64 * 64;
    return HG_OK;
}

static inline int note(hg_block *block, unsigned parity) {
    block->pending = block->pending << 1 | parity;
    if (++block->count % 64 == 0) {
        if (block->count > block->room && more_room(block)) return HG_NO_MEMORY;
        hg_store(block->asked + block->count / 8 - 8, block->pending);
    }
    return HG_OK;
}

static int flush(hg_block *block) { /* pads with zeros to the end of a byte */
    size_t whole = block->count / 64 * 64, left = block->count - whole;
    if (whole + 64 > block->room && more_room(block)) return HG_NO_MEMORY;
    if (left) hg_store(block->asked + whole / 8, block->pending << (64 - left));
    return HG_OK;
}

typedef struct { /* of differences */
    const uint8_t *bytes;
    size_t at;
} stream;

static inline unsigned next(stream *of) {
    size_t at = of->at++;
    return (unsigned)(of->bytes[at / 8] >> (7 - at % 8)) & 1u;
}

/* --- Own parities. */

static inline unsigned own_parity(const pass *in, size_t words, unsigned level, size_t index) {
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

/* Whether no position of the pass lies in a node. Of subsets this happens in small nodes, and in those of any size that
   reach beyond the end of the frame: the search must never go there, whatever a peer's parities say. */
static inline unsigned is_empty(const frame *of, const pass *in, unsigned level, size_t index) {
    size_t start = index << level, length = of->plan->length;
    if (start >= length) return 1;
    if (in->by) return 0;
    if (level > 6) {
        if ((index + 1) << level <= length) return 0;
        for (size_t i = start / 64; i < of->plan->words; i++) {
            uint64_t some = hg_subset_word(in->key, i);
            if (length - i * 64 < 64) some &= ~(~0ULL >> (length - i * 64));
            if (some) return 0;
        }
        return 1;
    }
    uint64_t word = hg_subset_word(in->key, start / 64);
    size_t here = length - start / 64 * 64; /* positions from this word on */
    if (here < 64) word &= ~(~0ULL >> here);
    word <<= start % 64;
    return (level == 6 ? word : word >> (64 - (1u << level))) == 0;
}

/* --- Passes. */

/* Own bits stand in the leaves; the rest of a tree tells what the peer was asked, and heard. */
static void free_pass(const frame *of, pass *in) {
    if (in->tree.low) hg_wipe(in->tree.low, of->plan->words * sizeof(hg_low));
    free(in->memory), free(in->frontier.at), free(in->fresh.at), free(in->gone.at), free(in->guesses.at), free(in->how.at);
    memset(in, 0, sizeof *in);
}

/* The 64-bit words that a tree up to level `top` takes. */
static size_t pass_words(const hg_plan *plan, unsigned top) {
    size_t all = plan->words * (sizeof(hg_low) / 8);
    for (unsigned t = 1; top && t <= hg_tier(top); t++)
        all += (((plan->length - 1) >> (6 * t + 6)) + 1) * (sizeof(hg_heap) / 8);
    return all;
}

/* Lays a tree, nothing known, into memory. */
static void lay_pass(const frame *of, pass *in, unsigned top, uint64_t *at) {
    const hg_plan *plan = of->plan;
    memset(at, 0, pass_words(plan, top) * sizeof *at);
    in->tree.tiers = hg_tier(top) + 1;
    in->tree.low = (hg_low *)at, at += plan->words * (sizeof(hg_low) / 8);
    for (unsigned t = 1; t < in->tree.tiers; t++) {
        in->tree.high[t] = (hg_heap *)at;
        at += (((plan->length - 1) >> (6 * t + 6)) + 1) * (sizeof(hg_heap) / 8);
    }
}

/* Takes in a known odd node, going down where one half is empty; at level 0 an error is cornered. */
static int enter(frame *of, pass *in, unsigned level, size_t index) {
    if (level && in->by && (index + 1) << level <= of->plan->length) return push(&in->fresh, NODE(level, index));
    for (; level; level--) {
        unsigned right = is_empty(of, in, level - 1, 2 * index);
        if (!right && !is_empty(of, in, level - 1, 2 * index + 1)) return push(&in->fresh, NODE(level, index));
        index = 2 * index + right;
        hg_know(&in->tree, level - 1, index, 1);
    }
    return push(&of->found, (uint32_t)(in->by ? hg_position(of->plan, in->by, index) : index));
}

static void once_each(list *of) { /* sorted, each node once */
    size_t count = 0;
    sort(of);
    for (size_t i = 0; i < of->count; i++)
        if (!count || of->at[count - 1] != of->at[i]) of->at[count++] = of->at[i];
    of->count = count;
}

/* Takes what was asked about and what became even out of the frontier, and joins the new nodes to it. */
static int merge(hg_block *block, pass *in) {
    list *out = &block->spare, *old = &in->frontier, *new = &in->fresh, *gone = &in->gone;
    if (!in->chosen && !new->count && !gone->count) return HG_OK;
    once_each(new);
    if (in->chosen == old->count) { /* as a rule */
        list swap = *old;
        *old = *new, *new = swap;
    } else {
        sort(gone);
        if (grow(out, old->count + new->count)) return HG_NO_MEMORY;
        size_t count = 0;
        for (size_t i = in->chosen, j = 0, k = 0; i < old->count || j < new->count;) {
            uint32_t node = j == new->count || (i < old->count && old->at[i] < new->at[j]) ? old->at[i] : new->at[j];
            i += i < old->count && old->at[i] == node, j += j < new->count && new->at[j] == node;
            while (k < gone->count && gone->at[k] < node) k++;
            if (k == gone->count || gone->at[k] != node) out->at[count++] = node;
        }
        out->count = count;
        list swap = *old;
        *old = *out, *out = swap;
    }
    new->count = gone->count = in->chosen = 0;
    return HG_OK;
}

/* --- Questions. */

static inline size_t tops_of(const frame *of) { return ((of->plan->length - 1) >> of->top) + 1; }

/* Pass 0 leaves an even number of errors: the last group of a later pass follows from the others. */
static inline size_t tops_asked(const frame *of) { return tops_of(of) - (of->permuted > 1); }

static int imply_last_top(hg_block *block, frame *of) {
    pass *in = &of->passes[of->permuted - 1];
    unsigned top = of->top, odd = 0;
    size_t last = tops_of(of) - 1;
    for (size_t i = 0; i < last; i++) odd ^= (unsigned)hg_is_odd(&in->tree, top, i);
    hg_know(&in->tree, top, last, odd);
    if (odd && enter(of, in, top, last)) return HG_NO_MEMORY;
    return merge(block, in);
}

/* Opens the next permuted pass and asks for its groups. */
static int open_permuted(hg_block *block, frame *of) {
    pass *in = &of->passes[of->open];
    const hg_plan *plan = of->plan;
    unsigned top = of->permuted == 0 ? plan->first : of->permuted == 1 ? plan->second[block->share] : plan->third;
    of->top = top;
    lay_pass(of, in, top, of->memory);
    of->memory += pass_words(plan, top);
    in->by = &plan->tables[of->permuted];
    of->open++, of->permuted++;
    hg_shuffle_bits(plan, in->by, of->own, &in->tree.low->own, sizeof(hg_low) / 8);
    size_t count = tops_asked(of);
    if (!count) return imply_last_top(block, of);
    of->asked = TOPS;
    for (size_t i = 0; i < count; i++)
        if (note(block, own_parity(in, plan->words, top, i))) return HG_NO_MEMORY;
    return HG_OK;
}

static int learn_tops(hg_block *block, frame *of, stream *answers) {
    pass *in = &of->passes[of->permuted - 1];
    unsigned top = of->top;
    size_t count = tops_asked(of);
    for (size_t i = 0; i < count; i++) {
        unsigned odd = next(answers);
        hg_know(&in->tree, top, i, odd);
        if (odd && enter(of, in, top, i)) return HG_NO_MEMORY;
    }
    int code = merge(block, in);
    return !code && count < tops_of(of) ? imply_last_top(block, of) : code;
}

/* Our own parities of the ranks of a node whose digit is 0, for each binary digit of the rank within it but the lowest:
 * of the left half, of the left quarters of both halves, and so on. */
static int note_digits(hg_block *block, const frame *of, const pass *in, unsigned level, size_t index) {
    static const uint64_t zero[6] = {0xAAAAAAAAAAAAAAAAULL, 0xCCCCCCCCCCCCCCCCULL, 0xF0F0F0F0F0F0F0F0ULL,
                                     0xFF00FF00FF00FF00ULL, 0xFFFF0000FFFF0000ULL, 0xFFFFFFFF00000000ULL};
    uint64_t *folded = block->folded;
    size_t start = index << level, first = start / 64, count = level < 6 ? 1 : (size_t)1 << (level - 6);
    for (size_t i = 0; i < count; i++) folded[i] = first + i < of->plan->words ? in->tree.low[first + i].own : 0;
    if (level < 6) folded[0] = folded[0] << (start % 64) & ~(~0ULL >> (1u << level));
    for (unsigned digit = level; --digit;) {
        uint64_t left = 0;
        if (digit < 6)
            left = folded[0] & zero[digit];
        else
            for (size_t i = 0; i < count / 2; i++) left ^= folded[i];
        if (note(block, hg_parity(left))) return HG_NO_MEMORY;
        if (digit < 6) continue;
        count /= 2;
        for (size_t i = 0; i < count; i++) folded[i] ^= folded[i + count];
    }
    return HG_OK;
}

/* How a node is asked about: where digits led to a rank in it, by that; by digits if so few are left, and no set of ranks
 * with one digit the same is empty. */
static uint32_t choose_how(const frame *of, const pass *in, uint32_t node, int at_once) {
    for (size_t i = 0; i < in->guesses.count; i++)
        if (in->guesses.at[i] >> LEVEL(node) == INDEX(node)) return in->guesses.at[i];
    if (!at_once || LEVEL(node) < (in->by ? HG_DIGITS : HG_DIGITS_OF_SUBSETS)) return HALF;
    return in->by && (INDEX(node) + 1) << LEVEL(node) > of->plan->length ? HALF : DIGITS;
}

/* Asks about the chosen nodes each in its own way. */
static int note_each(hg_block *block, const frame *of, pass *in, int at_once) {
    size_t words = of->plan->words;
    for (size_t i = 0; i < in->chosen; i++) {
        unsigned level = LEVEL(in->frontier.at[i]);
        size_t index = INDEX(in->frontier.at[i]);
        uint32_t how = choose_how(of, in, in->frontier.at[i], at_once);
        int code = push(&in->how, how);
        if (!code)
            code = how == HALF     ? note(block, own_parity(in, words, level - 1, 2 * index))
                   : how == DIGITS ? note_digits(block, of, in, level, index)
                                   : note(block, own_parity(in, words, 0, how));
        if (code) return code;
    }
    return HG_OK;
}

/* Asks about the chosen nodes, all by their left halves. */
static int note_halves(hg_block *block, const frame *of, const pass *in) {
    size_t words = of->plan->words;
    for (size_t i = 0; i < in->chosen; i++) {
        uint32_t node = in->frontier.at[i], ahead = in->frontier.at[i + AHEAD < in->chosen ? i + AHEAD : i];
        hg_prefetch(&in->tree.low[INDEX(ahead) << LEVEL(ahead) >> 6]);
        if (note(block, own_parity(in, words, LEVEL(node) - 1, 2 * INDEX(node)))) return HG_NO_MEMORY;
    }
    return HG_OK;
}

/* Asks about the smallest odd nodes, if there are any: for their left halves as a rule. */
static int ask_halves(hg_block *block, frame *of) {
    uint32_t smallest = 32;
    size_t all = 0;
    for (size_t p = 0; p < of->open; p++) {
        const list *odd = &of->passes[p].frontier;
        all += odd->count;
        if (odd->count && LEVEL(odd->at[0]) < smallest) smallest = LEVEL(odd->at[0]);
    }
    if (!all) return HG_OK;
    of->asked = HALVES;
    int at_once = all <= of->plan->at_once;
    uint32_t above = all <= of->plan->few ? 32 : smallest + of->plan->window + 1;
    for (size_t p = 0; p < of->open; p++) {
        pass *in = &of->passes[p];
        int all_halves = !at_once && !in->guesses.count;
        in->chosen = 0;
        while (in->chosen < in->frontier.count && LEVEL(in->frontier.at[in->chosen]) < above) in->chosen++;
        in->how.count = 0;
        if (all_halves ? note_halves(block, of, in) : note_each(block, of, in, at_once)) return HG_NO_MEMORY;
        in->guesses.count = 0;
    }
    return HG_OK;
}

/* Notes the first rank from one on, within a pair, of which it is not known whether it is wrong. */
static int guess(const frame *of, pass *in, size_t rank) {
    for (;; rank++) {
        if (rank < of->plan->length && (in->by || hg_in_subset(in->key, rank)) &&
            !hg_is_right(&in->tree, rank))
            return push(&in->guesses, (uint32_t)rank);
        if (rank & 1) return HG_OK;
    }
}

/* Takes in the digits of a node: its halves, and the pair its error is in if there is only one. The next rounds ask which
 * one of the pair is wrong, so no more than a guess is made of it here. */
static int learn_digits(frame *of, pass *in, unsigned level, size_t index, stream *answers) {
    size_t rank = index << level;
    for (unsigned digit = level; --digit;) rank |= (size_t)(next(answers) ^ 1) << digit;
    size_t half = rank >> (level - 1);
    hg_know_halves(&in->tree, level - 1, 2 * index, !(half & 1));
    if (guess(of, in, rank)) return HG_NO_MEMORY;
    return enter(of, in, level - 1, half);
}

/* Takes in whether a rank is wrong: if so, it is cornered; if not, the other one of the pair may be, or else its node has
 * three errors or more. */
static int learn_guess(frame *of, pass *in, uint32_t node, uint32_t rank, unsigned odd) {
    hg_know_rank(&in->tree, rank, odd);
    if (!odd && !(rank & 1) && guess(of, in, rank + 1)) return HG_NO_MEMORY;
    if (!odd) return enter(of, in, LEVEL(node), INDEX(node));
    return push(&of->found, (uint32_t)(in->by ? hg_position(of->plan, in->by, rank) : rank));
}

/* Takes in left halves, where all were asked for by these. */
static int learn_all_halves(frame *of, pass *in, stream *answers) {
    if (grow(&in->fresh, in->fresh.count + in->chosen)) return HG_NO_MEMORY;
    for (size_t i = 0; i < in->chosen; i++) {
        uint32_t node = in->frontier.at[i], ahead = in->frontier.at[i + AHEAD < in->chosen ? i + AHEAD : i];
        unsigned left = next(answers), level = LEVEL(node) - 1;
        size_t index = 2 * INDEX(node);
        hg_prefetch_node(&in->tree, LEVEL(ahead), INDEX(ahead));
        hg_know_halves(&in->tree, level, index, left);
        index += !left;
        if (level && in->by && (index + 1) << level <= of->plan->length)
            in->fresh.at[in->fresh.count++] = NODE(level, index); /* nothing of it is empty */
        else if (enter(of, in, level, index))
            return HG_NO_MEMORY;
    }
    return HG_OK;
}

static int learn_each(frame *of, pass *in, stream *answers) {
    for (size_t i = 0; i < in->chosen; i++) {
        uint32_t node = in->frontier.at[i], how = in->how.at[i];
        int code = HG_OK;
        if (how == HALF) {
            unsigned left = next(answers);
            hg_know_halves(&in->tree, LEVEL(node) - 1, 2 * INDEX(node), left);
            code = enter(of, in, LEVEL(node) - 1, 2 * INDEX(node) + !left);
        } else if (how == DIGITS) {
            code = learn_digits(of, in, LEVEL(node), INDEX(node), answers);
        } else {
            code = learn_guess(of, in, node, how, next(answers));
        }
        if (code) return code;
    }
    return HG_OK;
}

static int learn_halves(hg_block *block, frame *of, stream *answers) {
    for (size_t p = 0; p < of->open; p++) {
        pass *in = &of->passes[p];
        if (!in->chosen) continue;
        if (in->how.count ? learn_each(of, in, answers) : learn_all_halves(of, in, answers)) return HG_NO_MEMORY;
        if (merge(block, in)) return HG_NO_MEMORY;
    }
    return HG_OK;
}

static int trivial(const frame *of, uint64_t key) { /* the parity of nothing and of everything is known */
    size_t length = of->plan->length, inside = 0;
    if (length >= 128) return 0;
    for (size_t i = 0; i < length; i++) inside += hg_in_subset(key, i);
    return inside == 0 || inside == length;
}

/* Asks for the first subsets, or for new ones in place of those searched. The others are all even, and what was corrected
 * did not depend on them: they tell as much of what may be left as new ones would. */
static int ask_subsets(hg_block *block, frame *of) {
    size_t kept = 0, wanted = of->keys_used ? 0 : HG_SUBSETS;
    while (of->open > of->permuted) free_pass(of, &of->passes[--of->open]);
    for (size_t i = 0; i < of->subsets; i++) {
        if (of->searched >> i & 1)
            wanted++;
        else
            of->keys[kept++] = of->keys[i];
    }
    if (of->keys_used + wanted > HG_KEYS) return HG_EXHAUSTED;
    of->subsets = of->settled = kept;
    of->odd = of->searched = 0;
    uint64_t folds[HG_SUBSETS] = {0};
    if (!of->keys_used) {
        for (size_t j = 0; j < of->plan->words; j++)
            for (size_t i = 0; i < HG_SUBSETS; i++) folds[i] ^= of->plan->masks[j][i] & of->own[j];
    } else {
        for (size_t i = 0; i < wanted; i++)
            for (size_t j = 0; j < of->plan->words; j++)
                folds[i] ^= hg_subset_word(of->plan->keys[of->keys_used + i], j) & of->own[j];
    }
    for (size_t i = 0; i < wanted; i++) {
        uint64_t key = of->plan->keys[of->keys_used++];
        if (trivial(of, key)) continue;
        if (note(block, hg_parity(folds[i]))) return HG_NO_MEMORY;
        of->keys[of->subsets++] = key;
        of->asked = SUBSETS;
    }
    return HG_OK;
}

static void learn_subsets(frame *of, stream *answers) {
    for (size_t i = of->settled; i < of->subsets; i++) of->odd |= (uint32_t)next(answers) << i;
}

/* Opens the first odd subset to the search: the error found most often settles others too. */
static int search_a_subset(hg_block *block, frame *of) {
    unsigned top = 0;
    size_t i = 0;
    while (!((of->odd & ~of->searched) >> i & 1)) i++;
    while (((size_t)1 << top) < of->plan->length) top++;
    pass *in = &of->passes[of->open];
    of->searched |= 1u << i;
    in->memory = malloc(pass_words(of->plan, top) * sizeof(uint64_t));
    in->key = of->keys[i];
    of->open++;
    if (!in->memory) return HG_NO_MEMORY;
    lay_pass(of, in, top, in->memory);
    for (size_t j = 0; j < of->plan->words; j++) in->tree.low[j].own = of->own[j] & hg_subset_word(in->key, j);
    hg_know(&in->tree, top, 0, 1);
    if (enter(of, in, top, 0)) return HG_NO_MEMORY;
    return merge(block, in);
}

/* --- Corrections. */

/* Flips the corrected positions in the frame and in every pass, in two sweeps: first where each lies, then the flips, so
 * that memory is fetched meanwhile. `ranks`: open * count of them, NOWHERE outside a subset. */
static void correct(const hg_block *block, frame *of, const list *found, uint32_t *ranks) {
    for (size_t p = 0; p < of->open; p++) {
        const pass *in = &of->passes[p];
        for (size_t i = 0; i < found->count; i++) {
            size_t position = found->at[i], rank = in->by ? hg_rank(of->plan, in->by, position) : position;
            hg_prefetch(&in->tree.low[rank / 64]);
            ranks[p * found->count + i] = in->by || hg_in_subset(in->key, position) ? (uint32_t)rank : NOWHERE;
        }
    }
    for (size_t i = 0; i < found->count; i++) {
        hg_flip(of->pattern, found->at[i]);
        if (block->corrects) hg_flip(of->own, found->at[i]);
        for (size_t j = 0; j < of->subsets; j++) of->odd ^= (uint32_t)hg_in_subset(of->keys[j], found->at[i]) << j;
    }
    for (size_t p = 0; p < of->open; p++) {
        pass *in = &of->passes[p];
        for (size_t i = 0; i < found->count; i++) {
            uint32_t rank = ranks[p * found->count + i];
            if (rank == NOWHERE) continue;
            hg_flip_above(&in->tree, rank);
            if (block->corrects) in->tree.low[rank / 64].own ^= 1ULL << (63 - rank % 64);
        }
    }
}

/* Lets the smallest known node above each correction join the frontier if it is odd now, and leave it if it is not. */
static int look_again(frame *of, size_t count, const uint32_t *ranks) {
    for (size_t p = 0; p < of->open; p++) {
        pass *in = &of->passes[p];
        for (size_t i = 0; i < count; i++) {
            uint32_t rank = ranks[p * count + i];
            if (rank == NOWHERE) continue;
            if (hg_is_right(&in->tree, rank)) return HG_CONTRADICTION; /* it was right before, and would now be wrong */
            unsigned level = hg_lowest_known(&in->tree, rank);
            if (!level) continue;
            if (hg_is_odd(&in->tree, level, rank >> level) ? enter(of, in, level, rank >> level)
                                                           : push(&in->gone, NODE(level, rank >> level)))
                return HG_NO_MEMORY;
        }
        for (size_t i = 0; i < count; i++)
            if (ranks[p * count + i] != NOWHERE) hg_know_rank(&in->tree, ranks[p * count + i], 0);
    }
    return HG_OK;
}

/* Whether two passes have found the same error in this round: among the first few by looking, then by a bitmap. */
static int seen(uint64_t *now, const uint32_t *before, size_t count, uint32_t position) {
    if (count < SHORT) {
        for (size_t i = 0; i < count; i++)
            if (before[i] == position) return 1;
        return 0;
    }
    if (count == SHORT && !hg_bit(now, before[0]))
        for (size_t i = 0; i < count; i++) hg_flip(now, before[i]);
    if (hg_bit(now, position)) return 1;
    hg_flip(now, position);
    return 0;
}

static int settle(hg_block *block, frame *of) {
    uint64_t *now = block->now;
    while (of->found.count) {
        list round = of->found;
        size_t count = 0;
        int code = HG_OK;
        of->found = (list){0};
        for (size_t i = 0; i < round.count; i++)
            if (!seen(now, round.at, count, round.at[i])) round.at[count++] = round.at[i];
        for (size_t i = 0; i < count; i++) {
            if (count >= SHORT && hg_bit(now, round.at[i])) hg_flip(now, round.at[i]);
            if (hg_bit(of->pattern, round.at[i])) code = HG_CONTRADICTION; /* corrected before, now wrong again */
        }
        round.count = count;
        if (!code) code = grow(&block->ranks, of->open * count);
        if (!code) correct(block, of, &round, block->ranks.at);
        if (!code) code = look_again(of, count, block->ranks.at);
        if (of->found.room)
            free(round.at);
        else
            round.count = 0, of->found = round;
        for (size_t p = 0; p < of->open && !code; p++) code = merge(block, &of->passes[p]);
        if (code) return code;
    }
    return HG_OK;
}

/* --- A frame, and all of them. */

/* Does everything that needs no further exchange, then asks; nothing is asked at the end. */
static int proceed(hg_block *block, frame *of) {
    of->asked = NOTHING;
    for (;;) {
        int code = settle(block, of);
        if (!code) code = ask_halves(block, of);
        if (code || of->asked) return code;
        /* Every group known so far is even: widen the view. */
        if (of->odd & ~of->searched)
            code = search_a_subset(block, of);
        else if (of->permuted < HG_PERMUTED)
            code = open_permuted(block, of);
        else if (!of->keys_used || of->searched)
            return ask_subsets(block, of);
        else
            return HG_OK; /* a whole number of subsets that are even, and in which nothing was searched */
        if (code || of->asked) return code;
    }
}

hg_block *hg_block_new(const uint8_t *bits, size_t length, const hg_plan *plan, const hg_plan *last, int corrects) {
    if (!length || length > HG_LENGTH_MAX || (last->length != length && plan->length % 64)) return NULL;
    size_t frames = length > last->length ? (length - last->length) / plan->length + 1 : 1;
    if ((frames - 1) * plan->length + last->length != length) return NULL;
    hg_block *block = calloc(1, sizeof *block);
    if (!block) return NULL;
    size_t words = hg_word_count(length);
    block->length = length;
    block->frames = frames;
    block->stride = plan->length / 64;
    block->share = HG_SHARES;
    block->corrects = corrects;
    size_t each = 0, rest = 0;
    each = pass_words(plan, plan->first) + pass_words(plan, plan->highest) + pass_words(plan, plan->third);
    rest = pass_words(last, last->first) + pass_words(last, last->highest) + pass_words(last, last->third);
    size_t widest = last->words > plan->words ? last->words : plan->words;
    block->arena = hg_arena((2 * words + widest + (frames - 1) * each + rest) * sizeof(uint64_t));
    block->at = calloc(frames, sizeof *block->at);
    block->active = malloc(frames * sizeof *block->active);
    if (!block->arena || !block->at || !block->active) {
        hg_block_free(block);
        return NULL;
    }
    block->own = block->arena;
    block->pattern = block->own + words;
    block->now = block->pattern + words;
    hg_load_bits(block->own, bits, length);
    memset(block->pattern, 0, (words + widest) * sizeof(uint64_t));
    for (size_t f = 0; f < frames; f++) {
        block->at[f].plan = f + 1 < frames ? plan : last;
        block->at[f].own = block->own + f * block->stride;
        block->at[f].pattern = block->pattern + f * block->stride;
        block->at[f].memory = block->now + widest + f * each;
        block->active[block->actives++] = (uint32_t)f;
    }
    return block;
}

void hg_block_free(hg_block *block) {
    if (!block) return;
    for (size_t f = 0; block->at && f < block->frames; f++) {
        for (size_t p = 0; p < HG_PERMUTED + HG_SUBSETS; p++) free_pass(&block->at[f], &block->at[f].passes[p]);
        free(block->at[f].found.at);
    }
    if (block->own) hg_wipe(block->own, 2 * hg_word_count(block->length) * sizeof(uint64_t)); /* and the pattern */
    free(block->arena), free(block->at), free(block->active), free(block->asked), free(block->before);
    free(block->spare.at), free(block->ranks.at);
    hg_wipe_and_free(block, sizeof *block); /* it has folded bits */
}

static int spoil(hg_block *block, int code) {
    block->spoilt = 1;
    block->count = 0;
    return code;
}

int hg_block_begin(hg_block *block) {
    if (block->spoilt || block->at[0].open) return HG_MISUSE;
    block->count = 0;
    for (size_t f = 0; f < block->frames; f++) {
        int code = proceed(block, &block->at[f]);
        if (code) return spoil(block, code);
    }
    return flush(block) ? spoil(block, HG_NO_MEMORY) : HG_OK;
}

/* How many groups of pass 0, which alone is asked for first, are odd: what pass 1 is chosen by, for all frames alike. */
static size_t odd_share(const hg_block *block, const uint8_t *parities) {
    size_t odd = 0;
    for (size_t i = 0; i < (block->count + 7) / 8; i++)
        for (unsigned left = block->asked[i] ^ parities[i]; left; left &= left - 1) odd++;
    size_t share = odd * 2 * HG_SHARES / block->count;
    return share < HG_SHARES ? share : HG_SHARES - 1;
}

int hg_block_learn(hg_block *block, const uint8_t *parities) {
    if (block->spoilt || !block->count) return HG_MISUSE;
    if (block->share == HG_SHARES) block->share = odd_share(block, parities);
    uint8_t *differences = block->asked; /* what comes next is written elsewhere */
    size_t room = block->room, actives = 0;
    for (size_t i = 0; i < (block->count + 7) / 8; i++) differences[i] ^= parities[i];
    stream answers = {differences, 0};
    block->asked = block->before, block->room = block->room_before;
    block->before = differences, block->room_before = room;
    block->count = 0;
    int code = HG_OK;
    for (size_t i = 0; i < block->actives && !code; i++) {
        frame *of = &block->at[block->active[i]];
        switch (of->asked) {
        case TOPS: code = learn_tops(block, of, &answers); break;
        case HALVES: code = learn_halves(block, of, &answers); break;
        case SUBSETS: learn_subsets(of, &answers); break;
        case NOTHING: break;
        }
        if (!code) code = proceed(block, of);
        if (of->asked) block->active[actives++] = block->active[i];
    }
    block->actives = actives;
    if (!code) code = flush(block);
    return code ? spoil(block, code) : HG_OK;
}

size_t hg_count(const hg_block *block) { return block->count; }

const uint8_t *hg_parities(const hg_block *block) { return block->asked; }

void hg_block_bits(const hg_block *block, uint8_t *bytes) { hg_store_bits(bytes, block->own, block->length); }

void hg_block_pattern(const hg_block *block, uint8_t *bytes) { hg_store_bits(bytes, block->pattern, block->length); }
