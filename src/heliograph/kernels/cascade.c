#include "cascade.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "cascade_frame.h"
#include "wipe.h"

struct hg_block {
    size_t length, frames, stride; /* stride: words from one frame to the next */
    int spoilt;
    uint64_t *arena, *own, *pattern;
    hg_frame *at;
    uint32_t *active; /* frames that are not at their end */
    size_t actives;
    hg_asked before; /* in the last round: its memory serves for the next one */
    hg_workspace with;
};

/* Does everything that needs no further exchange, then asks; nothing is asked at the end. */
static int proceed(hg_workspace *with, hg_frame *of) {
    of->asked = HG_ASKED_NOTHING;
    for (;;) {
        int code = hg_settle(with, of);
        if (!code) code = hg_ask_halves(with, of);
        if (code || of->asked) return code;
        /* Every group known so far is even: widen the view. */
        if (of->odd & ~of->searched)
            code = hg_search_a_subset(with, of);
        else if (of->permuted < HG_PERMUTED)
            code = hg_open_permuted(with, of);
        else if (!of->keys_used || of->searched)
            return hg_ask_subsets(with, of);
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
    block->with.share = HG_SHARES;
    block->with.corrects = corrects;
    size_t each = 0, rest = 0;
    each = hg_pass_words(plan, plan->first) + hg_pass_words(plan, plan->highest) + hg_pass_words(plan, plan->third);
    rest = hg_pass_words(last, last->first) + hg_pass_words(last, last->highest) + hg_pass_words(last, last->third);
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
    block->with.now = block->pattern + words;
    hg_load_bits(block->own, bits, length);
    memset(block->pattern, 0, (words + widest) * sizeof(uint64_t));
    for (size_t f = 0; f < frames; f++) {
        block->at[f].plan = f + 1 < frames ? plan : last;
        block->at[f].own = block->own + f * block->stride;
        block->at[f].pattern = block->pattern + f * block->stride;
        block->at[f].memory = block->with.now + widest + f * each;
        block->active[block->actives++] = (uint32_t)f;
    }
    return block;
}

void hg_block_free(hg_block *block) {
    if (!block) return;
    for (size_t f = 0; block->at && f < block->frames; f++) {
        for (size_t p = 0; p < HG_PERMUTED + HG_SUBSETS; p++) hg_free_pass(&block->at[f], &block->at[f].passes[p]);
        free(block->at[f].found.at);
    }
    if (block->own) hg_wipe(block->own, 2 * hg_word_count(block->length) * sizeof(uint64_t)); /* and the pattern */
    free(block->arena), free(block->at), free(block->active), free(block->with.asked.bytes), free(block->before.bytes);
    free(block->with.spare.at), free(block->with.ranks.at);
    hg_wipe_and_free(block, sizeof *block); /* it has folded bits */
}

static int spoil(hg_block *block, int code) {
    block->spoilt = 1;
    block->with.asked.count = 0;
    return code;
}

int hg_block_begin(hg_block *block) {
    if (block->spoilt || block->at[0].open) return HG_MISUSE;
    block->with.asked.count = 0;
    for (size_t f = 0; f < block->frames; f++) {
        int code = proceed(&block->with, &block->at[f]);
        if (code) return spoil(block, code);
    }
    return hg_flush(&block->with.asked) ? spoil(block, HG_NO_MEMORY) : HG_OK;
}

/* How many groups of pass 0, which alone is asked for first, are odd: what pass 1 is chosen by, for all frames alike. */
static size_t odd_share(const hg_block *block, const uint8_t *parities) {
    const hg_asked *asked = &block->with.asked;
    size_t odd = 0;
    for (size_t i = 0; i < (asked->count + 7) / 8; i++)
        for (unsigned left = asked->bytes[i] ^ parities[i]; left; left &= left - 1) odd++;
    size_t share = odd * 2 * HG_SHARES / asked->count;
    return share < HG_SHARES ? share : HG_SHARES - 1;
}

int hg_block_learn(hg_block *block, const uint8_t *parities) {
    if (block->spoilt || !block->with.asked.count) return HG_MISUSE;
    if (block->with.share == HG_SHARES) block->with.share = odd_share(block, parities);
    hg_asked now = block->with.asked;
    for (size_t i = 0; i < (now.count + 7) / 8; i++) now.bytes[i] ^= parities[i];
    hg_answers answers = {now.bytes, 0};
    block->with.asked = block->before; /* what comes next is written elsewhere */
    block->with.asked.count = 0;
    block->before = now;
    size_t actives = 0;
    int code = HG_OK;
    for (size_t i = 0; i < block->actives && !code; i++) {
        hg_frame *of = &block->at[block->active[i]];
        switch (of->asked) {
        case HG_ASKED_TOPS: code = hg_learn_tops(&block->with, of, &answers); break;
        case HG_ASKED_HALVES: code = hg_learn_halves(&block->with, of, &answers); break;
        case HG_ASKED_SUBSETS: hg_learn_subsets(of, &answers); break;
        case HG_ASKED_NOTHING: break;
        }
        if (!code) code = proceed(&block->with, of);
        if (of->asked) block->active[actives++] = block->active[i];
    }
    block->actives = actives;
    if (!code) code = hg_flush(&block->with.asked);
    return code ? spoil(block, code) : HG_OK;
}

size_t hg_count(const hg_block *block) { return block->with.asked.count; }

const uint8_t *hg_parities(const hg_block *block) { return block->with.asked.bytes; }

void hg_block_bits(const hg_block *block, uint8_t *bytes) { hg_store_bits(bytes, block->own, block->length); }

void hg_block_pattern(const hg_block *block, uint8_t *bytes) { hg_store_bits(bytes, block->pattern, block->length); }
