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
_DIGITS, _DIGITS_OF_SUBSETS = 5, 9  # levels from which a place is asked for by its digits
_BY_HALF, _BY_DIGITS = -1, -2  # how a node is asked about; else by the rank in it that digits led to


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
        self.how: Nodes = np.empty(0, dtype=np.int64)
        self.guesses: list[int] = []

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
            # Nodes that reach beyond the end too: the search must never go there, whatever a peer's parities say.
            for i in np.flatnonzero(~out & ((level <= _SUBSET_LEVELS) | ((index + 1) << level > len(self.order)))):
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
        """Let the smallest known node above each correction join the frontier if it is odd; None if that is a leaf.

        What was corrected is known to be right from now on.
        """
        ranks = self.inside(found)
        levels = np.arange(self.top + 1, dtype=np.int64)[:, None]
        values = self.values[self.offsets[: self.top + 1, None] + (ranks[None, :] >> levels)]
        lowest = np.argmax(values >= _KNOWN, axis=0)
        odd = values[lowest, np.arange(len(ranks))] == _ODD
        if (odd & (lowest == 0)).any():
            return None
        cornered = self.enter((lowest[odd].astype(np.int64) << SHIFT) | (ranks[odd] >> lowest[odd]))
        self.values[self.offsets[0] + ranks] = _KNOWN
        return cornered

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
        digits = self.chosen[self.how == _BY_DIGITS] >> SHIFT
        return len(self.chosen) + int((digits - 2).sum())

    def ask_halves(self, above: int, *, at_once: bool) -> Bits:
        """Choose the nodes of the frontier below level ``above``; return our own parities of what is asked about them.

        Of the left half, as a rule. ``at_once``: for each digit of the rank, of the ranks where it is 0. Where digits
        led to a rank, of that bit alone.
        """
        self.chosen = self.frontier[: np.searchsorted(self.frontier, above << 32)]
        level, index = self.chosen >> SHIFT, self.chosen & _INDEX
        self.how = np.full(len(self.chosen), _BY_HALF)
        if at_once:
            lowest = _DIGITS if self.mask is None else _DIGITS_OF_SUBSETS
            whole = ((index + 1) << level <= len(self.order)) | (self.mask is not None)
            self.how[(level >= lowest) & whole] = _BY_DIGITS
        for rank in self.guesses:
            self.how[rank >> level == index] = rank
        self.guesses = []
        if (self.how == _BY_HALF).all():
            return self.own[self.at(level - 1, 2 * index)]
        own = [self._own_about(*about) for about in zip(level.tolist(), index.tolist(), self.how.tolist(), strict=True)]
        return np.concatenate(own)

    def _own_about(self, level: int, index: int, how: int) -> Bits:
        if how == _BY_HALF:
            return self.own[self.offsets[level - 1] + 2 * index :][:1]
        if how != _BY_DIGITS:
            return self.own[self.offsets[0] + how :][:1]
        leaves = self.own[self.offsets[0] : self.offsets[1] if self.top else None]
        leaves = leaves[index << level : (index + 1) << level]
        ranks = np.arange(len(leaves))
        sums = [int(leaves[ranks >> digit & 1 == 0].sum()) & 1 for digit in range(level - 1, 0, -1)]
        return np.array(sums, dtype=np.uint8)

    def _guess(self, first: int) -> None:
        """Note the first rank from one on, within a pair, of which it is not known whether it is wrong."""
        for rank in range(first, min(first // 2 * 2 + 2, len(self.order))):
            inside = self.mask is None or self.mask[rank]
            if inside and self.values[self.offsets[0] + rank] < _KNOWN:
                self.guesses.append(rank)
                return

    def learn_halves(self, differences: Bits) -> Nodes:
        """Take in the differences of what was asked about the chosen nodes; return what is cornered.

        A right half is odd if the left one is not.
        """
        level, index = self.chosen >> SHIFT, self.chosen & _INDEX
        self.frontier = self.frontier[len(self.chosen) :]
        sizes = np.where(self.how == _BY_DIGITS, level - 1, 1)
        first = differences[np.cumsum(sizes) - sizes]
        guessed = self.how >= 0
        # Halves, which digits tell first.
        under, left = level[~guessed] - 1, first[~guessed]
        self.know(under, 2 * index[~guessed], left)
        self.know(under, 2 * index[~guessed] + 1, left ^ np.uint8(1))
        odd = [(under << SHIFT) | (2 * index[~guessed] + (left ^ np.uint8(1)))]
        # Digits: the pair the error is in if there is only one; the next rounds ask which of the pair is wrong.
        for i in np.flatnonzero(self.how == _BY_DIGITS).tolist():
            start = int(sizes[:i].sum())
            rank = int(index[i])
            for digit in differences[start : start + int(sizes[i])].tolist():
                rank = 2 * rank + (digit ^ 1)
            self._guess(2 * rank)
        # Guesses: a wrong bit is cornered; else its node is searched on: in the other one of the pair, if that may be.
        self.know(np.zeros(int(guessed.sum()), dtype=np.int64), self.how[guessed], first[guessed])
        for rank in self.how[guessed][first[guessed] == 0].tolist():
            if rank % 2 == 0:
                self._guess(rank + 1)
        odd.append(self.chosen[guessed][first[guessed] == 0])
        cornered = np.concatenate([self.enter(np.concatenate(odd)), self.order[self.how[guessed][first[guessed] == 1]]])
        self.merge()
        return cornered
