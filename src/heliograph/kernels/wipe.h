/* Overwrites secret bits before their memory is given back: what is freed is handed out again, and may reach a core dump.
 * The compiler may not leave it out. What a processor's registers or a swapped page keep is not reached. */
#ifndef HELIOGRAPH_WIPE_H
#define HELIOGRAPH_WIPE_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static inline void hg_wipe(void *at, size_t bytes) {
    if (!at || !bytes) return;
#if defined(__GNUC__) || defined(__clang__)
    memset(at, 0, bytes);
    __asm__ __volatile__("" : : "r"(at) : "memory"); /* says that somebody reads it */
#else
    volatile unsigned char *byte = (volatile unsigned char *)at;
    while (bytes--) *byte++ = 0;
#endif
}

static inline void hg_wipe_and_free(void *at, size_t bytes) {
    hg_wipe(at, bytes);
    free(at);
}

#endif
