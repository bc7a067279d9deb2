/* Corrections: what one flips, and which groups it makes odd or even. */
#include "cascade_frame.h"

#include <stdlib.h>

#define NOWHERE UINT32_MAX /* the rank of a position outside a subset */

enum { SHORT = 16 }; /* so many errors are told apart by looking at each */

/* Flips the corrected positions in the frame and in every pass, in two sweeps: first where each lies, then the flips, so
 * that memory is fetched meanwhile. `ranks`: open * count of them, NOWHERE outside a subset. */
static void correct(const hg_workspace *with, hg_frame *of, const hg_list *found, uint32_t *ranks) {
    for (size_t p = 0; p < of->open; p++) {
        const hg_pass *in = &of->passes[p];
        for (size_t i = 0; i < found->count; i++) {
            size_t position = found->at[i], rank = in->by ? hg_rank(of->plan, in->by, position) : position;
            hg_prefetch(&in->tree.low[rank / 64]);
            ranks[p * found->count + i] = in->by || hg_in_subset(in->key, position) ? (uint32_t)rank : NOWHERE;
        }
    }
    for (size_t i = 0; i < found->count; i++) {
        hg_flip(of->pattern, found->at[i]);
        if (with->corrects) hg_flip(of->own, found->at[i]);
        for (size_t j = 0; j < of->subsets; j++) of->odd ^= (uint32_t)hg_in_subset(of->keys[j], found->at[i]) << j;
    }
    for (size_t p = 0; p < of->open; p++) {
        hg_pass *in = &of->passes[p];
        for (size_t i = 0; i < found->count; i++) {
            uint32_t rank = ranks[p * found->count + i];
            if (rank == NOWHERE) continue;
            hg_flip_above(&in->tree, rank);
            if (with->corrects) in->tree.low[rank / 64].own ^= 1ULL << (63 - rank % 64);
        }
    }
}

/* Lets the smallest known node above each correction join the frontier if it is odd now, and leave it if it is not. */
static int look_again(hg_frame *of, size_t count, const uint32_t *ranks) {
    for (size_t p = 0; p < of->open; p++) {
        hg_pass *in = &of->passes[p];
        for (size_t i = 0; i < count; i++) {
            uint32_t rank = ranks[p * count + i];
            if (rank == NOWHERE) continue;
            if (hg_is_right(&in->tree, rank)) return HG_CONTRADICTION; /* it was right before, and would now be wrong */
            unsigned level = hg_lowest_known(&in->tree, rank);
            if (!level) continue;
            if (hg_is_odd(&in->tree, level, rank >> level) ? hg_enter(of, in, level, rank >> level)
                                                           : hg_push(&in->gone, HG_NODE(level, rank >> level)))
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

int hg_settle(hg_workspace *with, hg_frame *of) {
    uint64_t *now = with->now;
    while (of->found.count) {
        hg_list round = of->found;
        size_t count = 0;
        int code = HG_OK;
        of->found = (hg_list){0};
        for (size_t i = 0; i < round.count; i++)
            if (!seen(now, round.at, count, round.at[i])) round.at[count++] = round.at[i];
        for (size_t i = 0; i < count; i++) {
            if (count >= SHORT && hg_bit(now, round.at[i])) hg_flip(now, round.at[i]);
            if (hg_bit(of->pattern, round.at[i])) code = HG_CONTRADICTION; /* corrected before, now wrong again */
        }
        round.count = count;
        if (!code) code = hg_grow(&with->ranks, of->open * count);
        if (!code) correct(with, of, &round, with->ranks.at);
        if (!code) code = look_again(of, count, with->ranks.at);
        if (of->found.room)
            free(round.at);
        else
            round.count = 0, of->found = round;
        for (size_t p = 0; p < of->open && !code; p++) code = hg_merge(with, &of->passes[p]);
        if (code) return code;
    }
    return HG_OK;
}
