/* Sifting: one pass over the detected slots. sifting.py is the oracle. */
#ifndef HELIOGRAPH_SIFTING_H
#define HELIOGRAPH_SIFTING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HG_KINDS = 4 };

/* Splits slots by basis: 0 and 0 gives key, 1 and 1 test. Writes packed key bits (room: ceil(slots / 8) + 8 bytes), their
 * intensities (room: slots + 8 bytes) and packed test bits of this side (room: as key). Counts test slots by intensity,
 * and errors against `peer`, the peer's packed test bits (`peer_bits` of them; none are compared if NULL).
 * Returns the number of key bits; *test_bits is set. Slot values are bytes 0 or 1, intensities below HG_KINDS. */
size_t hg_sift(const uint8_t *own_bases, const uint8_t *own_bits, const uint8_t *peer_bases, const uint8_t *kinds,
               size_t slots, const uint8_t *peer, size_t peer_bits, uint8_t *key, uint8_t *key_kinds, uint8_t *test,
               size_t *test_bits, uint64_t detections[HG_KINDS], uint64_t errors[HG_KINDS]);

/* The same without special instructions, as machines run it that lack them. */
size_t hg_sift_portable(const uint8_t *own_bases, const uint8_t *own_bits, const uint8_t *peer_bases,
                        const uint8_t *kinds, size_t slots, const uint8_t *peer, size_t peer_bits, uint8_t *key,
                        uint8_t *key_kinds, uint8_t *test, size_t *test_bits, uint64_t detections[HG_KINDS],
                        uint64_t errors[HG_KINDS]);

#ifdef __cplusplus
}
#endif
#endif
