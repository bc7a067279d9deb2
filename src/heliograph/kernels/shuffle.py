"""The order of a permuted pass: a shuffle of words, turned and transposed, so that positions map by arithmetic.

The first ``tiles`` * 4096 positions go through four steps: the 64-bit words are permuted (``words``), each is turned
left by ``turns``, each tile of 64 words is transposed as a matrix of 64 by 64 bits, and the words are permuted again
(``outs``). The up to 4095 positions behind them are permuted among themselves (``tail``). A word of the result thus
holds bits of 64 different words; a burst is spread (performance.md 3a).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "Shuffle", "positions"]

TILE: Final = 4096

Table = NDArray[np.uint32]
Ranks = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Shuffle:
    """``words``, ``outs``: permutations of 0..64 * tiles - 1; ``turns``: below 64; ``tail``: as long as the rest."""

    words: Table
    turns: NDArray[np.uint8]
    outs: Table
    tail: Table


def positions(shuffle: Shuffle, ranks: Ranks) -> Ranks:
    """Return the position at each rank: slot s = (row / 64) * 64 + rank % 64 with row = outs[rank / 64] holds it."""
    whole = 64 * len(shuffle.words)
    out = np.empty(len(ranks), dtype=np.int64)
    tiled = ranks < whole
    inside = ranks[tiled]
    row = shuffle.outs[inside // 64].astype(np.int64)
    slot = row // 64 * 64 + inside % 64
    out[tiled] = shuffle.words[slot].astype(np.int64) * 64 + (row + shuffle.turns[slot]) % 64
    out[~tiled] = whole + shuffle.tail[ranks[~tiled] - whole].astype(np.int64)
    return out
