#include "expansion.h"

#include <string.h>

#include "aes.h"
#include "wipe.h"

#ifdef HG_AES
int hg_expansion_level(void) { return hg_aes_level(); }

HG_INLINE void expand(hg_aes_batch *encrypt, const uint8_t *seed, const int64_t *slots, size_t count, uint64_t z,
                      const uint64_t *thresholds, size_t levels, uint8_t *bases, uint8_t *kinds, uint8_t *bits) {
    hg_aes key;
    hg_aes_key(&key, seed);
    uint64_t high[HG_LANES], low[HG_LANES], first[HG_LANES], second[HG_LANES];
    for (int i = 0; i < HG_LANES; i++) high[i] = kinds ? HG_LABEL_LIGHT : HG_LABEL_BASES;
    for (size_t at = 0; at < count; at += HG_LANES) {
        uint8_t basis[HG_LANES], kind[HG_LANES] = {0}, bit[HG_LANES];
        size_t here = count - at < HG_LANES ? count - at : HG_LANES;
        memset(low, 0, sizeof low);
        memcpy(low, slots + at, here * sizeof *low);
        encrypt(&key, high, low, first, second);
        for (int i = 0; i < HG_LANES; i++) basis[i] = (first[i] & 0xFFFFFFFFULL) >= z;
        memcpy(bases + at, basis, here);
        if (!kinds) continue;
        for (size_t k = 0; k < levels; k++)
            for (int i = 0; i < HG_LANES; i++) kind[i] = (uint8_t)(kind[i] + (first[i] >> 32 >= thresholds[k]));
        for (int i = 0; i < HG_LANES; i++) bit[i] = second[i] & 1;
        memcpy(kinds + at, kind, here);
        memcpy(bits + at, bit, here);
    }
    hg_wipe(&key, sizeof key);
    hg_wipe(first, sizeof first);
    hg_wipe(second, sizeof second);
}

#define ARGUMENTS seed, slots, count, z, thresholds, levels, bases, kinds, bits

HG_WIDE static void expand_wide(const uint8_t *seed, const int64_t *slots, size_t count, uint64_t z,
                                const uint64_t *thresholds, size_t levels, uint8_t *bases, uint8_t *kinds,
                                uint8_t *bits) {
    expand(hg_aes_wide, ARGUMENTS);
}

void hg_expand(const uint8_t *seed, const int64_t *slots, size_t count, uint64_t z, const uint64_t *thresholds,
               size_t levels, int level, uint8_t *bases, uint8_t *kinds, uint8_t *bits) {
    if (level >= 2)
        expand_wide(ARGUMENTS);
    else
        expand(hg_aes_narrow, ARGUMENTS);
}
#else
int hg_expansion_level(void) { return 0; }

void hg_expand(const uint8_t *seed, const int64_t *slots, size_t count, uint64_t z, const uint64_t *thresholds,
               size_t levels, int level, uint8_t *bases, uint8_t *kinds, uint8_t *bits) {
    (void)seed, (void)slots, (void)count, (void)z, (void)thresholds, (void)levels, (void)level;
    (void)bases, (void)kinds, (void)bits;
}
#endif
