#include "cascade_stream.h"

#include <stdlib.h>

int hg_more_room(hg_asked *to) {
    size_t room = 2 * to->count + 4096;
    uint8_t *bytes = realloc(to->bytes, room / 8);
    if (!bytes) return HG_NO_MEMORY;
    to->bytes = bytes;
    to->room = room / 64 * 64;
    return HG_OK;
}

int hg_flush(hg_asked *to) {
    size_t whole = to->count / 64 * 64, left = to->count - whole;
    if (whole + 64 > to->room && hg_more_room(to)) return HG_NO_MEMORY;
    if (left) hg_store(to->bytes + whole / 8, to->pending << (64 - left));
    return HG_OK;
}
