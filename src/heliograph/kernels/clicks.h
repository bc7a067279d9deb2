/* Clicks of a simulated block; clicks.py is the oracle and says what each entry means. */
#ifndef HELIOGRAPH_CLICKS_H
#define HELIOGRAPH_CLICKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HG_CLICK_LANES = 32, HG_NOTES = 8, HG_LOG_TABLE = 128 };

typedef struct {
    int64_t pulses, dead, frame; /* slots; frame at least 1 */
    double scale, filled, filled_log, decay;
    uint64_t sent_z, measured_z;
    const uint64_t *thresholds; /* kinds - 1 */
    const int64_t *patterns;    /* kinds * 9 */
    const int64_t *eve;         /* kinds * 4 * outcomes; none if outcomes is 0 */
    const uint8_t *eve_marks;   /* as many */
    size_t kinds, outcomes;
    const double *inverse, *logarithm; /* HG_LOG_TABLE each */
} hg_optics;

/* Lane i writes slot << HG_NOTES | notes, ascending, to found + i * room, and how many to counts[i]; all of a lane lies
 * before all of the next one. `level` as in hg_expand. Returns 0, or -1 if a lane found more than `room` (at least 1):
 * then more room is needed, and the same is found again. */
int hg_clicks(const hg_optics *optics, const uint8_t *light, const uint8_t *bases, const uint8_t *dice, int level,
              int64_t *found, size_t room, size_t counts[HG_CLICK_LANES]);

/* Cuts the lanes into slots, moved to the front of `found`, and notes. Returns how many. */
size_t hg_clicks_cut(int64_t *found, size_t room, const size_t counts[HG_CLICK_LANES], uint8_t *notes);

#ifdef __cplusplus
}
#endif
#endif
