#include "cascade_frame.h"

#include <stdlib.h>
#include <string.h>

#include "wipe.h"

/* Whether no position of the pass lies in a node. Of subsets this happens in small nodes, and in those of any size that
   reach beyond the end of the frame: the search must never go there, whatever a peer's parities say. */
static inline unsigned is_empty(const hg_frame *of, const hg_pass *in, unsigned level, size_t index) {
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

/* Own bits stand in the leaves; the rest of a tree tells what the peer was asked, and heard. */
void hg_free_pass(const hg_frame *of, hg_pass *in) {
    if (in->tree.low) hg_wipe(in->tree.low, of->plan->words * sizeof(hg_low));
    free(in->memory), free(in->frontier.at), free(in->fresh.at), free(in->gone.at), free(in->guesses.at), free(in->how.at);
    memset(in, 0, sizeof *in);
}

size_t hg_pass_words(const hg_plan *plan, unsigned top) {
    size_t all = plan->words * (sizeof(hg_low) / 8);
    for (unsigned t = 1; top && t <= hg_tier(top); t++)
        all += (((plan->length - 1) >> (6 * t + 6)) + 1) * (sizeof(hg_heap) / 8);
    return all;
}

void hg_lay_pass(const hg_frame *of, hg_pass *in, unsigned top, uint64_t *at) {
    const hg_plan *plan = of->plan;
    memset(at, 0, hg_pass_words(plan, top) * sizeof *at);
    in->tree.tiers = hg_tier(top) + 1;
    in->tree.low = (hg_low *)at, at += plan->words * (sizeof(hg_low) / 8);
    for (unsigned t = 1; t < in->tree.tiers; t++) {
        in->tree.high[t] = (hg_heap *)at;
        at += (((plan->length - 1) >> (6 * t + 6)) + 1) * (sizeof(hg_heap) / 8);
    }
}

int hg_enter(hg_frame *of, hg_pass *in, unsigned level, size_t index) {
    if (level && in->by && (index + 1) << level <= of->plan->length) return hg_push(&in->fresh, HG_NODE(level, index));
    for (; level; level--) {
        unsigned right = is_empty(of, in, level - 1, 2 * index);
        if (!right && !is_empty(of, in, level - 1, 2 * index + 1)) return hg_push(&in->fresh, HG_NODE(level, index));
        index = 2 * index + right;
        hg_know(&in->tree, level - 1, index, 1);
    }
    return hg_push(&of->found, (uint32_t)(in->by ? hg_position(of->plan, in->by, index) : index));
}

int hg_merge(hg_workspace *with, hg_pass *in) {
    hg_list *out = &with->spare, *old = &in->frontier, *new = &in->fresh, *gone = &in->gone;
    if (!in->chosen && !new->count && !gone->count) return HG_OK;
    hg_once_each(new);
    if (in->chosen == old->count) { /* as a rule */
        hg_list swap = *old;
        *old = *new, *new = swap;
    } else {
        hg_sort(gone);
        if (hg_grow(out, old->count + new->count)) return HG_NO_MEMORY;
        size_t count = 0;
        for (size_t i = in->chosen, j = 0, k = 0; i < old->count || j < new->count;) {
            uint32_t node = j == new->count || (i < old->count && old->at[i] < new->at[j]) ? old->at[i] : new->at[j];
            i += i < old->count && old->at[i] == node, j += j < new->count && new->at[j] == node;
            while (k < gone->count && gone->at[k] < node) k++;
            if (k == gone->count || gone->at[k] != node) out->at[count++] = node;
        }
        out->count = count;
        hg_list swap = *old;
        *old = *out, *out = swap;
    }
    new->count = gone->count = in->chosen = 0;
    return HG_OK;
}
