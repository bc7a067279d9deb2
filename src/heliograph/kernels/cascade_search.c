/* The search within odd groups: by left halves, by all digits of a place at once, and by the ranks to which digits led. */
#include "cascade_frame.h"

#define HALF UINT32_MAX /* how a node is asked about: by its left half, by all digits of a place, or by one rank */
#define DIGITS (UINT32_MAX - 1)

enum { AHEAD = 16 }; /* how many nodes before its turn one is fetched from memory */

/* Our own parities of the ranks of a node whose digit is 0, for each binary digit of the rank within it but the lowest:
 * of the left half, of the left quarters of both halves, and so on. */
static int note_digits(hg_workspace *with, const hg_frame *of, const hg_pass *in, unsigned level, size_t index) {
    static const uint64_t zero[6] = {0xAAAAAAAAAAAAAAAAULL, 0xCCCCCCCCCCCCCCCCULL, 0xF0F0F0F0F0F0F0F0ULL,
                                     0xFF00FF00FF00FF00ULL, 0xFFFF0000FFFF0000ULL, 0xFFFFFFFF00000000ULL};
    uint64_t *folded = with->folded;
    size_t start = index << level, first = start / 64, count = level < 6 ? 1 : (size_t)1 << (level - 6);
    for (size_t i = 0; i < count; i++) folded[i] = first + i < of->plan->words ? in->tree.low[first + i].own : 0;
    if (level < 6) folded[0] = folded[0] << (start % 64) & ~(~0ULL >> (1u << level));
    for (unsigned digit = level; --digit;) {
        uint64_t left = 0;
        if (digit < 6)
            left = folded[0] & zero[digit];
        else
            for (size_t i = 0; i < count / 2; i++) left ^= folded[i];
        if (hg_note(&with->asked, hg_parity(left))) return HG_NO_MEMORY;
        if (digit < 6) continue;
        count /= 2;
        for (size_t i = 0; i < count; i++) folded[i] ^= folded[i + count];
    }
    return HG_OK;
}

/* How a node is asked about: where digits led to a rank in it, by that; by digits if so few are left, and no set of ranks
 * with one digit the same is empty. */
static uint32_t choose_how(const hg_frame *of, const hg_pass *in, uint32_t node, int at_once) {
    for (size_t i = 0; i < in->guesses.count; i++)
        if (in->guesses.at[i] >> HG_LEVEL(node) == HG_INDEX(node)) return in->guesses.at[i];
    if (!at_once || HG_LEVEL(node) < (in->by ? HG_DIGITS : HG_DIGITS_OF_SUBSETS)) return HALF;
    return in->by && (HG_INDEX(node) + 1) << HG_LEVEL(node) > of->plan->length ? HALF : DIGITS;
}

/* Asks about the chosen nodes each in its own way. */
static int note_each(hg_workspace *with, const hg_frame *of, hg_pass *in, int at_once) {
    size_t words = of->plan->words;
    for (size_t i = 0; i < in->chosen; i++) {
        unsigned level = HG_LEVEL(in->frontier.at[i]);
        size_t index = HG_INDEX(in->frontier.at[i]);
        uint32_t how = choose_how(of, in, in->frontier.at[i], at_once);
        int code = hg_push(&in->how, how);
        if (!code)
            code = how == HALF     ? hg_note(&with->asked, hg_own_parity(in, words, level - 1, 2 * index))
                   : how == DIGITS ? note_digits(with, of, in, level, index)
                                   : hg_note(&with->asked, hg_own_parity(in, words, 0, how));
        if (code) return code;
    }
    return HG_OK;
}

/* Asks about the chosen nodes, all by their left halves. */
static int note_halves(hg_workspace *with, const hg_frame *of, const hg_pass *in) {
    size_t words = of->plan->words;
    for (size_t i = 0; i < in->chosen; i++) {
        uint32_t node = in->frontier.at[i], ahead = in->frontier.at[i + AHEAD < in->chosen ? i + AHEAD : i];
        hg_prefetch(&in->tree.low[HG_INDEX(ahead) << HG_LEVEL(ahead) >> 6]);
        if (hg_note(&with->asked, hg_own_parity(in, words, HG_LEVEL(node) - 1, 2 * HG_INDEX(node)))) return HG_NO_MEMORY;
    }
    return HG_OK;
}

int hg_ask_halves(hg_workspace *with, hg_frame *of) {
    uint32_t smallest = 32;
    size_t all = 0;
    for (size_t p = 0; p < of->open; p++) {
        const hg_list *odd = &of->passes[p].frontier;
        all += odd->count;
        if (odd->count && HG_LEVEL(odd->at[0]) < smallest) smallest = HG_LEVEL(odd->at[0]);
    }
    if (!all) return HG_OK;
    of->asked = HG_ASKED_HALVES;
    int at_once = all <= of->plan->at_once;
    uint32_t above = all <= of->plan->few ? 32 : smallest + of->plan->window + 1;
    for (size_t p = 0; p < of->open; p++) {
        hg_pass *in = &of->passes[p];
        int all_halves = !at_once && !in->guesses.count;
        in->chosen = 0;
        while (in->chosen < in->frontier.count && HG_LEVEL(in->frontier.at[in->chosen]) < above) in->chosen++;
        in->how.count = 0;
        if (all_halves ? note_halves(with, of, in) : note_each(with, of, in, at_once)) return HG_NO_MEMORY;
        in->guesses.count = 0;
    }
    return HG_OK;
}

/* Notes the first rank from one on, within a pair, of which it is not known whether it is wrong. */
static int guess(const hg_frame *of, hg_pass *in, size_t rank) {
    for (;; rank++) {
        if (rank < of->plan->length && (in->by || hg_in_subset(in->key, rank)) &&
            !hg_is_right(&in->tree, rank))
            return hg_push(&in->guesses, (uint32_t)rank);
        if (rank & 1) return HG_OK;
    }
}

/* Takes in the digits of a node: its halves, and the pair its error is in if there is only one. The next rounds ask which
 * one of the pair is wrong, so no more than a guess is made of it here. */
static int learn_digits(hg_frame *of, hg_pass *in, unsigned level, size_t index, hg_answers *answers) {
    size_t rank = index << level;
    for (unsigned digit = level; --digit;) rank |= (size_t)(hg_next(answers) ^ 1) << digit;
    size_t half = rank >> (level - 1);
    hg_know_halves(&in->tree, level - 1, 2 * index, !(half & 1));
    if (guess(of, in, rank)) return HG_NO_MEMORY;
    return hg_enter(of, in, level - 1, half);
}

/* Takes in whether a rank is wrong: if so, it is cornered; if not, the other one of the pair may be, or else its node has
 * three errors or more. */
static int learn_guess(hg_frame *of, hg_pass *in, uint32_t node, uint32_t rank, unsigned odd) {
    hg_know_rank(&in->tree, rank, odd);
    if (!odd && !(rank & 1) && guess(of, in, rank + 1)) return HG_NO_MEMORY;
    if (!odd) return hg_enter(of, in, HG_LEVEL(node), HG_INDEX(node));
    return hg_push(&of->found, (uint32_t)(in->by ? hg_position(of->plan, in->by, rank) : rank));
}

/* Takes in left halves, where all were asked for by these. */
static int learn_all_halves(hg_frame *of, hg_pass *in, hg_answers *answers) {
    if (hg_grow(&in->fresh, in->fresh.count + in->chosen)) return HG_NO_MEMORY;
    for (size_t i = 0; i < in->chosen; i++) {
        uint32_t node = in->frontier.at[i], ahead = in->frontier.at[i + AHEAD < in->chosen ? i + AHEAD : i];
        unsigned left = hg_next(answers), level = HG_LEVEL(node) - 1;
        size_t index = 2 * HG_INDEX(node);
        hg_prefetch_node(&in->tree, HG_LEVEL(ahead), HG_INDEX(ahead));
        hg_know_halves(&in->tree, level, index, left);
        index += !left;
        if (level && in->by && (index + 1) << level <= of->plan->length)
            in->fresh.at[in->fresh.count++] = HG_NODE(level, index); /* nothing of it is empty */
        else if (hg_enter(of, in, level, index))
            return HG_NO_MEMORY;
    }
    return HG_OK;
}

static int learn_each(hg_frame *of, hg_pass *in, hg_answers *answers) {
    for (size_t i = 0; i < in->chosen; i++) {
        uint32_t node = in->frontier.at[i], how = in->how.at[i];
        int code = HG_OK;
        if (how == HALF) {
            unsigned left = hg_next(answers);
            hg_know_halves(&in->tree, HG_LEVEL(node) - 1, 2 * HG_INDEX(node), left);
            code = hg_enter(of, in, HG_LEVEL(node) - 1, 2 * HG_INDEX(node) + !left);
        } else if (how == DIGITS) {
            code = learn_digits(of, in, HG_LEVEL(node), HG_INDEX(node), answers);
        } else {
            code = learn_guess(of, in, node, how, hg_next(answers));
        }
        if (code) return code;
    }
    return HG_OK;
}

int hg_learn_halves(hg_workspace *with, hg_frame *of, hg_answers *answers) {
    for (size_t p = 0; p < of->open; p++) {
        hg_pass *in = &of->passes[p];
        if (!in->chosen) continue;
        if (in->how.count ? learn_each(of, in, answers) : learn_all_halves(of, in, answers)) return HG_NO_MEMORY;
        if (hg_merge(with, in)) return HG_NO_MEMORY;
    }
    return HG_OK;
}
