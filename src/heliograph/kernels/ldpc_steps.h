/* What the decoders of ldpc.c share: not for others. */
#ifndef HELIOGRAPH_LDPC_STEPS_H
#define HELIOGRAPH_LDPC_STEPS_H

#include <string.h>

#include "ldpc.h"

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define HG_LDPC_X86 1
#endif

enum {
    HG_LDPC_LARGEST = 31, /* the largest size */
    HG_LDPC_LANES_MOST = 64, /* checks at once, at most */
    /* sums up to which the size is 1, 2 and 3 at least, where the logarithm alone says less */
    HG_LDPC_ONE = 10028,
    HG_LDPC_TWO = 5609,
    HG_LDPC_THREE = 3671
};

/* What it is, says ldpc.py. */
extern const uint16_t hg_ldpc_phi[HG_LDPC_LARGEST + 1];

/* What one decoding holds. A block column of `totals` has z bytes and the first HG_LDPC_LANES_MOST of them once more, so
 * that a load may run over the end. `messages`: of each row, of each few checks, of each edge: as they are used. `signs`:
 * 0x80 for a check that must be odd. `row`: as many bytes as lanes for each edge of one row. `most`: the largest message
 * to each column. */
typedef struct {
    int8_t *totals, *messages, *row;
    uint8_t *signs, *most;
} hg_ldpc_state;

/* One iteration; returns how many checks did not hold. */
typedef size_t hg_ldpc_iterate(const hg_ldpc *code, const hg_ldpc_state *s);
typedef void hg_ldpc_decide(const hg_ldpc *code, const hg_ldpc_state *s, uint64_t *pattern);

static inline int8_t *hg_ldpc_column(const hg_ldpc *code, const hg_ldpc_state *s, size_t e) {
    return s->totals + code->columns[e] * (code->z + HG_LDPC_LANES_MOST);
}

/* Where a check's bits of edge `e` are. */
static inline int8_t *hg_ldpc_bits(const hg_ldpc *code, const hg_ldpc_state *s, size_t e, size_t k) {
    const size_t at = k + code->shifts[e];
    return hg_ldpc_column(code, s, e) + (at >= code->z ? at - code->z : at);
}

/* The row has written the first bytes of a block column or their copies behind its end, never both: make them equal. */
static inline void hg_ldpc_mend(const hg_ldpc *code, const hg_ldpc_state *s, size_t r, size_t lanes) {
    for (size_t e = code->starts[r]; e < code->starts[r + 1]; e++) {
        const size_t behind = code->shifts[e] % lanes;
        int8_t *column = hg_ldpc_column(code, s, e), *end = column + code->z;
        memcpy(column, end, behind);
        memcpy(end + behind, column + behind, lanes - behind);
    }
}

#ifdef HG_LDPC_X86
hg_ldpc_iterate hg_ldpc_iterate_avx2, hg_ldpc_iterate_avx512;
hg_ldpc_decide hg_ldpc_decide_avx2;
#endif

#endif
