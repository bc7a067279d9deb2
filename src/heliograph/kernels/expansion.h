/* The choices of a seed at given slots; expansion.py is the oracle. */
#ifndef HELIOGRAPH_EXPANSION_H
#define HELIOGRAPH_EXPANSION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the basis at each slot (word 0 of its block against z) and, unless `kinds` is NULL, its intensity (word 1 against
 * ascending thresholds, `levels` of them) and bit (lowest of word 2). `level` as hg_expansion_level gives it, or less, but
 * not 0. The label is that of the light where `kinds` is there, of the bases where it is not. */
void hg_expand(const uint8_t *seed, const int64_t *slots, size_t count, uint64_t z, const uint64_t *thresholds,
               size_t levels, int level, uint8_t *bases, uint8_t *kinds, uint8_t *bits);

/* 0: this machine has no AES instructions, and hg_expand must not be called. */
int hg_expansion_level(void);

#ifdef __cplusplus
}
#endif
#endif
