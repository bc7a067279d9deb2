/* Syndromes and decoding of quasi-cyclic LDPC codes, for one-way reconciliation. What is computed, and why, is said in
 * ldpc.py; with a processor that has AVX2 or AVX-512 or without, the same bits come out. */
#ifndef HELIOGRAPH_LDPC_H
#define HELIOGRAPH_LDPC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HG_LDPC_NO_MEMORY = -1 };
enum { HG_LDPC_PORTABLE, HG_LDPC_AVX2, HG_LDPC_AVX512 }; /* what the processor may be used for, at most */

/* Block row r has the edges starts[r] <= e < starts[r + 1]; its check k meets bit (k + shifts[e]) mod z of block column
 * columns[e]. z is a multiple of 64; no block column occurs twice in a row. */
typedef struct {
    size_t z, width, rows;
    const uint32_t *starts, *columns, *shifts;
} hg_ldpc;

/* The parities of block rows first..last - 1: (last - first) * z / 64 words, of width * z / 64 words of bits. */
void hg_ldpc_syndrome(const hg_ldpc *code, size_t first, size_t last, const uint64_t *bits, uint64_t *out);

/* Looks for a sparse pattern with this syndrome of all rows. Returns the iterations it took (>= 1), 0 if there were not
 * enough or no progress (the pattern is then of no use), or HG_LDPC_NO_MEMORY. */
int hg_ldpc_decode(const hg_ldpc *code, const uint64_t *syndrome, unsigned channel, unsigned iterations,
                   uint64_t *pattern, int at_most);

#ifdef __cplusplus
}
#endif

#endif
