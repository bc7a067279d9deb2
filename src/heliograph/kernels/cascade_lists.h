/* Lists of numbers that grow: nodes, ranks, positions. All zero is an empty list; `at` is for free(). */
#ifndef HELIOGRAPH_CASCADE_LISTS_H
#define HELIOGRAPH_CASCADE_LISTS_H

#include <stddef.h>
#include <stdint.h>

#include "cascade.h"

typedef struct {
    uint32_t *at;
    size_t count, room;
} hg_list;

/* Makes room for `room` items in all, and keeps those that are there; HG_NO_MEMORY changes nothing. */
int hg_grow(hg_list *to, size_t room);

/* Ascending; quick where the list is nearly so. */
void hg_sort(hg_list *of);

/* Ascending, each item once. */
void hg_once_each(hg_list *of);

static inline int hg_push(hg_list *to, uint32_t item) {
    if (to->count == to->room && hg_grow(to, to->count + 1)) return HG_NO_MEMORY;
    to->at[to->count++] = item;
    return HG_OK;
}

#endif
