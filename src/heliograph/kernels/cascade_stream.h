/* What one round compares, as a stream of bits: our own parities as they are asked for, the differences as they are learnt.
 * Packed, most significant bit first. */
#ifndef HELIOGRAPH_CASCADE_STREAM_H
#define HELIOGRAPH_CASCADE_STREAM_H

#include "cascade.h"
#include "words.h"

typedef struct { /* count, room: in bits */
    uint8_t *bytes;
    size_t count, room;
    uint64_t pending; /* the last count % 64 bits, not yet in `bytes` */
} hg_asked;

typedef struct { /* of differences */
    const uint8_t *bytes;
    size_t at;
} hg_answers;

/* Makes room for twice what there is; HG_NO_MEMORY changes nothing. */
int hg_more_room(hg_asked *to);

/* Writes what is pending, with zeros to the end of a byte: the end of a round. HG_OK or HG_NO_MEMORY. */
int hg_flush(hg_asked *to);

/* Asks for one more parity; ours is given. HG_OK or HG_NO_MEMORY. */
static inline int hg_note(hg_asked *to, unsigned parity) {
    to->pending = to->pending << 1 | parity;
    if (++to->count % 64 == 0) {
        if (to->count > to->room && hg_more_room(to)) return HG_NO_MEMORY;
        hg_store(to->bytes + to->count / 8 - 8, to->pending);
    }
    return HG_OK;
}

/* The next difference. As many are there as were asked for. */
static inline unsigned hg_next(hg_answers *of) {
    size_t at = of->at++;
    return (unsigned)(of->bytes[at / 8] >> (7 - at % 8)) & 1u;
}

#endif
