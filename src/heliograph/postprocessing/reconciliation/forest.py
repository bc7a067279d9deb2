"""The correcting side's knowledge of one pass: every group and sub-group whose parity it has learnt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.parity import parity_forest

__all__ = ["Forest"]

Bits = NDArray[np.uint8]
Order = NDArray[np.int32]
Nodes = NDArray[np.int64]

_SHIFT = np.int64(32)
_INDEX = np.int64(2**32 - 1)
# A node's value: before its parity is learnt, the parity of our own bits; afterwards _KNOWN, plus 1 if ours differs.
_KNOWN = np.uint8(2)
_ODD = np.uint8(3)


class Forest:
    """Binary trees over one pass's order. A node is (level << 32 | index).

    ``frontier`` holds the smallest nodes known to contain an odd number of errors: their halves are not known yet.
    One query, for the left half, splits such a node, since the two halves together are odd. A correction anywhere
    flips the values of all nodes above it in every forest; that is all there is to backtracking, and each sub-group
    once disclosed takes part in it.
    """

    __slots__ = ("_inverse", "_offsets", "_order", "_values", "frontier", "top")

    def __init__(self, bits: Bits, order: Order, top: int) -> None:
        """Take our own bits (shape (n,)) and the pass's positions; a pass need not contain every position."""
        self._order = order
        self._values, self._offsets = parity_forest(bits[order], top)
        self._inverse = np.full(len(bits), -1, dtype=np.int32)
        self._inverse[order] = np.arange(len(order), dtype=np.int32)
        self.top = top
        self.frontier: Nodes = np.empty(0, dtype=np.int64)

    @property
    def tops(self) -> int:
        """The number of top nodes."""
        return int(self._offsets[self.top + 1] - self._offsets[self.top])

    def learn_tops(self, first: int, parities: Bits) -> None:
        """Store the peer's parities of top nodes first, first + 1, ..."""
        start = int(self._offsets[self.top]) + first
        part = self._values[start : start + len(parities)]
        part ^= parities
        part |= _KNOWN
        odd = np.flatnonzero(part == _ODD).astype(np.int64) + first
        self._enter((np.int64(self.top) << _SHIFT) | odd)

    def own_top(self, index: int) -> int:
        """Return the parity of our own bits in a top node not yet known."""
        return int(self._values[self._offsets[self.top] + index] & 1)

    def imply_last_top(self) -> None:
        """Conclude the last top node from the others, all known: the errors in the whole pass are even in number."""
        start, last = int(self._offsets[self.top]), len(self._values) - 1
        others = int(np.bitwise_xor.reduce(self._values[start:last] & 1)) if last > start else 0
        self.learn_tops(self.tops - 1, np.array([self.own_top(self.tops - 1) ^ others], dtype=np.uint8))

    def learn_left_halves(self, nodes: Nodes, parities: Bits) -> None:
        """Store the peer's parities of the left halves of frontier ``nodes``; the right halves are implied."""
        level = (nodes >> _SHIFT) - 1
        left = (nodes & _INDEX) << 1
        at = self._offsets[level] + left
        differs = (self._values[at] ^ parities) & 1
        self._values[at] = differs | _KNOWN
        self._values[at + 1] = (differs ^ 1) | _KNOWN
        odd_half = (level << _SHIFT) | (left + (differs ^ 1))
        self.frontier = self.frontier[~np.isin(self.frontier, nodes, assume_unique=True)]
        self._enter(odd_half)

    def take_found(self) -> Order:
        """Return the positions of errors that are now cornered, and take them off the frontier."""
        single = self.frontier <= _INDEX
        ranks = self.frontier[single]
        self.frontier = self.frontier[~single]
        return self._order[ranks]

    def flip(self, positions: Order) -> bool:
        """Account for corrections of distinct ``positions``. Return False if they contradict an earlier answer."""
        ranks = self._inverse[positions].astype(np.int64)
        ranks = ranks[ranks >= 0]
        if not len(ranks):
            return True
        levels = np.arange(self.top + 1, dtype=np.int64)[:, None]
        indices = ranks[None, :] >> levels
        at = self._offsets[: self.top + 1, None] + indices
        np.bitwise_xor.at(self._values, at, np.uint8(1))
        values = self._values[at]
        if (values[0] == _ODD).any():
            return False  # a single bit, known to be right before, would now be wrong
        # The smallest known node above each correction is the only one that can join or leave the frontier.
        lowest = np.argmax(values >= _KNOWN, axis=0)
        column = np.arange(len(ranks))
        odd = values[lowest, column] == _ODD
        joining = (lowest[odd].astype(np.int64) << _SHIFT) | indices[lowest, column][odd]
        nodes = self.frontier
        still = self._values[self._offsets[nodes >> _SHIFT] + (nodes & _INDEX)] == _ODD
        self.frontier = nodes[still]
        self._enter(joining)
        return True

    def _enter(self, nodes: Nodes) -> None:
        """Add odd nodes to the frontier, each once, going down where the right half lies beyond the end."""
        length = len(self._order)
        while len(nodes):
            level = nodes >> _SHIFT
            index = nodes & _INDEX
            short = (level > 0) & ((2 * index + 1) << np.maximum(level - 1, 0) >= length)
            if not short.any():
                break
            half = ((level - 1) << _SHIFT) | (index << 1)
            self._values[self._offsets[level[short] - 1] + 2 * index[short]] = _ODD
            nodes = np.where(short, half, nodes)
        self.frontier = np.union1d(self.frontier, nodes)
