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

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

/* The same four rows at a time. Within a vector the partner of a row is in another lane: of both versions of it, the one
 * of the upper row is blended with the one of the lower row. */
AVX2 static void transpose_avx2(uint64_t rows[64]) {
    __m256i v[16], mask = _mm256_set1_epi64x(0x00000000FFFFFFFF);
    for (unsigned i = 0; i < 16; i++) v[i] = _mm256_loadu_si256((const __m256i *)rows + i);
    for (unsigned j = 32; j > 2; j >>= 1, mask = _mm256_xor_si256(mask, _mm256_slli_epi64(mask, (int)j)))
        for (unsigned k = 0; k < 16; k = (k + j / 4 + 1) & ~(j / 4)) {
            __m256i low = _mm256_srli_epi64(v[k + j / 4], (int)j);
            __m256i swap = _mm256_and_si256(_mm256_xor_si256(v[k], low), mask);
            v[k] = _mm256_xor_si256(v[k], swap);
            v[k + j / 4] = _mm256_xor_si256(v[k + j / 4], _mm256_slli_epi64(swap, (int)j));
        }
    __m256i other = _mm256_xor_si256(mask, _mm256_slli_epi64(mask, 1));
    for (unsigned i = 0; i < 16; i++) {
        __m256i at = v[i], to = _mm256_permute4x64_epi64(at, 0x4E);
        __m256i upper = _mm256_or_si256(_mm256_andnot_si256(mask, at), _mm256_and_si256(_mm256_srli_epi64(to, 2), mask));
        __m256i lower = _mm256_or_si256(_mm256_and_si256(mask, at), _mm256_slli_epi64(_mm256_and_si256(mask, to), 2));
        at = _mm256_blend_epi32(upper, lower, 0xF0), to = _mm256_shuffle_epi32(at, 0x4E);
        upper = _mm256_or_si256(_mm256_andnot_si256(other, at), _mm256_and_si256(_mm256_srli_epi64(to, 1), other));
        lower = _mm256_or_si256(_mm256_and_si256(other, at), _mm256_slli_epi64(_mm256_and_si256(other, to), 1));
        _mm256_storeu_si256((__m256i *)rows + i, _mm256_blend_epi32(upper, lower, 0xCC));
    }
}

static int wide(void) { return __builtin_cpu_supports("avx2") != 0; }
#else
#define transpose_avx2 transpose
static int wide(void) { return 0; }
#endif

/* Row b of a tile holds, in column c, bit (b + turn of slot c) % 64 of the word in slot c. With the first bit of a word
 * in its highest place, the matrix is transposed as it stands. */
void hg_shuffle_bits(const hg_plan *plan, const hg_tables *by, const uint64_t *bits, uint64_t *out,
                     size_t stride) {
    for (size_t tile = 0; tile < plan->whole / HG_TILE; tile++) {
        uint64_t rows[64];
        for (size_t i = 0; i < 64; i++) {
            uint64_t word = bits[by->words[64 * tile + i]];
            unsigned turn = by->turns[64 * tile + i];
            rows[i] = word << turn | word >> (-turn & 63);
        }
        if (plan->wide)
            transpose_avx2(rows);
        else
            transpose(rows);
        for (size_t i = 0; i < 64; i++) out[stride * by->outs_back[64 * tile + i]] = rows[i];
    }
    for (size_t i = plan->whole / 64; i < plan->words; i++) {
        uint64_t word = 0;
        for (size_t rank = 64 * i; rank < 64 * i + 64; rank++)
            word = word << 1 | (rank < plan->length ? hg_bit(bits, plan->whole + by->tail[rank - plan->whole]) : 0);
        out[stride * i] = word;
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
                     size_t at_once, int portable) {
    hg_plan *plan = length && length <= HG_FRAME_MAX ? calloc(1, sizeof *plan) : NULL;
    if (!plan) return NULL;
    plan->masks = malloc(hg_word_count(length) * sizeof *plan->masks);
    if (!plan->masks) {
        free(plan);
        return NULL;
    }
    plan->length = length;
    plan->words = hg_word_count(length);
    plan->whole = length / HG_TILE * HG_TILE;
    plan->window = window < 32 ? window : 32;
    plan->wide = !portable && wide();
    for (size_t i = 0; i < plan->words; i++)
        for (size_t j = 0; j < HG_SUBSETS; j++) plan->masks[i][j] = hg_subset_word(keys[j], i);
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
    free(plan->masks);
    free(plan);
}
