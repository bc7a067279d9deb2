"""What is known of one pass of Cascade: a binary tree over its order (the readable twin of ``cascade_tree.h``)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.parity import parity_forest

__all__ = ["SHIFT", "Tree", "subset"]

Bits = NDArray[np.uint8]
Nodes = NDArray[np.int64]

SHIFT: Final = np.int64(32)  # a node is level << 32 | index
_INDEX: Final = np.int64(2**32 - 1)
_KNOWN: Final = np.uint8(2)
_ODD: Final = np.uint8(3)
_SUBSET_LEVELS: Final = 6  # above it a subset has no empty node, or only with probability 2^-64
_DEEP_LEVEL, _DEEP_LEVEL_OF_SUBSETS = 2, 9  # where quarters may be asked for: none of them is empty


def subset(key: int, length: int) -> Bits:
    """Return a pseudorandom subset of about half of ``length`` positions, 1 for those in it.

    64 positions at a time, the first in the highest bit, from the finalizer of SplitMix64 [Steele, Lea and Flood 2014]
    over ``key`` (64 bits) and the number of the word.
    """
    z = np.uint64(key) + np.arange(1, length // 64 + 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.unpackbits(z.astype(">u8").view(np.uint8), count=length)


class Tree:
    """A pass over ``order`` (rank -> position), or over the positions of ``mask`` in natural order.

    ``values``: for each node 2 if its parity of errors is known, plus 1 if that is odd; ``own``: parities of our own
    bits; ``frontier``: the smallest nodes known to be odd, sorted. Node i of level l covers ranks [i * 2^l,
    (i + 1) * 2^l), cut at the end.
    """

    def __init__(self, bits: Bits, order: Nodes, top: int, mask: Bits | None = None) -> None:
        self.top = top
        self.mask = mask
        self.order = order
        self.rank = np.empty_like(order)
        self.rank[order] = np.arange(len(order))
        self.own, self.offsets = parity_forest(bits[order] if mask is None else bits & mask, top)
        self.values = np.zeros_like(self.own)
        self.frontier: Nodes = np.empty(0, dtype=np.int64)
        self.fresh: Nodes = np.empty(0, dtype=np.int64)
        self.chosen: Nodes = np.empty(0, dtype=np.int64)
        self.deep: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)

    @property
    def tops(self) -> int:
        """The number of groups: nodes of the top level."""
        return int(self.offsets[self.top + 1] - self.offsets[self.top])

    def at(self, level: Nodes, index: Nodes) -> Nodes:
        """Return where nodes lie in ``values``."""
        return self.offsets[level] + index

    def know(self, level: Nodes, index: Nodes, odd: Bits | np.uint8) -> None:
        """Set the parity of errors of nodes."""
        self.values[self.at(level, index)] = odd | _KNOWN

    def empty(self, level: Nodes, index: Nodes) -> NDArray[np.bool_]:
        """Return whether no position of the pass lies in a node."""
        out = index << level >= len(self.order)
        if self.mask is not None:
            for i in np.flatnonzero(~out & (level <= _SUBSET_LEVELS)):
                start = int(index[i] << level[i])
                out[i] = not self.mask[start : start + (1 << int(level[i]))].any()
        return out

    def enter(self, nodes: Nodes) -> Nodes:
        """Take in known odd nodes, going down where one half is empty; return the positions cornered by that."""
        level, index = nodes >> SHIFT, nodes & _INDEX
        while True:
            below = np.maximum(level - 1, 0)
            right = (level > 0) & self.empty(below, 2 * index)
            down = right | ((level > 0) & self.empty(below, 2 * index + 1))
            if not down.any():
                break
            level, index = level - down, np.where(down, 2 * index + right, index)
            self.know(level[down], index[down], np.uint8(1))
        self.fresh = np.concatenate([self.fresh, ((level << SHIFT) | index)[level > 0]])
        cornered: Nodes = self.order[index[level == 0]]
        return cornered

    def merge(self) -> None:
        """Join the new nodes to the frontier, sorted, without those that became even."""
        nodes = np.union1d(self.frontier, self.fresh)
        odd = self.values[self.at(nodes >> SHIFT, nodes & _INDEX)] & 1
        self.frontier, self.fresh = nodes[odd == 1], np.empty(0, dtype=np.int64)

    def inside(self, found: Nodes) -> Nodes:
        """Return the ranks of those positions that lie in the pass."""
        return self.rank[found if self.mask is None else found[self.mask[found] == 1]]

    def flip(self, found: Nodes, *, own: bool) -> None:
        """Flip all nodes above positions."""
        ranks = self.inside(found)
        for level in range(self.top + 1):
            where = self.offsets[level] + (ranks >> level)
            np.bitwise_xor.at(self.values, where, np.uint8(1))
            if own:
                np.bitwise_xor.at(self.own, where, np.uint8(1))

    def look_again(self, found: Nodes) -> Nodes | None:
        """Let the smallest known node above each correction join the frontier if it is odd; None if that is a leaf."""
        ranks = self.inside(found)
        levels = np.arange(self.top + 1, dtype=np.int64)[:, None]
        values = self.values[self.offsets[: self.top + 1, None] + (ranks[None, :] >> levels)]
        lowest = np.argmax(values >= _KNOWN, axis=0)
        odd = values[lowest, np.arange(len(ranks))] == _ODD
        if (odd & (lowest == 0)).any():
            return None
        return self.enter((lowest[odd].astype(np.int64) << SHIFT) | (ranks[odd] >> lowest[odd]))

    def own_tops(self, count: int) -> Bits:
        """Return our own parities of the first ``count`` groups."""
        start = int(self.offsets[self.top])
        return self.own[start : start + count].copy()

    def learn_tops(self, differences: Bits) -> Nodes:
        """Take in whether the first groups are odd; return the positions cornered by that."""
        index = np.arange(len(differences))
        level = np.full(len(differences), self.top)
        self.know(level, index, differences)
        cornered = self.enter(((level << SHIFT) | index)[differences == 1])
        self.merge()
        return cornered

    def imply_last_top(self) -> Nodes:
        """Conclude the last group from the others, all known: the errors in the whole pass are even in number."""
        start, last = int(self.offsets[self.top]), self.tops - 1
        odd = np.bitwise_xor.reduce(self.values[start : start + last] & 1, dtype=np.uint8)
        self.values[start + last] = odd | _KNOWN
        cornered = self.enter(np.array([self.top << 32 | last] if odd else [], dtype=np.int64))
        self.merge()
        return cornered

    @property
    def asked(self) -> int:
        """How many parities were asked for."""
        return len(self.chosen) + 2 * int(self.deep.sum())

    def ask_halves(self, above: int, *, deep: bool) -> Bits:
        """Choose the nodes of the frontier below level ``above``; return our own parities of their left halves.

        ``deep``: behind each those of the left quarters of both halves too, where no quarter can be empty.
        """
        self.chosen = self.frontier[: np.searchsorted(self.frontier, above << 32)]
        level, index = self.chosen >> SHIFT, self.chosen & _INDEX
        lowest = _DEEP_LEVEL if self.mask is None else _DEEP_LEVEL_OF_SUBSETS
        self.deep = (level >= lowest) & ((index + 1) << level <= len(self.order)) & deep
        below = np.maximum(level - 2, 0)
        own = [
            self.own[self.at(level - 1, 2 * index)],
            self.own[self.at(below, 4 * index) * self.deep],
            self.own[self.at(below, (4 * index + 2) * self.deep)],
        ]
        return np.stack(own, axis=1)[self._wanted()]

    def _wanted(self) -> NDArray[np.bool_]:
        """Which of three parities of each chosen node are asked for."""
        return np.stack([np.ones_like(self.deep), self.deep, self.deep], axis=1)

    def learn_halves(self, differences: Bits) -> Nodes:
        """Take in which left halves are odd, and which left quarters; return what is cornered.

        A right half is odd if the left one is not; a right quarter, if its half and the left one differ.
        """
        table = np.zeros((len(self.chosen), 3), dtype=np.uint8)
        table[self._wanted()] = differences
        left = table[:, 0]
        level, index = (self.chosen >> SHIFT) - 1, (self.chosen & _INDEX) << 1
        self.frontier = self.frontier[len(self.chosen) :]
        self.know(level, index, left)
        self.know(level, index + 1, left ^ np.uint8(1))
        odd = [((level << SHIFT) | (index + (left ^ np.uint8(1))))[~self.deep]]
        level, index, table = level[self.deep] - 1, index[self.deep], table[self.deep]
        for half in (0, 1):
            whole, first = table[:, 0] ^ np.uint8(half), table[:, 1 + half]
            for i, quarter in enumerate((first, first ^ whole)):
                self.know(level, 2 * (index + half) + i, quarter)
                odd.append(((level << SHIFT) | (2 * (index + half) + i))[quarter == 1])
        cornered = self.enter(np.concatenate(odd))
        self.merge()
        return cornered
