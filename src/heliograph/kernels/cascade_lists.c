#include "cascade_lists.h"

#include <stdlib.h>

#include "cascade.h"

int hg_grow(hg_list *to, size_t room) {
    if (room <= to->room) return HG_OK;
    if (room < 2 * to->room) room = 2 * to->room;
    if (room < 32) room = 32;
    uint32_t *at = realloc(to->at, room * sizeof *at);
    if (!at) return HG_NO_MEMORY;
    to->at = at;
    to->room = room;
    return HG_OK;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void hg_sort(hg_list *of) {
    size_t i = 1;
    while (i < of->count && of->at[i - 1] <= of->at[i]) i++;
    if (i >= of->count) return;
    if (of->count > 48) {
        qsort(of->at, of->count, sizeof *of->at, ascending);
        return;
    }
    for (; i < of->count; i++) {
        uint32_t item = of->at[i];
        size_t j = i;
        for (; j && of->at[j - 1] > item; j--) of->at[j] = of->at[j - 1];
        of->at[j] = item;
    }
}

void hg_once_each(hg_list *of) {
    size_t count = 0;
    hg_sort(of);
    for (size_t i = 0; i < of->count; i++)
        if (!count || of->at[count - 1] != of->at[i]) of->at[count++] = of->at[i];
    of->count = count;
}
