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

/* What one lane found: slot << HG_NOTES | notes, ascending; all of a lane lies before all of the next one. */
typedef struct {
    int64_t *found;
    size_t count, room;
} hg_lane;

/* Fills the lanes, zeroed before; the caller frees each lane's `found`, whatever is returned. `level` as in hg_expand.
 * Returns 0, or -1 if memory ran out. */
int hg_clicks(const hg_optics *optics, const uint8_t *light, const uint8_t *bases, const uint8_t *dice, int level,
              hg_lane lanes[HG_CLICK_LANES]);

/* Cuts `count` entries of a lane into slots and notes. */
void hg_clicks_cut(const hg_lane *lane, int64_t *slots, uint8_t *notes);

#ifdef __cplusplus
}
#endif
#endif
