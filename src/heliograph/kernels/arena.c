#if defined(__linux__)
#define _DEFAULT_SOURCE /* madvise */
#include <sys/mman.h>
#endif

#include "arena.h"

#include <stdlib.h>

void *hg_arena(size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const size_t page = (size_t)1 << 21;
    if (bytes >= page) {
        size_t whole = (bytes + page - 1) / page * page;
        void *at = aligned_alloc(page, whole);
        if (!at) return NULL;
        (void)madvise(at, whole, MADV_HUGEPAGE); /* a wish: without it everything works, slower */
        return at;
    }
#endif
    return malloc(bytes ? bytes : 1);
}
