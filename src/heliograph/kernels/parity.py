"""Parities of runs of bits: prefix sums for the side that answers, a forest of halves for the side that searches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["parity_forest", "prefix_parities", "range_parities"]

Bits = NDArray[np.uint8]
Indices = NDArray[np.int64]


def prefix_parities(bits: Bits) -> Bits:
    """Return shape (n + 1,): entry i is the parity of the first i of ``bits`` (shape (n,), values 0 and 1)."""
    prefix = np.zeros(len(bits) + 1, dtype=np.uint8)
    np.bitwise_xor.accumulate(bits, out=prefix[1:])
    return prefix


def range_parities(prefix: Bits, starts: Indices, stops: Indices) -> Bits:
    """Return the parity of each run [start, stop) from :func:`prefix_parities`; O(1) for each run."""
    parities: Bits = prefix[starts] ^ prefix[stops]
    return parities


def parity_forest(leaves: Bits, top: int) -> tuple[Bits, Indices]:
    """Return the parities of all nodes at levels 0..``top``, level after level, and each level's offset.

    Node i of level l covers leaves [i * 2^l, (i + 1) * 2^l), the last one fewer. Offsets have shape (top + 2,), the
    last being the number of nodes. O(n).
    """
    levels = [leaves]
    for _ in range(top):
        below = levels[-1]
        pairs = len(below) // 2
        above = np.empty((len(below) + 1) // 2, dtype=np.uint8)
        np.bitwise_xor(below[0 : 2 * pairs : 2], below[1 : 2 * pairs : 2], out=above[:pairs])
        above[pairs:] = below[2 * pairs :]
        levels.append(above)
    sizes = [0, *(len(level) for level in levels)]
    return np.concatenate(levels), np.cumsum(sizes, dtype=np.int64)
