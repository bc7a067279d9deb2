#include "clicks.h"

#include <stdlib.h>
#include <string.h>

#include "aes.h"

void hg_clicks_cut(const hg_lane *lane, int64_t *slots, uint8_t *notes) {
    for (size_t i = 0; i < lane->count; i++) {
        slots[i] = lane->found[i] >> HG_NOTES;
        notes[i] = (uint8_t)lane->found[i];
    }
}

#ifdef HG_AES

#define NEVER (1LL << 62)
#define FURTHEST 0x1p60
#define LN2 0.6931471805599453
#define EACH for (int i = 0; i < N; i++)
enum { N = HG_LANES };
_Static_assert(HG_CLICK_LANES == HG_LANES, "the cipher takes a block from each lane");

/* The uniform number of a draw, (2 m + 1) 2^-53 for its upper 52 bits m, times 2^53: exact. */
HG_INLINE double uniform(uint64_t draw) { return (double)(int64_t)(draw >> 12 << 1 | 1); }

/* -ln(x 2^-53), as clicks.py has it operation by operation: no fused multiply-add, no library. */
HG_INLINE double minus_log(double x, const double *inverse, const double *logarithm) {
    uint64_t pattern, one;
    memcpy(&pattern, &x, 8);
    double halvings = (double)(1076 - (int64_t)(pattern >> 52));
    uint64_t at = pattern >> 45 & (HG_LOG_TABLE - 1);
    one = (pattern & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL;
    double mantissa;
    memcpy(&mantissa, &one, 8);
    double r = mantissa * inverse[at] - 1.0;
    double series = r * (1.0 + r * (-0.5 + r * (1.0 / 3.0 + r * (-0.25 + r * 0.2))));
    double log = halvings * LN2 - (logarithm[at] + series);
    return log > 0x1p-54 ? log : 0x1p-54;
}

static int grow(hg_lane *lane) {
    size_t room = lane->room ? lane->room + lane->room / 2 : 1024;
    if (room > SIZE_MAX / sizeof *lane->found) return -1;
    int64_t *more = realloc(lane->found, room * sizeof *more);
    if (!more) return -1;
    lane->found = more;
    lane->room = room;
    return 0;
}

typedef struct {
    int64_t free[N], stop[N], trap_0[N], trap_1[N];
    uint64_t frame[N], frames_end[N], draw[N]; /* draw: 4 * step */
} state;

/* Puts a lane at the start of its next frame, or parks it. Returns whether it runs. */
static int enter(state *s, int i, const hg_optics *o) {
    s->trap_0[i] = s->trap_1[i] = NEVER;
    s->draw[i] = 0;
    if (s->frame[i] >= s->frames_end[i]) {
        s->free[i] = s->stop[i] = 0;
        return 0;
    }
    int64_t start = (int64_t)s->frame[i] * o->frame, left = o->pulses - start;
    s->stop[i] = start + (left < o->frame ? left : o->frame);
    s->free[i] = start + o->dead;
    return 1;
}

HG_INLINE int run(hg_aes_batch *encrypt, const hg_optics *o, const uint8_t *light_seed, const uint8_t *basis_seed,
                  const uint8_t *dice_seed, hg_lane *lanes) {
    hg_aes light, bases, dice;
    hg_aes_key(&light, light_seed);
    hg_aes_key(&bases, basis_seed);
    hg_aes_key(&dice, dice_seed);
    uint64_t label_light[N], label_bases[N], frames = (uint64_t)((o->pulses + o->frame - 1) / o->frame);
    state s;
    int running = 0;
    EACH {
        label_light[i] = HG_LABEL_LIGHT;
        label_bases[i] = HG_LABEL_BASES;
        s.frame[i] = frames / N * (uint64_t)i + (frames % N * (uint64_t)i) / N;
        s.frames_end[i] = frames / N * (uint64_t)(i + 1) + (frames % N * (uint64_t)(i + 1)) / N;
        running += enter(&s, i, o);
    }
    while (running) {
        uint64_t gap[N], level[N], first[N], second[N], measured[N], unused[N], trap_dice[2][N], high[N];
        int64_t candidate[N], slot[N], fired[N], notes[N], kind[N], basis[N], bit[N], next[N];
        /* (1) The next candidate by light, or the release of a trap, whichever comes first. */
        encrypt(&dice, s.draw, s.frame, gap, level);
        EACH {
            double slots = minus_log(uniform(gap[i]), o->inverse, o->logarithm) * o->scale;
            double room = (double)(s.stop[i] - s.free[i]);
            candidate[i] = s.free[i] + (int64_t)(slots < room ? slots : room);
            int64_t release = s.trap_0[i] < s.trap_1[i] ? s.trap_0[i] : s.trap_1[i];
            slot[i] = candidate[i] < release ? candidate[i] : release;
        }
        /* (2) What fires there. A release before the candidate finds no light. */
        encrypt(&light, label_light, (const uint64_t *)slot, first, second);
        encrypt(&bases, label_bases, (const uint64_t *)slot, measured, unused);
        EACH {
            kind[i] = 0;
            basis[i] = (first[i] & 0xFFFFFFFFULL) >= o->sent_z;
            bit[i] = second[i] & 1;
            notes[i] = 0;
        }
        for (size_t k = 0; k + 1 < o->kinds; k++) EACH kind[i] += first[i] >> 32 >= o->thresholds[k];
        if (o->outcomes) {
            EACH high[i] = s.draw[i] | 2;
            encrypt(&dice, high, s.frame, first, unused);
            EACH {
                size_t row = (size_t)(kind[i] * 4 + basis[i] * 2 + bit[i]) * o->outcomes, outcome = 0;
                for (size_t k = 0; k + 1 < o->outcomes; k++) outcome += (int64_t)(first[i] >> 1) >= o->eve[row + k];
                uint8_t marks = o->eve_marks[row + outcome];
                basis[i] = marks & 1;
                bit[i] = marks >> 1 & 1;
                notes[i] = marks & 0x1C;
            }
        }
        EACH {
            int64_t own = (measured[i] & 0xFFFFFFFFULL) >= o->measured_z, dice_level = (int64_t)(level[i] >> 1);
            int64_t relation = own == basis[i] ? bit[i] : 2;
            const int64_t *row = o->patterns + 9 * kind[i] + 3 * relation;
            int64_t pattern = 1 + (dice_level >= row[0]) + (dice_level >= row[1]);
            pattern = dice_level < row[2] ? pattern : 0;
            pattern = candidate[i] == slot[i] ? pattern : 0;
            fired[i] = pattern | (s.trap_0[i] == slot[i]) | (int64_t)(s.trap_1[i] == slot[i]) << 1;
        }
        /* (3) Hold-off and traps. */
        EACH {
            next[i] = slot[i] + 1 + (fired[i] ? o->dead : 0);
            s.trap_0[i] = s.trap_0[i] < next[i] ? NEVER : s.trap_0[i];
            s.trap_1[i] = s.trap_1[i] < next[i] ? NEVER : s.trap_1[i];
        }
        if (o->filled > 0) {
            uint8_t fills[N];
            EACH high[i] = s.draw[i] | 1;
            encrypt(&dice, high, s.frame, trap_dice[0], trap_dice[1]);
            EACH fills[i] = (uint8_t)(((fired[i] & 1) & (uniform(trap_dice[0][i]) < o->filled)) |
                                      (((fired[i] >> 1) & (uniform(trap_dice[1][i]) < o->filled)) << 1));
            EACH if (fills[i]) for (int d = 0; d < 2; d++) {
                if (!(fills[i] >> d & 1)) continue;
                double beyond = minus_log(uniform(trap_dice[d][i]), o->inverse, o->logarithm) - o->filled_log;
                double delay = (beyond > 0 ? beyond : 0) * o->decay;
                (d ? s.trap_1 : s.trap_0)[i] = next[i] + (int64_t)(delay < FURTHEST ? delay : FURTHEST);
            }
        }
        /* (4) Write it down; an ended frame had no event. */
        EACH {
            int64_t word = (int64_t)((uint64_t)slot[i] << HG_NOTES) | notes[i] | fired[i];
            if (slot[i] < s.stop[i]) {
                hg_lane *lane = &lanes[i];
                if (lane->count == lane->room && grow(lane)) return -1;
                lane->found[lane->count] = word;
                lane->count += fired[i] != 0;
                s.free[i] = next[i];
                s.draw[i] += 4;
            } else if (s.frame[i] < s.frames_end[i]) {
                s.frame[i]++;
                running -= !enter(&s, i, o);
            } else { /* parked: what it drew means nothing */
                s.trap_0[i] = s.trap_1[i] = NEVER;
            }
        }
    }
    return 0;
}

HG_WIDE static int run_wide(const hg_optics *o, const uint8_t *light, const uint8_t *bases, const uint8_t *dice,
                            hg_lane *lanes) {
    return run(hg_aes_wide, o, light, bases, dice, lanes);
}

int hg_clicks(const hg_optics *o, const uint8_t *light, const uint8_t *bases, const uint8_t *dice, int level,
              hg_lane lanes[HG_CLICK_LANES]) {
    return level >= 2 ? run_wide(o, light, bases, dice, lanes) : run(hg_aes_narrow, o, light, bases, dice, lanes);
}
#else
int hg_clicks(const hg_optics *o, const uint8_t *light, const uint8_t *bases, const uint8_t *dice, int level,
              hg_lane lanes[HG_CLICK_LANES]) {
    (void)o, (void)light, (void)bases, (void)dice, (void)level, (void)lanes;
    return -1;
}
#endif
