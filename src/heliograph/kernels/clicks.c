#include "clicks.h"

#include <string.h>

#include "aes.h"

size_t hg_clicks_cut(int64_t *found, size_t room, const size_t counts[HG_CLICK_LANES], uint8_t *notes) {
    size_t at = 0;
    for (size_t lane = 0; lane < HG_CLICK_LANES; lane++)
        for (const int64_t *from = found + lane * room, *end = from + counts[lane]; from < end; from++, at++) {
            notes[at] = (uint8_t)*from; /* at most where it is read */
            found[at] = *from >> HG_NOTES;
        }
    return at;
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

typedef struct {
    int64_t free[N], stop[N], trap_0[N], trap_1[N];
    int64_t at[N], end[N];                     /* of `found` */
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
                  const uint8_t *dice_seed, int64_t *found, size_t room, size_t *counts) {
    hg_aes light, bases, dice;
    hg_aes_key(&light, light_seed);
    hg_aes_key(&bases, basis_seed);
    hg_aes_key(&dice, dice_seed);
    uint64_t label_light[N], label_bases[N], frames = (uint64_t)((o->pulses + o->frame - 1) / o->frame);
    const int64_t *restrict patterns = o->patterns, dead = o->dead;
    const double *restrict inverse = o->inverse, *restrict logarithm = o->logarithm, scale = o->scale;
    const uint64_t sent_z = o->sent_z, measured_z = o->measured_z;
    state s;
    int running = 0;
    EACH {
        label_light[i] = HG_LABEL_LIGHT;
        label_bases[i] = HG_LABEL_BASES;
        s.frame[i] = frames / N * (uint64_t)i + (frames % N * (uint64_t)i) / N;
        s.frames_end[i] = frames / N * (uint64_t)(i + 1) + (frames % N * (uint64_t)(i + 1)) / N;
        s.at[i] = i * (int64_t)room;
        s.end[i] = s.at[i] + (int64_t)room;
        running += enter(&s, i, o);
    }
    while (running) {
        uint64_t gap[N], level[N], first[N], second[N], measured[N], unused[N], trap_dice[2][N], high[N];
        int64_t candidate[N], slot[N], fired[N], notes[N], kind[N], basis[N], bit[N], next[N];
        int64_t at[N], only_0[N], not_both[N], any[N];
        /* (1) The next candidate by light, or the release of a trap, whichever comes first. */
        encrypt(&dice, s.draw, s.frame, gap, level);
        EACH {
            double slots = minus_log(uniform(gap[i]), inverse, logarithm) * scale;
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
            basis[i] = (first[i] & 0xFFFFFFFFULL) >= sent_z;
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
        EACH { /* masks, no branches: a compiler makes vectors of this */
            int64_t own = (measured[i] & 0xFFFFFFFFULL) >= measured_z, crossed = own ^ basis[i];
            at[i] = 9 * kind[i] + 3 * ((bit[i] & (crossed - 1)) + 2 * crossed);
            level[i] >>= 1;
        }
        EACH only_0[i] = patterns[at[i]];
        EACH not_both[i] = patterns[at[i] + 1];
        EACH any[i] = patterns[at[i] + 2];
        EACH {
            int64_t dice_level = (int64_t)level[i];
            int64_t pattern = 1 + (int64_t)(dice_level >= only_0[i]) + (int64_t)(dice_level >= not_both[i]);
            int64_t lit = (int64_t)(dice_level < any[i]) & (int64_t)(candidate[i] == slot[i]);
            int64_t released = (int64_t)(s.trap_0[i] == slot[i]) | (int64_t)(s.trap_1[i] == slot[i]) << 1;
            fired[i] = (pattern & -lit) | released;
        }
        /* (3) Hold-off and traps. */
        EACH {
            next[i] = slot[i] + 1 + (dead & -(int64_t)(fired[i] != 0));
            s.trap_0[i] = s.trap_0[i] < next[i] ? NEVER : s.trap_0[i];
            s.trap_1[i] = s.trap_1[i] < next[i] ? NEVER : s.trap_1[i];
        }
        if (o->filled > 0) {
            const double filled = o->filled;
            int64_t some = 0, fills[N];
            EACH high[i] = s.draw[i] | 1;
            encrypt(&dice, high, s.frame, trap_dice[0], trap_dice[1]);
            EACH {
                int64_t one = (int64_t)(uniform(trap_dice[0][i]) < filled), two = (int64_t)(uniform(trap_dice[1][i]) < filled);
                fills[i] = fired[i] & (one | two << 1);
                some |= fills[i];
            }
            if (some) EACH if (fills[i]) for (int d = 0; d < 2; d++) {
                if (!(fills[i] >> d & 1)) continue;
                double beyond = minus_log(uniform(trap_dice[d][i]), inverse, logarithm) - o->filled_log;
                double delay = (beyond > 0 ? beyond : 0) * o->decay;
                (d ? s.trap_1 : s.trap_0)[i] = next[i] + (int64_t)(delay < FURTHEST ? delay : FURTHEST);
            }
        }
        /* (4) Write it down. An ended frame had no event: what it wrote is written over. */
        int64_t ended = 0, full = 0;
        EACH full |= (int64_t)(s.at[i] >= s.end[i]);
        if (full) return -1;
        EACH found[s.at[i]] = (int64_t)((uint64_t)slot[i] << HG_NOTES) | notes[i] | fired[i];
        EACH {
            int64_t runs = (int64_t)(slot[i] < s.stop[i]);
            s.at[i] += runs & (int64_t)(fired[i] != 0);
            s.free[i] = runs ? next[i] : s.free[i];
            s.draw[i] += 4;
            ended |= runs ^ 1;
        }
        if (ended) EACH if (slot[i] >= s.stop[i]) {
            int more = s.frame[i] < s.frames_end[i];
            s.frame[i] += (uint64_t)more;
            running -= enter(&s, i, o) < more;
        }
    }
    EACH counts[i] = (size_t)s.at[i] - (size_t)i * room;
    return 0;
}

HG_WIDE static int run_wide(const hg_optics *o, const uint8_t *light, const uint8_t *bases, const uint8_t *dice,
                            int64_t *found, size_t room, size_t *counts) {
    return run(hg_aes_wide, o, light, bases, dice, found, room, counts);
}

int hg_clicks(const hg_optics *o, const uint8_t *light, const uint8_t *bases, const uint8_t *dice, int level,
              int64_t *found, size_t room, size_t counts[HG_CLICK_LANES]) {
    return level >= 2 ? run_wide(o, light, bases, dice, found, room, counts) : run(hg_aes_narrow, o, light, bases, dice, found, room, counts);
}
#else
int hg_clicks(const hg_optics *o, const uint8_t *light, const uint8_t *bases, const uint8_t *dice, int level,
              int64_t *found, size_t room, size_t counts[HG_CLICK_LANES]) {
    (void)o, (void)light, (void)bases, (void)dice, (void)level, (void)found, (void)room, (void)counts;
    return -1;
}
#endif
