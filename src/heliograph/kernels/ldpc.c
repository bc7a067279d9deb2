#include "ldpc.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "ldpc_steps.h"
#include "wipe.h"
#include "words.h"

/* Checks at once; the largest size; iterations without progress. */
enum { LANES = 32, LARGEST = HG_LDPC_LARGEST, PATIENCE = 12 };

const uint16_t hg_ldpc_phi[HG_LDPC_LARGEST + 1] = {16384, 7220, 4500, 3027, 2092, 1464, 1029, 726, 513, 362, 256,
                                                   181,   128,  91,   64,   45,   32,   23,   16,  11,  8,   6,
                                                   4,     3,    2,    1,    1,    1,    1,    0,   0,   0};

void hg_ldpc_syndrome(const hg_ldpc *code, size_t first, size_t last, const uint64_t *bits, uint64_t *out) {
    const size_t words = code->z / 64;
    memset(out, 0, (last - first) * words * sizeof *out);
    for (size_t r = first; r < last; r++, out += words)
        for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++) {
            const uint64_t *from = bits + code->columns[e] * words;
            const size_t at = code->shifts[e] / 64, whole = words - at - 1;
            const unsigned by = code->shifts[e] % 64;
            if (!by) {
                for (size_t k = 0; k < words - at; k++) out[k] ^= from[at + k];
                for (size_t k = words - at; k < words; k++) out[k] ^= from[at + k - words];
                continue;
            }
            for (size_t k = 0; k < whole; k++) out[k] ^= from[at + k] << by | from[at + k + 1] >> (64 - by);
            out[whole] ^= from[words - 1] << by | from[0] >> (64 - by);
            for (size_t k = 0; k < at; k++) out[whole + 1 + k] ^= from[k] << by | from[k + 1] >> (64 - by);
        }
}

/* The size whose PHI this sum is: 26 less twice its binary logarithm, which is taken linear between powers of two. */
static uint8_t size_of(uint16_t sum) {
    if (!sum) return LARGEST;
    const int top = (int)hg_top_bit(sum);
    const unsigned eighths = (top > 2 ? (unsigned)sum >> (top - 3) : (unsigned)sum << (3 - top)) & 7u;
    const int size = 26 - 2 * top - (eighths >= 2) - (eighths >= 6);
    const int least = (sum <= HG_LDPC_ONE) + (sum <= HG_LDPC_TWO) + (sum <= HG_LDPC_THREE);
    return (uint8_t)(size < least ? least : size > LARGEST ? LARGEST : size);
}

/* The LANES checks from `k` on of row `r`: what ldpc.py does, check by check. Returns how many were not as they must. */
static unsigned checks(const hg_ldpc *code, const hg_ldpc_state *s, const uint64_t *phi, size_t r, size_t k) {
    const size_t z = code->z, first = code->starts[r], degree = code->starts[r + 1] - first;
    int8_t *messages = s->messages + first * z + k * degree;
    uint8_t sign[LANES], least[LANES], size[LANES], all[LANES], others[LANES];
    uint64_t sums[LANES] = {0}; /* of high bytes above, of low bytes below */
    memcpy(sign, s->signs + r * z + k, LANES);
    memset(least, LARGEST, LANES);
    for (size_t e = 0; e < degree; e++, messages += LANES) {
        const int8_t *total = hg_ldpc_bits(code, s, first + e, k);
        int8_t *row = s->row + e * LANES;
        for (size_t j = 0; j < LANES; j++) {
            int t = total[j] - messages[j];
            t = t > 127 ? 127 : t < -128 ? -128 : t;
            row[j] = (int8_t)t;
            sign[j] ^= (uint8_t)t & 0x80;
            const uint8_t whole = (uint8_t)(t < 0 ? -t : t);
            size[j] = whole > LARGEST ? LARGEST : whole;
            least[j] = size[j] < least[j] ? size[j] : least[j];
        }
        for (size_t j = 0; j < LANES; j++) sums[j] += phi[size[j]];
    }
    messages -= degree * LANES;
    unsigned odd = 0;
    for (size_t j = 0; j < LANES; j++) {
        const unsigned high = sums[j] >> 32 > 255 ? 255 : (unsigned)(sums[j] >> 32), own = hg_ldpc_phi[least[j]];
        const unsigned sum = (high << 8) + (uint16_t)sums[j], most = sum > 65535 ? 65535 : sum;
        all[j] = size_of((uint16_t)most);
        others[j] = size_of((uint16_t)(most > own ? most - own : 0));
        odd += sign[j] >> 7;
    }
    for (size_t e = 0; e < degree; e++, messages += LANES) {
        const uint8_t most = s->most[code->columns[first + e]];
        const int8_t *row = s->row + e * LANES;
        int8_t *total = hg_ldpc_bits(code, s, first + e, k);
        for (size_t j = 0; j < LANES; j++) {
            int t = row[j];
            const uint8_t whole = (uint8_t)(t < 0 ? -t : t), own = whole > LARGEST ? LARGEST : whole;
            uint8_t sent = own == least[j] ? others[j] : all[j];
            sent = sent > most ? most : sent;
            const int m = (sign[j] ^ (uint8_t)t) & 0x80 ? -sent : sent;
            t += m;
            messages[j] = (int8_t)m;
            total[j] = (int8_t)(t > 127 ? 127 : t < -128 ? -128 : t);
        }
    }
    return odd;
}

static size_t iterate_portable(const hg_ldpc *code, const hg_ldpc_state *s) {
    uint64_t phi[LARGEST + 1];
    for (size_t i = 0; i <= LARGEST; i++) phi[i] = (uint64_t)(hg_ldpc_phi[i] >> 8) << 32 | (hg_ldpc_phi[i] & 255);
    size_t odd = 0;
    for (size_t r = 0; r < code->rows; r++) {
        for (size_t k = 0; k < code->z; k += LANES) odd += checks(code, s, phi, r, k);
        hg_ldpc_mend(code, s, r, LANES);
    }
    return odd;
}

static void decide_portable(const hg_ldpc *code, const hg_ldpc_state *s, uint64_t *pattern) {
    const size_t words = code->z / 64;
    for (size_t w = 0; w < code->width * words; w++) {
        const int8_t *from = s->totals + w / words * (code->z + HG_LDPC_LANES_MOST) + w % words * 64;
        uint64_t word = 0;
        for (size_t j = 0; j < 64; j++) word = word << 1 | (from[j] < 0);
        pattern[w] = word;
    }
}

typedef struct {
    hg_ldpc_iterate *iterate;
    hg_ldpc_decide *decide;
} steps;

static steps choose(int at_most) {
#ifdef HG_LDPC_X86
    if (at_most >= HG_LDPC_AVX512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi"))
        return (steps){hg_ldpc_iterate_avx512, hg_ldpc_decide_avx2};
    if (at_most >= HG_LDPC_AVX2 && __builtin_cpu_supports("avx2"))
        return (steps){hg_ldpc_iterate_avx2, hg_ldpc_decide_avx2};
#endif
    (void)at_most;
    return (steps){iterate_portable, decide_portable};
}

/* As large as leaves the total of a column's bits below its end, whatever the checks say, but at least 1. */
static void limit(const hg_ldpc *code, const hg_ldpc_state *s, unsigned channel) {
    const unsigned room = channel < 127 ? 127 - channel : 0;
    memset(s->most, 0, code->width);
    for (size_t e = 0; e < code->starts[code->rows]; e++) s->most[code->columns[e]]++;
    for (size_t c = 0; c < code->width; c++) {
        const unsigned share = s->most[c] ? room / s->most[c] : 0;
        s->most[c] = (uint8_t)(share > LARGEST ? LARGEST : share ? share : 1);
    }
}

int hg_ldpc_decode(const hg_ldpc *code, const uint64_t *syndrome, unsigned channel, unsigned iterations,
                   uint64_t *pattern, int at_most) {
    const size_t z = code->z, checks = code->rows * z, totals = code->width * (z + HG_LDPC_LANES_MOST);
    const size_t messages = code->starts[code->rows] * z;
    size_t degree = 0;
    for (size_t r = 0; r < code->rows; r++)
        if (code->starts[r + 1] - code->starts[r] > degree) degree = code->starts[r + 1] - code->starts[r];
    const size_t line = 64, rest = checks / 8 + totals + checks + degree * HG_LDPC_LANES_MOST + code->width;
    char *memory = hg_arena(line + messages + rest);
    if (!memory) return HG_LDPC_NO_MEMORY;
    memset(memory, 0, line + messages + rest);
    hg_ldpc_state s; /* what is read in order begins with a line of the cache */
    s.messages = (int8_t *)memory + (line - (uintptr_t)memory % line) % line; /* zeros: nothing was said yet */
    s.row = s.messages + messages;
    s.signs = (uint8_t *)(s.row + degree * HG_LDPC_LANES_MOST);
    uint64_t *found = (uint64_t *)(void *)(s.signs + checks);
    s.totals = (int8_t *)s.signs + checks + checks / 8;
    s.most = (uint8_t *)(s.totals + totals);
    for (size_t i = 0; i < checks; i++) s.signs[i] = hg_bit(syndrome, i) ? 0x80 : 0;
    memset(s.totals, (int)channel, totals);
    limit(code, &s, channel);
    const steps run = choose(at_most);
    size_t fewest = checks + 1;
    int result = 0;
    for (unsigned i = 1, since = 0; i <= iterations && since < PATIENCE && !result; i++) {
        const size_t odd = run.iterate(code, &s);
        since = odd < fewest ? 0 : since + 1;
        fewest = odd < fewest ? odd : fewest;
        run.decide(code, &s, pattern);
        if (odd > checks / 16 && i < iterations) continue; /* far from it: no need to look */
        hg_ldpc_syndrome(code, 0, code->rows, pattern, found);
        if (!memcmp(found, syndrome, checks / 8)) result = (int)i;
    }
    hg_wipe_and_free(memory, line + messages + rest); /* what it says of the errors is no secret under every rule */
    return result;
}
