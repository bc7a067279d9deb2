/* The groups that are compared whole: those of the permuted passes, then subsets. Odd ones are what the search begins with. */
#include "cascade_frame.h"

#include <stdlib.h>

static inline size_t tops_of(const hg_frame *of) { return ((of->plan->length - 1) >> of->top) + 1; }

/* Pass 0 leaves an even number of errors: the last group of a later pass follows from the others. */
static inline size_t tops_asked(const hg_frame *of) { return tops_of(of) - (of->permuted > 1); }

static int imply_last_top(hg_workspace *with, hg_frame *of) {
    hg_pass *in = &of->passes[of->permuted - 1];
    unsigned top = of->top, odd = 0;
    size_t last = tops_of(of) - 1;
    for (size_t i = 0; i < last; i++) odd ^= (unsigned)hg_is_odd(&in->tree, top, i);
    hg_know(&in->tree, top, last, odd);
    if (odd && hg_enter(of, in, top, last)) return HG_NO_MEMORY;
    return hg_merge(with, in);
}

int hg_open_permuted(hg_workspace *with, hg_frame *of) {
    hg_pass *in = &of->passes[of->open];
    const hg_plan *plan = of->plan;
    unsigned top = of->permuted == 0 ? plan->first : of->permuted == 1 ? plan->second[with->share] : plan->third;
    of->top = top;
    hg_lay_pass(of, in, top, of->memory);
    of->memory += hg_pass_words(plan, top);
    in->by = &plan->tables[of->permuted];
    of->open++, of->permuted++;
    hg_shuffle_bits(plan, in->by, of->own, &in->tree.low->own, sizeof(hg_low) / 8);
    size_t count = tops_asked(of);
    if (!count) return imply_last_top(with, of);
    of->asked = HG_ASKED_TOPS;
    for (size_t i = 0; i < count; i++)
        if (hg_note(&with->asked, hg_own_parity(in, plan->words, top, i))) return HG_NO_MEMORY;
    return HG_OK;
}

int hg_learn_tops(hg_workspace *with, hg_frame *of, hg_answers *answers) {
    hg_pass *in = &of->passes[of->permuted - 1];
    unsigned top = of->top;
    size_t count = tops_asked(of);
    for (size_t i = 0; i < count; i++) {
        unsigned odd = hg_next(answers);
        hg_know(&in->tree, top, i, odd);
        if (odd && hg_enter(of, in, top, i)) return HG_NO_MEMORY;
    }
    int code = hg_merge(with, in);
    return !code && count < tops_of(of) ? imply_last_top(with, of) : code;
}

static int trivial(const hg_frame *of, uint64_t key) { /* the parity of nothing and of everything is known */
    size_t length = of->plan->length, inside = 0;
    if (length >= 128) return 0;
    for (size_t i = 0; i < length; i++) inside += hg_in_subset(key, i);
    return inside == 0 || inside == length;
}

/* The subsets not searched are all even, and what was corrected did not depend on them: they tell as much of what may be
 * left as new ones would. */
int hg_ask_subsets(hg_workspace *with, hg_frame *of) {
    size_t kept = 0, wanted = of->keys_used ? 0 : HG_SUBSETS;
    while (of->open > of->permuted) hg_free_pass(of, &of->passes[--of->open]);
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
        if (hg_note(&with->asked, hg_parity(folds[i]))) return HG_NO_MEMORY;
        of->keys[of->subsets++] = key;
        of->asked = HG_ASKED_SUBSETS;
    }
    return HG_OK;
}

void hg_learn_subsets(hg_frame *of, hg_answers *answers) {
    for (size_t i = of->settled; i < of->subsets; i++) of->odd |= (uint32_t)hg_next(answers) << i;
}

/* The first one only: the error found most often settles others too. */
int hg_search_a_subset(hg_workspace *with, hg_frame *of) {
    unsigned top = 0;
    size_t i = 0;
    while (!((of->odd & ~of->searched) >> i & 1)) i++;
    while (((size_t)1 << top) < of->plan->length) top++;
    hg_pass *in = &of->passes[of->open];
    of->searched |= 1u << i;
    in->memory = malloc(hg_pass_words(of->plan, top) * sizeof(uint64_t));
    in->key = of->keys[i];
    of->open++;
    if (!in->memory) return HG_NO_MEMORY;
    hg_lay_pass(of, in, top, in->memory);
    for (size_t j = 0; j < of->plan->words; j++) in->tree.low[j].own = of->own[j] & hg_subset_word(in->key, j);
    hg_know(&in->tree, top, 0, 1);
    if (hg_enter(of, in, top, 0)) return HG_NO_MEMORY;
    return hg_merge(with, in);
}
