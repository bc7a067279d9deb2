#include "cascade_plan.h"

#include <stdlib.h>
#include <string.h>

static void transpose(uint64_t rows[64]) { /* Warren, Hacker's Delight 7-3 */
    uint64_t mask = 0x00000000FFFFFFFFULL;
    for (unsigned j = 32; j; j >>= 1, mask ^= mask << j)
        for (unsigned k = 0; k < 64; k = (k + j + 1) & ~j) {
            uint64_t swap = (rows[k] ^ (rows[k + j] >> j)) & mask;
            rows[k] ^= swap;
            rows[k + j] ^= swap << j;
        }
}

/* Row b of a tile holds, in column c, bit (b + turn of slot c) % 64 of the word in slot c. With the first bit of a word
 * in its highest place, the matrix is transposed as it stands. */
void hg_shuffle_bits(const hg_plan *plan, const hg_tables *by, const uint64_t *bits, uint64_t *out,
                     size_t stride) {
    for (size_t tile = 0; tile < plan->whole / HG_TILE; tile++) {
        uint64_t rows[64];
        for (size_t i = 0; i < 64; i++) {
            uint64_t word = bits[by->words[64 * tile + i]];
            unsigned turn = by->turns[64 * tile + i];
            rows[i] = turn ? word << turn | word >> (64 - turn) : word;
        }
        transpose(rows);
        for (size_t i = 0; i < 64; i++) out[stride * by->outs_back[64 * tile + i]] = rows[i];
    }
    for (size_t i = 0; plan->whole + i < plan->length; i++)
        if (hg_bit(bits, plan->whole + by->tail[i])) {
            size_t to = plan->whole + i;
            out[stride * (to / 64)] ^= 1ULL << (63 - to % 64);
        }
}

/* Copies a permutation of 0..count - 1 and its inverse; misuse if it is none. */
static int copy_permutation(const uint32_t *from, size_t count, uint16_t **to, uint16_t **back) {
    *to = malloc((count + 1) * sizeof **to);
    *back = malloc((count + 1) * sizeof **back);
    if (!*to || !*back) return HG_NO_MEMORY;
    memset(*back, 0xFF, (count + 1) * sizeof **back);
    for (size_t i = 0; i < count; i++) {
        if (from[i] >= count || (*back)[from[i]] != UINT16_MAX) return HG_MISUSE;
        (*to)[i] = (uint16_t)from[i];
        (*back)[from[i]] = (uint16_t)i;
    }
    return HG_OK;
}

static int fits(unsigned level, size_t length) { /* no lower level has one group alone */
    return !level || ((size_t)1 << (level < 20 ? level - 1 : 20)) < length;
}

hg_plan *hg_plan_new(size_t length, unsigned first, const uint8_t second[HG_SHARES], unsigned third,
                     const hg_shuffle shuffles[HG_PERMUTED], const uint64_t keys[HG_KEYS], unsigned window, size_t few,
                     size_t at_once) {
    hg_plan *plan = length && length <= HG_FRAME_MAX ? calloc(1, sizeof *plan) : NULL;
    if (!plan) return NULL;
    plan->length = length;
    plan->words = hg_word_count(length);
    plan->whole = length / HG_TILE * HG_TILE;
    plan->window = window < 32 ? window : 32;
    plan->few = few;
    plan->at_once = at_once;
    memcpy(plan->keys, keys, sizeof plan->keys);
    plan->first = first, plan->third = third;
    int code = fits(first, length) && fits(third, length) ? HG_OK : HG_MISUSE;
    for (size_t i = 0; i < HG_SHARES; i++) {
        plan->second[i] = second[i];
        if (second[i] > plan->highest) plan->highest = second[i];
    }
    if (!fits(plan->highest, length)) code = HG_MISUSE;
    for (size_t p = 0; p < HG_PERMUTED && !code; p++) {
        hg_tables *to = &plan->tables[p];
        size_t count = plan->whole / 64;
        to->turns = malloc(count + 1);
        if (!to->turns) code = HG_NO_MEMORY;
        if (!code) code = copy_permutation(shuffles[p].words, count, &to->words, &to->words_back);
        if (!code) code = copy_permutation(shuffles[p].outs, count, &to->outs, &to->outs_back);
        if (!code) code = copy_permutation(shuffles[p].tail, length % HG_TILE, &to->tail, &to->tail_back);
        for (size_t i = 0; i < count && !code; i++) to->turns[i] = shuffles[p].turns[i] & 63;
    }
    if (code) {
        hg_plan_free(plan);
        return NULL;
    }
    return plan;
}

void hg_plan_free(hg_plan *plan) {
    if (!plan) return;
    for (size_t p = 0; p < HG_PERMUTED; p++) {
        hg_tables *of = &plan->tables[p];
        free(of->words), free(of->words_back), free(of->outs), free(of->outs_back), free(of->tail);
        free(of->tail_back), free(of->turns);
    }
    free(plan);
}
