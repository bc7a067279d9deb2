"""What memory a process of CPython has: what the system gave it, and what of that is in use, so that a leak shows.

Resident memory alone does not tell a leak from what the allocator keeps for later: it grows with the largest moment so
far, and with pieces between which holes are too small.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["measure_memory"]

_FIELDS: Final = (  # struct mallinfo2 of malloc.h, all of them size_t
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def measure_memory() -> dict[str, int]:
    """Return this process's figures, after a collection of cycles.

    ``rss_kib``: resident; ``heap_kib``: what malloc has given out and not got back (mallinfo2 of glibc 2.33; 0 where
    there is none); ``python_blocks``: Python's own allocations that are alive.
    """
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    heap = 0
    if mallinfo2 is not None:
        mallinfo2.restype = _Mallinfo2
        found = mallinfo2()
        heap = found.uordblks + found.hblkhd
    return {
        "rss_kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "heap_kib": heap // 1024,
        "python_blocks": sys.getallocatedblocks(),
    }
