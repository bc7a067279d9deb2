/* One piece of memory for a whole block, in huge pages where the system has them: the search touches it all over,
 * and with small pages most of its time goes into finding them. */
#ifndef HELIOGRAPH_ARENA_H
#define HELIOGRAPH_ARENA_H

#include <stddef.h>

/* Holds anything: whoever begins to use a part of it clears that, and so has it in the cache. NULL without memory. To be freed by free(). */
void *hg_arena(size_t bytes);

#endif
